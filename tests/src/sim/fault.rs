//! What can go wrong, and what a tablet is when it is hit.

use std::fmt;

/// An enumeration whose members have names.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $member:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $($(#[$of])* $member,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$member,)*];

            /// What it is called.
            pub fn name(self) -> &'static str {
                match self { $(Self::$member => $text,)* }
            }
        }
    };
}
pub(super) use named;

named! {
    /// Something that goes wrong with a tablet, its disk, its ways or its messages, or that somebody wants meanwhile.
    Fault {
        /// kill -9: what was written stays.
        Kill = "kill",
        /// The power fails: what was not synced is gone, whole batches, the end of one, or the middle of one.
        PowerCut = "power cut",
        /// The power of all tablets fails at once (R15).
        Blackout = "power cut of all",
        /// A clean stop.
        Stop = "clean stop",
        /// It does not run for a while; its disk, its sockets and its clock do.
        Pause = "pause",
        /// Its machine stands still, and then its clock catches up (R38).
        Freeze = "machine frozen",
        /// Its clock runs at another rate from now on.
        Drift = "clock drift",
        /// A connection to another tablet breaks.
        Break = "connection breaks",
        /// Nothing gets through to and from another tablet.
        Cut = "cut from a tablet",
        /// Nothing gets through to another tablet; the way back is open.
        CutOneWay = "cut one way",
        /// Nothing gets through to and from it but what clients ask.
        Isolate = "isolated",
        /// Everything to and from it takes long.
        Delay = "messages delayed",
        /// It hears no other tablet, and sometimes one of them does not hear it.
        Deaf = "deaf",
        /// Nothing gets through to and from the nameservers.
        CutOff = "cut from nameservers",
        /// The nameservers believe that it is gone, and it is not (H1).
        WrongSuspicion = "wrong suspicion",
        /// Its disk takes long to sync.
        SlowDisk = "slow disk",
        /// Its disk refuses to write.
        FullDisk = "full disk",
        /// Its disk is gone, it starts with an empty one.
        Wipe = "disk wiped",
        /// Its disk is an image of an earlier run (H4).
        RollBack = "disk rolled back",
        /// A record that was synced is found damaged at its next start (R30).
        Damage = "log damaged",
        /// Another nameserver takes over.
        NameserverFailover = "nameserver failover",
        /// The nameserver that leads stands still for a while, and hears all at once then (R17).
        NameserverPause = "nameserver stands still",
        /// The clock of the nameserver runs at another rate from now on.
        NameserverDrift = "nameserver clock drift",
        /// It is told again what it was told before (H34).
        OldView = "old view",
        /// Another replica is to lead in its place (R12).
        PlannedSwitch = "planned switch",
        /// `auto_failover` goes off for a while.
        Toggle = "auto_failover off",
        /// A table is made, which lives for a while.
        NewTable = "table created",
        /// A table is dropped.
        DropTable = "table dropped",
        /// A table gets other options.
        Options = "options changed",
        /// Its proposal is on its way for long, or for ever (R7).
        HoldProposal = "proposal left open",
        /// The answer to its proposal is lost.
        LoseReply = "reply lost",
        /// Its proposal arrives twice.
        Repeat = "proposal repeated",
        /// Its registration arrives again, late (R14).
        LateRegistration = "late registration",
        /// A client's request to it is lost, or the answer.
        LoseRequest = "request lost",
        /// A client's request to it arrives again, late.
        RepeatRequest = "request repeated",
    }
}

impl Fault {
    /// Does it befall a message, and not a tablet?
    pub fn is_of_a_message(self) -> bool {
        self.is_of_a_proposal()
            || matches!(self, Self::LateRegistration | Self::LoseRequest | Self::RepeatRequest)
    }

    fn is_of_a_proposal(self) -> bool {
        matches!(self, Self::HoldProposal | Self::LoseReply | Self::Repeat)
    }

    /// Does it befall the cluster as a whole?
    pub fn is_of_all(self) -> bool {
        matches!(
            self,
            Self::Blackout
                | Self::NameserverFailover
                | Self::NameserverPause
                | Self::NameserverDrift
                | Self::Toggle
                | Self::NewTable
                | Self::DropTable
                | Self::Options
        )
    }

    /// Can it befall a tablet in that role? Only one that leads has anything to propose or to hand over, and one that
    /// registers leads nothing yet.
    pub fn befalls(self, role: Role) -> bool {
        match self {
            Self::PlannedSwitch => role == Role::Leader,
            Self::LateRegistration => role == Role::Follower,
            fault if fault.is_of_a_proposal() => role != Role::Follower,
            _ => true,
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

/// The end of a fault.
#[derive(Clone, Debug)]
pub enum Healing {
    /// Ways are open again.
    Ways(Vec<(usize, usize)>),
    /// A disk is fast again.
    FastDisk(usize),
    /// A disk has space again.
    RoomOnDisk(usize),
    /// Messages are as fast as ever.
    FastWays(usize),
    /// `auto_failover` is on again.
    AutoFailover,
}
