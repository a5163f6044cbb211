//! One heartbeat stream: what the tablet says is noted, what was decided about it is pushed at once, and each heartbeat
//! is answered with a lease after a linearizable read that began when it had arrived (R17).
//!
//! **Invariants**
//! * A lease goes with everything that was decided about the tablet up to that read, in one message. A tablet that does
//!   not ask for one is answered without, and counts as silent (R23).
//! * The stream ends with the reign: whoever holds one is heard by the nameserver that controls.
//! * What waits for one tablet is bounded; a tablet that does not read loses its stream.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesOrdered;
use futures::{Stream, StreamExt};
use stela_common::clock::Millis;
use stela_common::code::{Code, Refusal};
use stela_common::ids::{Epoch, Incarnation, Offset, PartitionKey, TableId, TabletId, Version};
use stela_common::wire;
use stela_meta_state::plan::{Drain, Report};
use stela_proto::heartbeat as pb;
use tokio::sync::mpsc;

use super::judge::StreamId;
use super::tell::{News, Told};
use super::{Control, Reign};

/// Heartbeats of one tablet that wait for their read.
const WAITING: usize = 64;
/// Messages that wait for a tablet to read them.
pub const UNREAD: usize = 8;
/// A tablet that does not read for so long loses its stream.
const READS: Duration = Duration::from_secs(2);

/// A leader that is to surrender has so long for it, ms (R12).
const DRAIN: u32 = 1_000;

/// Where the answers go.
pub type Answers = mpsc::Sender<Result<pb::HeartbeatDown, tonic::Status>>;

/// Attends to one stream until it ends.
pub async fn attend(
    control: Arc<Control>,
    mut said: impl Stream<Item = Result<pb::HeartbeatUp, tonic::Status>> + Unpin,
    answers: Answers,
) {
    let first = match tokio::time::timeout(READS, said.next()).await {
        Ok(Some(Ok(first))) => first,
        Ok(Some(Err(malformed))) => return complain(&answers, malformed).await,
        Ok(None) | Err(_) => return,
    };
    let visit = match Visit::open(&control, &first) {
        Ok(visit) => visit,
        Err(refusal) => return say(&answers, control.dismissal(&refusal)).await,
    };
    let (tablet, run, stream) = (visit.tablet, visit.run, visit.stream);
    let why = visit.go_on(first, said, &answers).await;
    if control.soft.lock().judge.closed(tablet, stream) {
        control.suspect(tablet, run);
        control.signs.send_replace(());
    }
    if let Err(refusal) = why {
        say(&answers, control.dismissal(&refusal)).await;
    }
}

async fn say(answers: &Answers, down: pb::HeartbeatDown) {
    // One that has gone, or does not read, is not told.
    let _ = tokio::time::timeout(READS, answers.send(Ok(down))).await;
}

/// The last word to a sender that is not understood, or is gone.
async fn complain(answers: &Answers, status: tonic::Status) {
    let _ = tokio::time::timeout(READS, answers.send(Err(status))).await;
}

/// A stream of a registered run.
struct Visit {
    control: Arc<Control>,
    reign: Reign,
    tablet: TabletId,
    run: Incarnation,
    stream: StreamId,
    told: Told,
}

impl Visit {
    /// The first heartbeat says who it is.
    fn open(control: &Arc<Control>, first: &pb::HeartbeatUp) -> Result<Self, Refusal> {
        control.same_cluster(&first.cluster)?;
        let reign = control.reign.borrow().ok_or(Code::NotLeader)?;
        let (tablet, run) = (TabletId(first.tablet), Incarnation(first.incarnation));
        let stream = control.next_stream();
        control.note(|soft, state| {
            if state.tablets.get(&tablet).is_none_or(|t| t.incarnation != run) {
                return Err(Refusal::new(
                    Code::StaleEpoch,
                    format!("tablet {tablet} is not registered as run {run}"),
                ));
            }
            soft.judge.opened(tablet, run, stream, Millis::now());
            Ok(())
        })?;
        tracing::info!(%tablet, endpoint = control.endpoint_of(tablet), "is heard");
        let told = Told::new(tablet, first.known_index);
        Ok(Self { control: control.clone(), reign, tablet, run, stream, told })
    }

    /// Until the tablet ends it (`Ok`), or is to be told why it is ended.
    async fn go_on(
        mut self,
        first: pb::HeartbeatUp,
        mut said: impl Stream<Item = Result<pb::HeartbeatUp, tonic::Status>> + Unpin,
        answers: &Answers,
    ) -> Result<(), Refusal> {
        let control = self.control.clone();
        let mut applied = control.group.store().watch();
        let mut reign = control.reign();
        let mut orders = control.orders.subscribe();
        self.still(*reign.borrow_and_update())?;
        let mut reads = FuturesOrdered::new();
        let read = |up: &pb::HeartbeatUp| {
            let (group, sent) = (control.group.clone(), up.ask_lease.then_some(up.sent));
            async move { (sent, group.confirm().await.is_ok()) }
        };
        self.hear(&first)?;
        reads.push_back(read(&first));
        // What it holds is told before its first lease.
        let news = self.news();
        self.send(answers, news, None).await?;
        control.signs.send_replace(());
        loop {
            tokio::select! {
                up = said.next(), if reads.len() < WAITING => {
                    let up = match up {
                        Some(Ok(up)) => up,
                        Some(Err(malformed)) => {
                            complain(answers, malformed).await;
                            return Ok(());
                        }
                        None => return Ok(()),
                    };
                    self.hear(&up)?;
                    reads.push_back(read(&up));
                }
                Some((sent, confirmed)) = reads.next(), if !reads.is_empty() => {
                    if confirmed {
                        let (news, lease) = self.news_with_lease();
                        self.send(answers, news, sent.zip(lease)).await?;
                    }
                }
                Ok(()) = applied.changed() => {
                    let news = self.news();
                    if !news.is_empty() {
                        self.send(answers, news, None).await?;
                    }
                }
                Ok(()) = orders.changed() => {
                    orders.borrow_and_update();
                    if !self.drains().is_empty() {
                        let news = self.news();
                        self.send(answers, news, None).await?;
                    }
                }
                _ = reign.changed() => self.still(*reign.borrow_and_update())?,
                () = answers.closed() => return Ok(()),
            }
        }
    }

    /// Is it still the reign in which the stream began?
    fn still(&self, now: Option<Reign>) -> Result<(), Refusal> {
        if now == Some(self.reign) { Ok(()) } else { Err(Code::NotLeader.into()) }
    }

    fn hear(&self, up: &pb::HeartbeatUp) -> Result<(), Refusal> {
        if (up.tablet, up.incarnation) != (self.tablet.0, self.run.0) {
            return Err(Refusal::new(Code::Malformed, "a stream speaks for one run of one tablet"));
        }
        let decisive = self.control.note(|soft, state| {
            if state.tablets.get(&self.tablet).is_none_or(|t| t.incarnation != self.run) {
                return Err(Refusal::new(
                    Code::StaleEpoch,
                    "another run of this tablet has registered",
                ));
            }
            if up.ask_lease {
                soft.judge.heard(self.tablet, self.stream, Millis::now());
            }
            soft.carried_out(self.tablet, up.known_index);
            soft.dropped(state, self.tablet, up.dropped.iter().map(|tid| TableId(*tid)));
            let removed = up.removed.iter();
            let removed = removed.map(|r| (PartitionKey::new(r.tid, r.pid), Version(r.removal)));
            soft.removed(state, self.tablet, removed);
            Ok(soft.report(state, self.tablet, up.reports.iter().map(|r| report(self.run, r))))
        })?;
        if decisive {
            // A planned switch waits for nothing else, and nobody writes meanwhile (R12).
            self.control.signs.send_replace(());
        }
        Ok(())
    }

    /// R12: what this tablet is to surrender. It goes with every message as long as it is wanted.
    fn drains(&self) -> Vec<pb::Drain> {
        let soft = self.control.soft.lock();
        let ours = soft.drains().iter().filter(|d| d.leader == self.tablet);
        let order = |d: &Drain| pb::Drain {
            tid: d.key.tid.0,
            pid: d.key.pid.0,
            epoch: d.epoch.0,
            deadline_ms: DRAIN,
        };
        ours.map(order).collect()
    }

    fn news(&mut self) -> News {
        let store = self.control.group.store();
        store.read(|state| self.told.news(state, store.changed_since(self.told.upto())))
    }

    /// The news and the lease belong together: both are of one moment. Who was barred in a reign is forgotten after it
    /// has ended, so outside it there is no lease.
    fn news_with_lease(&mut self) -> (News, Option<u64>) {
        let store = self.control.group.store();
        let soft = self.control.soft.lock();
        let reigns = *self.control.reign.borrow() == Some(self.reign);
        store.read(|state| {
            let lease = soft.lease(state, self.tablet, self.run).filter(|_| reigns);
            (self.told.news(state, store.changed_since(self.told.upto())), lease)
        })
    }

    async fn send(
        &self,
        answers: &Answers,
        news: News,
        lease: Option<(u64, u64)>,
    ) -> Result<(), Refusal> {
        let (lease_sent, lease_ms) = lease.unwrap_or_default();
        let down = pb::HeartbeatDown {
            controller_epoch: self.reign.epoch,
            index: news.index,
            views: news.views,
            drops: news.drops,
            tablets: news.tablets,
            lease_sent,
            lease_ms: u32::try_from(lease_ms).unwrap_or(u32::MAX),
            status: wire::ok(),
            hint: String::new(),
            drains: self.drains(),
        };
        match tokio::time::timeout(READS, answers.send(Ok(down))).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::new(Code::Busy, "the tablet does not read what it is told")),
        }
    }
}

impl Control {
    /// The last message of a stream: why it ends, and where to go.
    fn dismissal(&self, refusal: &Refusal) -> pb::HeartbeatDown {
        let hint = self.group.leadership().borrow().leader.clone().unwrap_or_default();
        pb::HeartbeatDown { status: wire::refused(refusal), hint, ..Default::default() }
    }

    /// Refuses who means another cluster.
    ///
    /// # Errors
    /// Which cluster this is.
    pub fn same_cluster(&self, asked: &str) -> Result<(), Refusal> {
        let ours = self.group.cluster();
        if asked == ours {
            return Ok(());
        }
        let own = self.group.endpoint();
        let text = format!(
            "nameserver {own} is of cluster '{ours}', not of '{asked}'; correct --nameservers or --cluster"
        );
        Err(Refusal::new(Code::WrongCluster, text))
    }
}

/// A replica's report as the planner takes it.
fn report(run: Incarnation, r: &pb::ReplicaReport) -> (PartitionKey, Report) {
    let report = Report {
        incarnation: run,
        epoch: Epoch(r.epoch),
        leading: r.leading,
        serving: r.serving,
        waits_for_others: r.waits_for_others,
        quarantined: r.quarantined,
        loading: r.loading,
        surrendered: Epoch(r.surrendered),
        last_epoch: Epoch(r.last_epoch),
        offset: Offset(r.offset),
        commit: Offset(r.commit),
        start: (r.leading && r.serving).then_some(r.epoch_start).flatten().map(Offset),
        records: r.record_cnt,
        keys: r.key_cnt,
        memory: r.memory,
        disk: r.disk,
    };
    (PartitionKey::new(r.tid, r.pid), report)
}

/// What a registration says of a replica.
#[must_use]
pub fn inventory(run: Incarnation, i: &pb::Inventory) -> (PartitionKey, Report) {
    let report = Report {
        incarnation: run,
        last_epoch: Epoch(i.last_epoch),
        offset: Offset(i.last_offset),
        quarantined: i.damaged || i.loading,
        loading: i.loading,
        ..Report::default()
    };
    (PartitionKey::new(i.tid, i.pid), report)
}
