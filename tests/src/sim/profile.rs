//! How a run is steered: what goes wrong how often, and at which points of the protocol on purpose.

use super::fault::Fault;
use super::point::{Ambush, Point, Whom};
use super::scene::Pace;

/// A way to steer.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// Tablets, each with a replica of every partition.
    pub tablets: usize,
    /// How long things take.
    pub pace: Pace,
    /// Partitions.
    pub partitions: u32,
    /// `sync=interval` instead of `sync=commit`.
    pub interval: bool,
    /// `min_insync` of the table.
    pub min_insync: u32,
    /// Milliseconds between two faults that come by themselves, on average.
    pub every: u64,
    /// Faults that come by themselves, with their weights.
    pub faults: &'static [(Fault, u32)],
    /// Faults at a point of the protocol, with their chance of a thousand.
    pub ambushes: &'static [Ambush],
    /// A sync takes up to so many milliseconds.
    pub sync_ms: u64,
    /// A message takes up to so many milliseconds.
    pub latency_ms: u64,
    /// Of a thousand connections that break, so many are noticed late by either end.
    pub half_open: u32,
    /// A process that has ended is away for up to so many milliseconds.
    pub away_ms: u64,
    /// Of a thousand planned switches, so many are put off by the controller.
    pub slow_controller: u32,
    /// Faults that lie in ambush at points that are drawn with the seed.
    pub lurkers: u32,
    /// The disks of all members of a set may be ruined, and somebody decides what is to be done then (R16).
    pub ruin: bool,
    /// Writers.
    pub writers: usize,
    /// Readers.
    pub readers: usize,
    /// Milliseconds with faults.
    pub rough_ms: u64,
}

const EVERYTHING: &[(Fault, u32)] = &[
    (Fault::Kill, 10),
    (Fault::PowerCut, 10),
    (Fault::Stop, 3),
    (Fault::Blackout, 2),
    (Fault::Pause, 8),
    (Fault::Break, 12),
    (Fault::Cut, 6),
    (Fault::CutOneWay, 6),
    (Fault::Deaf, 5),
    (Fault::CutOff, 5),
    (Fault::WrongSuspicion, 8),
    (Fault::SlowDisk, 6),
    (Fault::FullDisk, 3),
    (Fault::NameserverFailover, 4),
    (Fault::NameserverPause, 3),
    (Fault::NameserverDrift, 2),
    (Fault::OldView, 4),
    (Fault::PlannedSwitch, 6),
    (Fault::Freeze, 4),
    (Fault::Drift, 4),
    (Fault::Delay, 5),
    (Fault::Isolate, 3),
    (Fault::Wipe, 3),
    (Fault::RollBack, 4),
    (Fault::Damage, 4),
    (Fault::NewTable, 4),
    (Fault::DropTable, 3),
    (Fault::Options, 3),
    (Fault::Toggle, 2),
];

/// Everything at once, three tablets.
pub const MIXED: Profile = Profile {
    name: "mixed",
    tablets: 3,
    pace: Pace::REAL,
    partitions: 2,
    interval: false,
    min_insync: 1,
    every: 250,
    faults: EVERYTHING,
    ambushes: &[
        Ambush::new(Point::Proposed, Fault::HoldProposal, 250),
        Ambush::new(Point::Proposed, Fault::LoseReply, 250),
        Ambush::new(Point::Proposed, Fault::Repeat, 200),
        Ambush::new(Point::Applied, Fault::PowerCut, 80),
        Ambush::new(Point::Elected, Fault::WrongSuspicion, 60),
        Ambush::new(Point::Elected, Fault::Kill, 40),
        Ambush::new(Point::Activated, Fault::PowerCut, 60),
        Ambush::new(Point::Activated, Fault::Pause, 60),
        Ambush::new(Point::Activated, Fault::Break, 60),
        Ambush::new(Point::Truncating, Fault::Break, 150),
        Ambush::new(Point::Truncating, Fault::PowerCut, 100),
        Ambush::new(Point::Appended, Fault::PowerCut, 3),
        Ambush::new(Point::Acknowledged, Fault::PowerCut, 5),
        Ambush::new(Point::Joined, Fault::Break, 60),
        Ambush::new(Point::GaveUp, Fault::PowerCut, 300).at(Whom::Here),
        Ambush::new(Point::Suspended, Fault::PowerCut, 200).at(Whom::Here),
        Ambush::new(Point::Surrendered, Fault::PowerCut, 100).at(Whom::Here),
        Ambush::new(Point::ToldDrop, Fault::PowerCut, 100).at(Whom::Here),
        Ambush::new(Point::Rebuilt, Fault::PowerCut, 100).at(Whom::Here),
        Ambush::new(Point::Registers, Fault::LateRegistration, 30),
        Ambush::new(Point::Admitted, Fault::LoseRequest, 20),
        Ambush::new(Point::Admitted, Fault::RepeatRequest, 20),
    ],
    sync_ms: 4,
    latency_ms: 3,
    half_open: 150,
    away_ms: 600,
    slow_controller: 200,
    lurkers: 2,
    ruin: false,
    writers: 4,
    readers: 3,
    rough_ms: 8000,
};

/// Two tablets, one partition: every crash leaves one copy.
pub const PAIR: Profile =
    Profile { name: "pair", tablets: 2, partitions: 2, writers: 4, readers: 2, ..MIXED };

/// `sync=interval`: what is acknowledged is not synced, and a machine that lost its power is not trusted.
pub const INTERVAL: Profile =
    Profile { name: "interval", interval: true, sync_ms: 200, partitions: 2, ..MIXED };

/// Crashes between a write and its sync, slow disks.
pub const CRASHES: Profile = Profile {
    name: "crashes",
    every: 400,
    faults: &[
        (Fault::Kill, 10),
        (Fault::PowerCut, 20),
        (Fault::SlowDisk, 10),
        (Fault::FullDisk, 5),
        (Fault::WrongSuspicion, 5),
    ],
    ambushes: &[
        Ambush::new(Point::Suspended, Fault::PowerCut, 200).at(Whom::Here),
        Ambush::new(Point::Appended, Fault::PowerCut, 10),
        Ambush::new(Point::Appended, Fault::Kill, 5),
        Ambush::new(Point::Acknowledged, Fault::PowerCut, 15),
        Ambush::new(Point::Elected, Fault::PowerCut, 100),
        Ambush::new(Point::Activated, Fault::PowerCut, 150),
        Ambush::new(Point::Activated, Fault::SlowDisk, 100),
        Ambush::new(Point::Truncating, Fault::PowerCut, 200),
        Ambush::new(Point::Joined, Fault::PowerCut, 50),
    ],
    sync_ms: 20,
    ..MIXED
};

/// Proposals left open, replies lost, members that come and go.
pub const PROPOSALS: Profile = Profile {
    name: "proposals",
    every: 250,
    faults: &[
        (Fault::Break, 10),
        (Fault::Cut, 10),
        (Fault::CutOneWay, 10),
        (Fault::Pause, 10),
        (Fault::Kill, 5),
        (Fault::WrongSuspicion, 5),
        (Fault::NameserverFailover, 5),
        (Fault::CutOff, 5),
    ],
    ambushes: &[
        Ambush::new(Point::Proposed, Fault::HoldProposal, 400),
        Ambush::new(Point::Proposed, Fault::LoseReply, 400),
        Ambush::new(Point::Proposed, Fault::Repeat, 300),
        Ambush::new(Point::Applied, Fault::PowerCut, 250),
        Ambush::new(Point::Applied, Fault::WrongSuspicion, 200),
        Ambush::new(Point::Joined, Fault::PowerCut, 50),
    ],
    ..MIXED
};

/// Switches of leadership: suspicion, planned switches, late news, reads at whoever thinks that it leads.
pub const SWITCHES: Profile = Profile {
    name: "switches",
    every: 200,
    faults: &[
        (Fault::WrongSuspicion, 20),
        (Fault::Deaf, 12),
        (Fault::PlannedSwitch, 12),
        (Fault::CutOff, 8),
        (Fault::Isolate, 8),
        (Fault::CutOneWay, 6),
        (Fault::Pause, 8),
        (Fault::Break, 6),
        (Fault::OldView, 6),
        (Fault::NameserverFailover, 3),
    ],
    ambushes: &[
        Ambush::new(Point::Elected, Fault::WrongSuspicion, 150),
        Ambush::new(Point::Activated, Fault::Pause, 100),
        Ambush::new(Point::Activated, Fault::Break, 150),
        Ambush::new(Point::Activated, Fault::CutOneWay, 100),
        Ambush::new(Point::Truncating, Fault::Break, 200),
    ],
    latency_ms: 20,
    readers: 5,
    ..MIXED
};

/// Connections that break and are made again all the time.
pub const RECONNECTS: Profile = Profile {
    name: "reconnects",
    every: 120,
    faults: &[
        (Fault::Break, 30),
        (Fault::CutOneWay, 8),
        (Fault::Cut, 4),
        (Fault::WrongSuspicion, 8),
        (Fault::Kill, 3),
        (Fault::PowerCut, 3),
        (Fault::PlannedSwitch, 3),
    ],
    ambushes: &[
        Ambush::new(Point::Truncating, Fault::Break, 400),
        Ambush::new(Point::Joined, Fault::Break, 150),
        Ambush::new(Point::Activated, Fault::Break, 150),
        Ambush::new(Point::Elected, Fault::WrongSuspicion, 100),
    ],
    latency_ms: 15,
    ..MIXED
};

/// `min_insync=2`: a write needs a second copy.
pub const TWO_COPIES: Profile =
    Profile { name: "two copies", min_insync: 2, partitions: 2, ..MIXED };

/// Leaders that nobody answers: what was said to them arrives in a later epoch.
pub const LATE_ACKS: Profile = Profile {
    name: "late acks",
    pace: Pace { keep_alive: 45, tick: 50, ..Pace::BRISK },
    partitions: 2,
    every: 700,
    rough_ms: 3000,
    faults: &[(Fault::Deaf, 20), (Fault::WrongSuspicion, 2)],
    ambushes: &[Ambush::new(Point::Elected, Fault::WrongSuspicion, 600).at(Whom::Here).after(40)],
    ..MIXED
};

/// Connections over which answers come late: a follower joins twice, and is told twice what to cut.
pub const LATE_ORDERS: Profile = Profile {
    name: "late orders",
    pace: Pace::BRISK,
    partitions: 2,
    every: 300,
    faults: &[(Fault::Break, 20), (Fault::CutOneWay, 5), (Fault::WrongSuspicion, 3)],
    ambushes: &[
        Ambush::new(Point::Joined, Fault::CutOneWay, 500).at(Whom::Here),
        Ambush::new(Point::Truncating, Fault::CutOneWay, 200),
    ],
    ..MIXED
};

/// Leaders that are taken for dead and hear nothing, while their readers reach them (H1).
pub const STALE_READS: Profile = Profile {
    name: "stale reads",
    pace: Pace::BRISK,
    partitions: 2,
    every: 500,
    faults: &[(Fault::Deaf, 20), (Fault::WrongSuspicion, 5), (Fault::PlannedSwitch, 5)],
    ambushes: &[Ambush::new(Point::Elected, Fault::Deaf, 200).at(Whom::Other)],
    readers: 6,
    ..MIXED
};

/// Planned switches that are put off, and leaders that do not hear that they are over.
pub const DRAINS: Profile = Profile {
    name: "drains",
    partitions: 2,
    every: 1200,
    faults: &[(Fault::PlannedSwitch, 20), (Fault::WrongSuspicion, 3), (Fault::Pause, 3)],
    ambushes: &[
        Ambush::new(Point::Surrendered, Fault::Deaf, 500).at(Whom::Here).after(700),
        Ambush::new(Point::Surrendered, Fault::WrongSuspicion, 500).at(Whom::Here).after(750),
    ],
    slow_controller: 800,
    readers: 6,
    ..MIXED
};

/// Members that come back as another run while they are being added, with a tail that they have lost.
pub const RETURNS: Profile = Profile {
    name: "returns",
    every: 500,
    faults: &[(Fault::Break, 10), (Fault::Pause, 5), (Fault::CutOneWay, 5), (Fault::PowerCut, 5)],
    ambushes: &[
        Ambush::new(Point::Proposed, Fault::PowerCut, 500).at(Whom::Other),
        Ambush::new(Point::Proposed, Fault::HoldProposal, 200),
    ],
    half_open: 900,
    away_ms: 60,
    sync_ms: 400,
    ..INTERVAL
};

/// Slow disks, and leaders that are lost as soon as a member has gone: who comes next knows little.
pub const SHRINKS: Profile = Profile {
    name: "shrinks",
    every: 400,
    faults: &[(Fault::Break, 15), (Fault::CutOneWay, 10), (Fault::WrongSuspicion, 5)],
    ambushes: &[
        Ambush::new(Point::Applied, Fault::Kill, 400).at(Whom::Here).after(5),
        Ambush::new(Point::Applied, Fault::WrongSuspicion, 300).at(Whom::Here),
    ],
    sync_ms: 60,
    latency_ms: 8,
    ..MIXED
};

/// Disks that are ruined, of all members of a set, too: somebody decides which copy is to lead (R16).
pub const RUINS: Profile = Profile {
    name: "ruins",
    every: 300,
    faults: &[
        (Fault::Wipe, 10),
        (Fault::RollBack, 10),
        (Fault::Damage, 10),
        (Fault::Kill, 5),
        (Fault::PowerCut, 5),
        (Fault::CutOneWay, 5),
        (Fault::Pause, 5),
        (Fault::CutOff, 5),
    ],
    ruin: true,
    ..MIXED
};

/// All of them; a seed takes the one at its place.
pub const ALL: [Profile; 15] = [
    MIXED,
    CRASHES,
    PROPOSALS,
    SWITCHES,
    INTERVAL,
    RECONNECTS,
    PAIR,
    TWO_COPIES,
    LATE_ACKS,
    LATE_ORDERS,
    STALE_READS,
    DRAINS,
    RETURNS,
    SHRINKS,
    RUINS,
];

/// The profile of a seed.
pub fn of_seed(seed: u64) -> Profile {
    let at = usize::try_from(seed % ALL.len() as u64).unwrap_or(0);
    ALL[at]
}
