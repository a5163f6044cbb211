//! Points of the protocol at which a fault can lie in ambush: every kind of output of a core, every message at either of
//! its ends, and the steps of the meta group.

use super::clock::MS;
use super::fault::{Fault, named};
use super::random::Random;

named! {
    /// A point of the protocol.
    Point {
        /// A batch is written and not synced.
        Appended = "batches written",
        /// A follower's records are written and not synced.
        Stored = "records stored",
        /// A follower has written that it acts in a new epoch.
        Followed = "epochs joined",
        /// A follower has voided its divergent entries, not synced.
        Cut = "truncations",
        /// A sync of the log has ended.
        Synced = "syncs",
        /// Entries became readable.
        Committed = "commits",
        /// Writes were acknowledged.
        Acknowledged = "acknowledgements",
        /// A write was acknowledged by the leader's word alone (R34).
        AcknowledgedEarly = "acknowledgements by one",
        /// A new in-sync set was proposed.
        Proposed = "proposals",
        /// A proposed in-sync set was applied; its proposer does not know yet.
        Applied = "proposals applied",
        /// The proposer learns what became of its proposal.
        Answered = "proposals answered",
        /// A leader was elected; it does not know yet.
        Elected = "elections",
        /// A leader begins to act in its epoch.
        Activated = "activations",
        /// Its barrier is passed.
        Serving = "barriers passed",
        /// A leader steps down.
        Deposed = "leaders stepped down",
        /// A leader without a lease gives its waiting writes up (R9).
        GaveUp = "waiting writes given up",
        /// A write of a replica failed: it will be made anew.
        Suspended = "replicas suspended",
        /// A leader begins to ship to a follower.
        Shipping = "shipments begun",
        /// A leader ships no more to a follower.
        ShippingEnds = "shipments ended",
        /// A leader announces itself.
        Leads = "leads said",
        /// A follower hears of a leader.
        HearsLead = "leads heard",
        /// A follower says hello.
        Joined = "hellos said",
        /// A leader hears a hello.
        HearsHello = "hellos heard",
        /// A leader names a common point.
        Truncating = "common points said",
        /// A follower hears the common point.
        HearsOrder = "common points heard",
        /// Records arrive at a follower.
        HearsRecords = "records heard",
        /// A leader says how far it has committed.
        SaysCommit = "commit offsets said",
        /// A follower hears how far is committed.
        HearsCommit = "commit offsets heard",
        /// A follower acknowledges.
        Acks = "acks said",
        /// A leader hears an acknowledgement.
        HearsAck = "acks heard",
        /// A follower says that it has left.
        Leaves = "lefts said",
        /// A leader hears that a follower has left.
        HearsLeft = "lefts heard",
        /// A follower is asked for a permit, and gives it (R11).
        Grants = "permits given",
        /// A leader has a permit.
        HearsGrant = "permits heard",
        /// A stream is accepted.
        Accepts = "streams accepted",
        /// A stream is open at both ends.
        Connected = "streams opened",
        /// A stream is noticed to be gone.
        Disconnected = "streams gone",
        /// A process has sent its registration.
        Registers = "registrations sent",
        /// A registration was applied; the tablet does not know yet.
        RegisterApplied = "registrations applied",
        /// A tablet knows that it is registered.
        Registered = "registrations answered",
        /// A tablet sends a heartbeat.
        Beats = "heartbeats",
        /// A tablet is told a decision.
        ToldView = "views told",
        /// A tablet gets a meta lease.
        ToldLease = "leases told",
        /// A leader is told to hand over (R12).
        ToldDrain = "drains told",
        /// A leader has surrendered (R12).
        Surrendered = "surrenders",
        /// A tablet is told that a table was dropped.
        ToldDrop = "drops told",
        /// A write is admitted.
        Admitted = "writes admitted",
        /// A read is served by a leader.
        Served = "reads served",
        /// A damaged copy begins anew.
        Rebuilt = "copies rebuilt",
    }
}

/// Whom an ambush hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whom {
    /// The tablet that is at that point.
    Here,
    /// Another one.
    Other,
    /// Any, the one at that point most of the time.
    Any,
}

/// A fault at a point of the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Ambush {
    at: Point,
    fault: Fault,
    of_1000: u32,
    whom: Whom,
    after_ms: u64,
}

impl Ambush {
    /// A fault that strikes there in so many of a thousand cases, at once or nearly.
    pub const fn new(at: Point, fault: Fault, of_1000: u32) -> Self {
        Self { at, fault, of_1000, whom: Whom::Any, after_ms: 0 }
    }

    /// It hits only that one.
    pub const fn at(self, whom: Whom) -> Self {
        Self { whom, ..self }
    }

    /// It strikes so many milliseconds later, or up to twice as many.
    pub const fn after(self, ms: u64) -> Self {
        Self { after_ms: ms, ..self }
    }

    /// What strikes at that point now: at whom, and after how many microseconds.
    pub fn strikes(
        &self,
        point: Point,
        tablet: usize,
        tablets: usize,
        random: &mut Random,
    ) -> Option<(Fault, usize, u64)> {
        if self.at != point || self.fault.is_of_a_message() || !random.chance(self.of_1000) {
            return None;
        }
        let other = (tablet + 1 + random.index(tablets - 1)) % tablets;
        let victim = match self.whom {
            Whom::Here => tablet,
            Whom::Other => other,
            Whom::Any => {
                if random.chance(250) {
                    other
                } else {
                    tablet
                }
            }
        };
        let at_once = random.chance(500);
        let delay = match self.after_ms {
            0 if at_once => 0,
            0 => random.below(5 * MS),
            ms => random.between(ms * MS, 2 * ms * MS),
        };
        Some((self.fault, victim, delay))
    }

    /// Does it befall a message that is sent now?
    pub fn befalls(&self, fault: Fault, random: &mut Random) -> bool {
        self.fault == fault && random.chance(self.of_1000)
    }
}

/// A fault that lies in ambush at one point in one run, drawn with its seed: it strikes at every so many-th passing, so
/// that over many seeds every point is met, the rare ones, too, early and late.
#[derive(Clone, Copy, Debug)]
pub struct Lurker {
    point: Point,
    fault: Fault,
    every: u64,
    next: u64,
    left: u32,
}

impl Lurker {
    /// Some ambush: a crash more often than not.
    pub fn draw(random: &mut Random) -> Self {
        const OTHERS: &[Fault] = &[
            Fault::Pause,
            Fault::Freeze,
            Fault::Break,
            Fault::Cut,
            Fault::CutOneWay,
            Fault::CutOff,
            Fault::WrongSuspicion,
            Fault::NameserverFailover,
            Fault::SlowDisk,
            Fault::FullDisk,
        ];
        let point = Point::ALL[random.index(Point::ALL.len())];
        let fault = match random.below(10) {
            0..=4 => Fault::PowerCut,
            5 | 6 => Fault::Kill,
            _ => OTHERS[random.index(OTHERS.len())],
        };
        // The first passing, or one in some thousands, each order of magnitude as likely as the other.
        let every = if random.chance(300) { 1 } else { random.between(1, 3) << random.below(11) };
        Self { point, fault, every, next: every, left: 4 }
    }

    /// What strikes when that point is passed.
    pub fn passed(&mut self, point: Point) -> Option<Fault> {
        if self.point != point || self.left == 0 {
            return None;
        }
        self.next -= 1;
        (self.next == 0).then(|| {
            self.next = self.every * 2;
            self.left -= 1;
            self.fault
        })
    }
}
