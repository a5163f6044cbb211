//! What can go wrong, where it is done on purpose, and what a tablet is when it is hit.

use std::fmt;

use super::clock::MS;
use super::random::Random;

/// Something that goes wrong with a tablet, its ways or its proposals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// kill -9: what was written stays.
    Kill,
    /// The power fails: what was not synced is gone.
    PowerCut,
    /// A clean stop.
    Stop,
    /// It does not run for a while; its clock does.
    Pause,
    /// A connection to another tablet breaks.
    Break,
    /// Nothing gets through to and from another tablet.
    Cut,
    /// Nothing gets through to another tablet; the way back is open.
    CutOneWay,
    /// It hears no other tablet, and sometimes one of them does not hear it.
    Deaf,
    /// Nothing gets through to and from the nameservers.
    CutOff,
    /// The nameservers believe that it is gone, and it is not (H1).
    WrongSuspicion,
    /// Its disk takes long to sync.
    SlowDisk,
    /// Its disk refuses to write.
    FullDisk,
    /// Another nameserver takes over.
    NameserverFailover,
    /// It is told again what it was told before (H34).
    OldView,
    /// Another replica is to lead in its place (R12).
    PlannedSwitch,
    /// `auto_failover` goes off for a while.
    Toggle,
    /// Its proposal is on its way for long, or for ever (R7).
    HoldProposal,
    /// The answer to its proposal is lost.
    LoseReply,
    /// Its proposal arrives twice.
    Repeat,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Kill,
        Self::PowerCut,
        Self::Stop,
        Self::Pause,
        Self::Break,
        Self::Cut,
        Self::CutOneWay,
        Self::Deaf,
        Self::CutOff,
        Self::WrongSuspicion,
        Self::SlowDisk,
        Self::FullDisk,
        Self::NameserverFailover,
        Self::OldView,
        Self::PlannedSwitch,
        Self::Toggle,
        Self::HoldProposal,
        Self::LoseReply,
        Self::Repeat,
    ];

    /// Does it befall a proposal, and not a tablet?
    pub fn is_of_a_proposal(self) -> bool {
        matches!(self, Self::HoldProposal | Self::LoseReply | Self::Repeat)
    }

    /// Can it befall a tablet in that role? Only one that leads has anything to propose or to hand over.
    pub fn befalls(self, role: Role) -> bool {
        match self {
            Self::PlannedSwitch => role == Role::Leader,
            fault if fault.is_of_a_proposal() => role != Role::Follower,
            _ => true,
        }
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::PowerCut => "power cut",
            Self::Stop => "clean stop",
            Self::Pause => "pause",
            Self::Break => "connection breaks",
            Self::Cut => "cut from a tablet",
            Self::CutOneWay => "cut one way",
            Self::Deaf => "deaf",
            Self::CutOff => "cut from nameservers",
            Self::WrongSuspicion => "wrong suspicion",
            Self::SlowDisk => "slow disk",
            Self::FullDisk => "full disk",
            Self::NameserverFailover => "nameserver failover",
            Self::OldView => "old view",
            Self::PlannedSwitch => "planned switch",
            Self::Toggle => "auto_failover off",
            Self::HoldProposal => "proposal left open",
            Self::LoseReply => "reply lost",
            Self::Repeat => "proposal repeated",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a tablet is for a partition when something goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// It serves in the current epoch.
    Leader,
    /// Another leads.
    Follower,
    /// It was elected and does not serve yet.
    Candidate,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Leader, Self::Follower, Self::Candidate];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
        })
    }
}

/// A point of the protocol at which a fault can lie in ambush.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Point {
    /// A batch is written and not synced.
    Appended,
    /// Writes were acknowledged.
    Acknowledged,
    /// A new in-sync set was proposed.
    Proposed,
    /// A proposed in-sync set was applied; its proposer does not know yet.
    Applied,
    /// A leader was elected; it does not know yet.
    Elected,
    /// A leader begins to act in its epoch.
    Activated,
    /// A follower says hello.
    Joined,
    /// A leader names a common point.
    Truncating,
    /// A leader has surrendered (R12).
    Surrendered,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Appended,
        Self::Acknowledged,
        Self::Proposed,
        Self::Applied,
        Self::Elected,
        Self::Activated,
        Self::Joined,
        Self::Truncating,
        Self::Surrendered,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Appended => "batches written",
            Self::Acknowledged => "acknowledgements",
            Self::Proposed => "proposals",
            Self::Applied => "proposals applied",
            Self::Elected => "elections",
            Self::Activated => "activations",
            Self::Joined => "hellos",
            Self::Truncating => "common points",
            Self::Surrendered => "surrenders",
        }
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
        if self.at != point || self.fault.is_of_a_proposal() || !random.chance(self.of_1000) {
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

    /// Does it befall a proposal that is made now?
    pub fn befalls(&self, fault: Fault, random: &mut Random) -> bool {
        self.fault == fault && random.chance(self.of_1000)
    }
}

/// The end of a fault.
#[derive(Clone, Debug)]
pub enum Healing {
    /// Ways are open again.
    Ways(Vec<(usize, usize)>),
    /// A disk is fast again.
    FastDisk(usize),
    /// A disk has space again.
    RoomOnDisk(usize),
    /// `auto_failover` is on again.
    AutoFailover,
}
