//! The follower's role: it joins whoever leads in the highest epoch that it knows, and holds what that leader ships.
//!
//! Invariants: nothing is said in an epoch before it is stored, synced (R2), and nothing is taken in an epoch below the
//! highest known (R3). Each connection is joined anew, by a nonce of its own; a joining cuts the log at most once, never
//! below what was acknowledged in its epoch or is known to be committed (R4). From then on the whole log equals the
//! leader's: an acknowledgement is the log's end, as far as it is stored as the table asks. Whoever was told Hello is
//! told Left when a higher epoch becomes known, on each connection where it was told (R11).
//!
//! A copy that is not whole (R30) stores the epoch and says Hello as any other, so that it hears only the leader of the
//! highest epoch that it knows (R2, R3); it asks for a snapshot with it, and acknowledges nothing. The same is said by one
//! whose log parts from the leader's within its snapshot. What it has is given up only when the leader has answered that
//! it is in no in-sync set that may have been decided, and only while that answer is the last word of the epoch.
//!
//! A joining moves to another connection when `Lead` comes there, or when its own is gone: a leader that has reconnected
//! says `Lead` first, and repeats it to a follower that does not acknowledge.

use stela_common::ids::{Epoch, Incarnation, Offset, TabletId};

use super::base::{At, Base};
use crate::message::{Conn, Output, ToFollower, ToLeader};
use crate::variant::Variant;

/// How far a joining is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The epoch is on its way to the disk.
    Storing,
    /// Hello was said.
    Asked,
    /// The leader has answered that the log cannot be continued: a snapshot is to come.
    Fetching,
    /// The logs are equal; what was acknowledged last.
    Joined(Option<Offset>),
}

#[derive(Clone, Copy, Debug)]
struct Joining {
    conn: Conn,
    nonce: u64,
    stage: Stage,
}

impl Joining {
    /// Does an answer with that name belong to it, and is it the first one (R4)?
    fn asked(&self, nonce: u64) -> bool {
        (self.nonce, self.stage) == (nonce, Stage::Asked)
    }
}

/// A follower in the stored epoch.
#[derive(Clone, Debug, Default)]
pub(super) struct Follower {
    /// Who leads, as was heard from itself.
    leader: Option<(TabletId, Incarnation)>,
    joining: Option<Joining>,
    /// Where Hello was said in this epoch: there the leader counts on it.
    greeted: Vec<Conn>,
    /// The most that it acknowledged in this epoch.
    acked: Offset,
    /// The leader's log parts from this one within the snapshot, which cannot be cut.
    overtaken: bool,
}

/// Who speaks, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) conn: Conn,
    pub(super) peer: TabletId,
    pub(super) incarnation: Incarnation,
}

impl Follower {
    /// Who leads in the stored epoch, if it has spoken.
    pub(super) fn leader(&self) -> Option<(TabletId, Incarnation)> {
        self.leader
    }

    /// Does it wait for a snapshot?
    pub(super) fn awaits_snapshot(&self) -> bool {
        self.joining.is_some_and(|j| j.stage == Stage::Fetching)
    }

    /// That higher epoch is known: this one is over. Its leader hears it before it gets another permit (R11).
    pub(super) fn leave(
        &mut self,
        epoch: Epoch,
        base: &mut Base,
        at: At<'_>,
        out: &mut Vec<Output>,
    ) {
        self.note_grants(base, at);
        out.extend(
            self.greeted.drain(..).map(|conn| Output::SendLeader(conn, ToLeader::Left { epoch })),
        );
        self.joining = None;
    }

    /// A connection is gone, and with it what its other end may count on from now on.
    /// A joining there goes on where the leader was greeted before: it counts on that, and may have nothing more to say.
    pub(super) fn disconnected(
        &mut self,
        conn: Conn,
        base: &mut Base,
        at: At<'_>,
        out: &mut Vec<Output>,
    ) {
        if self.greeted.contains(&conn) {
            self.note_grants(base, at);
            self.greeted.retain(|c| *c != conn);
        }
        if self.joining.is_some_and(|j| j.conn == conn) {
            self.joining = None;
            if let Some(other) = self.greeted.last() {
                self.join(*other, base, out);
            }
        }
    }

    /// What the leader was granted so far may cover this partition: where it was greeted it counts on it.
    fn note_grants(&self, base: &mut Base, at: At<'_>) {
        if let Some((peer, _)) = self.leader.filter(|_| !self.greeted.is_empty()) {
            base.given.left(peer, at.env.grants.last(peer));
        }
    }

    /// Writes are on disk: what waited for that is said.
    pub(super) fn synced<V: Variant>(&mut self, base: &mut Base, out: &mut Vec<Output>) {
        match self.joining {
            Some(Joining { stage: Stage::Storing, conn, .. }) if base.log.settled() => {
                self.greet(conn, base, out)
            }
            Some(Joining { stage: Stage::Joined(_), .. }) => self.acknowledge::<V>(base, out),
            _ => {}
        }
    }

    /// "I lead in this epoch", which is not below any that is known: joins on that connection.
    pub(super) fn lead<V: Variant>(
        &mut self,
        sender: Sender,
        epoch: Epoch,
        base: &mut Base,
        at: At<'_>,
        out: &mut Vec<Output>,
    ) {
        if base.contradicted {
            return;
        }
        let leader = (sender.peer, sender.incarnation);
        if epoch > base.log.epoch() {
            self.leave(epoch, base, at, out);
            base.store_epoch(epoch, false, out);
            *self = Self { leader: Some(leader), ..Self::default() };
        } else if !V::RESUME_EPOCH && self.leader.is_some_and(|known| known != leader) {
            // An epoch has one leader, and one run of it (R1).
            return;
        }
        self.leader = Some(leader);
        self.join(sender.conn, base, out);
    }

    /// Joins on that connection, from the start.
    fn join(&mut self, conn: Conn, base: &mut Base, out: &mut Vec<Output>) {
        if base.log.settled() {
            self.greet(conn, base, out);
        } else {
            self.joining = Some(Joining { conn, nonce: 0, stage: Stage::Storing });
        }
    }

    fn greet(&mut self, conn: Conn, base: &mut Base, out: &mut Vec<Output>) {
        let nonce = base.nonce();
        self.joining = Some(Joining { conn, nonce, stage: Stage::Asked });
        if !self.greeted.contains(&conn) {
            self.greeted.push(conn);
        }
        let (epoch, history, last) = (base.log.epoch(), base.log.epochs().clone(), base.log.last());
        let rebuild = base.damaged || self.overtaken;
        out.push(Output::SendLeader(
            conn,
            ToLeader::Hello { epoch, nonce, history, last, rebuild },
        ));
    }

    /// A message of the stored epoch, or (planted B3) of whatever epoch.
    pub(super) fn hear<V: Variant>(
        &mut self,
        sender: Sender,
        message: ToFollower,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) {
        if base.contradicted {
            return;
        }
        if let ToFollower::Records { entries, commit, .. } = &message
            && V::NO_EPOCH_CHECK
        {
            return self.append_unchecked::<V>(entries, *commit, base, out);
        }
        if self.leader != Some((sender.peer, sender.incarnation)) {
            return;
        }
        let Some(joining) = self.joining else {
            // The connection that was joined is gone, and this one is not: the leader is to be asked here.
            return self.join(sender.conn, base, out);
        };
        if joining.conn != sender.conn {
            return;
        }
        match message {
            ToFollower::CommonPoint { nonce, offset, unclean, .. } => {
                let asked = joining.asked(nonce) && !base.damaged && !self.overtaken;
                if asked || (V::REPEAT_TRUNCATE && joining.stage != Stage::Storing) {
                    self.cut::<V>(joining, offset, unclean, base, out);
                }
            }
            ToFollower::NeedSnapshot { nonce, common, offset, unclean, .. } => {
                if joining.asked(nonce) && !self.contradicted_by(common, unclean, base, out) {
                    self.joining = Some(Joining { stage: Stage::Fetching, ..joining });
                    let Sender { peer, incarnation, .. } = sender;
                    out.push(Output::FetchSnapshot { peer, incarnation, common, offset });
                }
            }
            // Between Hello and its answer there may be records of the joining before.
            ToFollower::Records { prev, entries, commit, .. } => {
                if matches!(joining.stage, Stage::Joined(_)) {
                    self.append::<V>(joining.conn, prev, &entries, commit, base, out);
                }
            }
            ToFollower::Commit { commit, .. } => {
                if matches!(joining.stage, Stage::Joined(_)) {
                    base.committed(commit, out);
                }
            }
            ToFollower::Lead { .. } => {}
        }
    }

    /// The logs are equal up to `to`: what lies beyond goes (R4).
    fn cut<V: Variant>(
        &mut self,
        joining: Joining,
        to: Offset,
        unclean: bool,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) {
        let last = base.log.last();
        // No honest leader names a point beyond the log that it was told of.
        if to > last {
            return;
        }
        if to < last {
            if !V::REPEAT_TRUNCATE && self.contradicted_by(to, unclean, base, out) {
                return;
            }
            if to < base.snapshot {
                // It says so, and gives up what it has when the leader has made sure that nobody counts on it.
                self.overtaken = true;
                return self.greet(joining.conn, base, out);
            }
            let write = base.log.truncate(to);
            out.push(Output::Truncate { write, to });
            // Only an unclean epoch takes back what was committed (R16).
            base.commit = base.commit.min(to);
        }
        self.joining = Some(Joining { stage: Stage::Joined(None), ..joining });
        self.acknowledge::<V>(base, out);
    }

    /// Is an entry beyond `to`, up to where the leader's log and this one are equal, acknowledged or committed (R4)?
    /// Then one of the two has lost something: this one is kept as it is, and neither cut nor rebuilt.
    fn contradicted_by(
        &mut self,
        to: Offset,
        unclean: bool,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) -> bool {
        let floor = if unclean { self.acked } else { self.acked.max(base.commit) };
        if to >= floor {
            return false;
        }
        self.joining = None;
        let epoch = base.log.epoch();
        base.contradict(
            format!(
                "the leader of epoch {epoch} has this copy's entries up to {to} only, but those up to {floor} are \
                 committed or acknowledged"
            ),
            out,
        );
        true
    }

    /// R5: records count where they continue this log.
    fn append<V: Variant>(
        &mut self,
        conn: Conn,
        prev: (Offset, Epoch),
        entries: &[(Offset, Epoch)],
        commit: Offset,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) {
        let Some(present) = present(base, prev, entries) else {
            // A gap, or another log than the one that was joined: the leader is asked anew, and ships from there.
            return self.greet(conn, base, out);
        };
        self.append_from::<V>(present, entries, commit, base, out);
    }

    fn append_from<V: Variant>(
        &mut self,
        from: usize,
        entries: &[(Offset, Epoch)],
        commit: Offset,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) {
        if from < entries.len() {
            let write = base.log.append_all(entries[from..].iter().map(|(_, epoch)| *epoch));
            out.push(Output::Append { write, from, to: entries.len() });
        }
        self.acknowledge::<V>(base, out);
        base.committed(commit, out);
    }

    /// B3: whatever continues this log by its offset is taken.
    fn append_unchecked<V: Variant>(
        &mut self,
        entries: &[(Offset, Epoch)],
        commit: Offset,
        base: &mut Base,
        out: &mut Vec<Output>,
    ) {
        let next = base.log.last().next();
        if let Some(from) = entries.iter().position(|(offset, _)| *offset == next) {
            self.append_from::<V>(from, entries, commit, base, out);
        }
    }

    /// Says how far the log is stored, when that has changed and everything before it is on disk.
    fn acknowledge<V: Variant>(&mut self, base: &Base, out: &mut Vec<Output>) {
        let Some(Joining { conn, nonce, stage: Stage::Joined(said) }) = &mut self.joining else {
            return;
        };
        let offset = base.log.stable::<V>(base.me.options.sync);
        if *said == Some(offset) || !(base.log.settled() || V::ACK_BEFORE_SYNC) {
            return;
        }
        *said = Some(offset);
        self.acked = self.acked.max(offset);
        let ack = ToLeader::Ack { epoch: base.log.epoch(), nonce: *nonce, offset };
        out.push(Output::SendLeader(*conn, ack));
    }
}

/// How many of the records are present already; `None` if they do not continue this log.
fn present(base: &Base, prev: (Offset, Epoch), entries: &[(Offset, Epoch)]) -> Option<usize> {
    let (epochs, last) = (base.log.epochs(), base.log.last());
    if prev.0 > last || epochs.epoch_at(prev.0) != prev.1 {
        return None;
    }
    let mut before = prev;
    let mut present = 0;
    for (offset, epoch) in entries {
        if *offset != before.0.next() || *epoch < before.1 || *epoch > base.log.epoch() {
            return None;
        }
        if *offset <= last {
            if epochs.epoch_at(*offset) != *epoch {
                return None;
            }
            present += 1;
        }
        before = (*offset, *epoch);
    }
    Some(present)
}
