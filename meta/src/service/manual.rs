//! What operators decide: who leads (R12, R16) and a table's options.
//!
//! **Invariants**
//! * What needs signs of life or reports is answered by the nameserver that controls; another one forwards it there.
//! * An unclean election is proposed only when no lease that the old leader may hold is left (R16), as far as leases were
//!   given here, and by its grace as far as they were given before this reign.

use std::time::{Duration, Instant};

use stela_common::clock::Millis;
use stela_common::code::{Code, Refusal};
use stela_common::ids::{Incarnation, PartitionId, PartitionKey, TabletId, Version};
use stela_common::table::{Ack, Read, Sync};
use stela_common::wire;
use stela_meta_state::command::{Command, Elect};
use stela_meta_state::state::{Doubt, Partition, State};
use stela_proto::nameserver as pb;

use super::nameserver::{Answers, written};
use crate::control::PULSE;
use crate::control::soft::Soft;

/// An unclean election waits no longer than this for the old leader's lease: longer than any lease and its grace.
const LEASE_ENDS: Duration = Duration::from_secs(25);

/// A partition and a replica of it, by the names that operators use.
fn find<'a>(
    state: &'a State,
    db: &str,
    name: &str,
    pid: u32,
) -> Result<(PartitionKey, &'a Partition), Refusal> {
    let table = state
        .table(db, name)
        .ok_or_else(|| Refusal::new(Code::TableNotFound, format!("table {name} does not exist")))?;
    let key = PartitionKey { tid: table.tid, pid: PartitionId(pid) };
    let partition = state.partitions.get(&key).ok_or(Code::PidNotFound)?;
    Ok((key, partition))
}

fn tablet(state: &State, endpoint: &str) -> Result<(TabletId, Incarnation), Refusal> {
    let (id, tablet) = state.tablet(endpoint).ok_or_else(|| {
        Refusal::new(Code::EndpointNotFound, format!("no tablet is known at {endpoint}"))
    })?;
    Ok((id, tablet.incarnation))
}

impl Answers {
    pub(super) async fn change_options(
        &self,
        request: pb::SetTableRequest,
    ) -> Result<pb::WriteReply, Refusal> {
        let pb::SetTableRequest {
            db,
            name,
            ack_leader,
            sync_interval_ms,
            min_insync,
            request,
            read_confirm,
        } = request;
        let read = read_confirm.map(Read::from_flag);
        let ack = ack_leader.map(|leader| if leader { Ack::Leader } else { Ack::All });
        let sync = sync_interval_ms.map(|ms| match ms {
            0 => Sync::Commit,
            ms => Sync::Interval(ms),
        });
        Ok(self.write(Command::SetTable { db, name, ack, sync, min_insync, read }, request).await)
    }

    /// The jobs, or that one, with how much of each is left.
    pub(super) async fn jobs(&self, id: u64) -> Result<pb::ShowJobsReply, Refusal> {
        self.group().linearizable().await?;
        Ok(self.control().look(|soft, state| {
            let asked = state.jobs.iter().filter(|(at, _)| id == 0 || at.0 == id);
            let rows = asked.map(|(id, job)| pb::JobRow {
                id: id.0,
                kind: job.kind.word().into(),
                endpoints: job.tablets.iter().map(|t| state.endpoint(*t)).collect(),
                status: job.status.word().into(),
                start_time: job.start,
                end_time: job.end,
                done: job.done,
                failed: job.failed,
                left: match job.status.is_final() {
                    true => 0,
                    false => u32::try_from(soft.remaining(state, job)).unwrap_or(u32::MAX),
                },
                why: match job.status.is_final() {
                    true => job.why.clone(),
                    false => soft.waits_for(state, job),
                },
            });
            pb::ShowJobsReply { status: wire::ok(), jobs: rows.collect() }
        }))
    }

    pub(super) async fn candidates_of(
        &self,
        request: &pb::CandidatesRequest,
    ) -> Result<pb::CandidatesReply, Refusal> {
        self.group().linearizable().await?;
        self.control().look(|soft, state| {
            let (key, partition) = find(state, &request.db, &request.name, request.pid)?;
            let endpoint = |id: TabletId| {
                state.tablets.get(&id).map(|t| t.endpoint.clone()).unwrap_or_default()
            };
            let rows = partition.replicas.iter().map(|replica| {
                let report = soft.report_of(state, key, replica.tablet);
                let member = partition.member(replica.tablet);
                pb::CandidateRow {
                    endpoint: endpoint(replica.tablet),
                    healthy: state.is_healthy(replica.tablet),
                    in_sync: member.is_some(),
                    untrusted: member.is_some_and(|m| m.untrusted),
                    held: replica.held,
                    known: report.is_some(),
                    quarantined: report.is_some_and(|r| r.quarantined),
                    last_epoch: report.map_or(0, |r| r.last_epoch.0),
                    offset: report.map_or(0, |r| r.offset.0),
                    commit: report.map_or(0, |r| r.commit.0),
                    doubt: partition.doubt(replica.tablet).map_or("", Doubt::text).into(),
                }
            });
            Ok(pb::CandidatesReply {
                status: wire::ok(),
                epoch: partition.epoch.0,
                version: partition.version.0,
                leader: endpoint(partition.leader),
                waits: soft.obstacle(key).unwrap_or_default().into(),
                rows: rows.collect(),
            })
        })
    }

    /// R16.
    pub(super) async fn elect_unclean(
        &self,
        request: pb::ElectRequest,
    ) -> Result<pb::WriteReply, Refusal> {
        let deadline = Instant::now() + LEASE_ENDS;
        loop {
            self.group().linearizable().await?;
            let found = self.control().look(|soft, state| unclean(soft, state, &request))?;
            match found {
                Some(elect) => return Ok(self.write(Command::Elect(elect), request.request).await),
                None if Instant::now() < deadline => tokio::time::sleep(PULSE).await,
                None => {
                    return Err(Refusal::new(
                        Code::Busy,
                        "the old leader may still hold a lease; nothing was changed, try again",
                    ));
                }
            }
        }
    }
}

/// The election that is asked for; `None`: the old leader may still hold a lease.
fn unclean(
    soft: &Soft,
    state: &State,
    request: &pb::ElectRequest,
) -> Result<Option<Elect>, Refusal> {
    let (key, partition) = find(state, &request.db, &request.name, request.pid)?;
    let (leader, incarnation) = tablet(state, &request.endpoint)?;
    let old = (partition.leader, partition.leader_incarnation);
    let succeeded = state.tablets.get(&old.0).is_none_or(|t| t.incarnation != old.1);
    if !succeeded && !soft.judge.seen_as(old.0, old.1, Millis::now()).silent {
        // While it is heard apply would refuse; while it may not be heard and yet hold a lease, it is waited for.
        if state.is_healthy(old.0) {
            let text = "the leader is there: use changeleader";
            return Err(Refusal::new(Code::InvalidParameter, text));
        }
        return Ok(None);
    }
    Ok(Some(Elect {
        key,
        expected: Version(request.version),
        leader,
        incarnation,
        auto: false,
        surrendered: None,
        unclean: Some(soft.logs(state, key)),
    }))
}

/// The answer to a write that was refused before it was proposed.
pub(super) fn answered(outcome: Result<pb::WriteReply, Refusal>) -> pb::WriteReply {
    outcome.unwrap_or_else(|refusal| written(Err(refusal)))
}
