//! What goes in and out of a [`Replica`](crate::core::Replica).

use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Incarnation, Offset, PartitionKey, TabletId, Version};
use stela_common::table::Options;
use stela_common::wire::{Member, View};

use crate::epochs::Epochs;

/// One connection of one stream, named by the shell: a number that is never used twice in a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Conn(pub u64);

/// Numbers what this replica writes to its log, from 1: the shell reports the highest one that is synced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Write(pub u64);

/// How long things take. The relations between them matter more than the values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// A read permit, from the request's send time (R11), ms.
    pub read_lease: u64,
    /// What a grantor counts of it: `read_lease * 1.1`, ms.
    pub read_lease_grantor: u64,
    /// A follower that is behind for longer is removed, ms.
    pub replica_lag: u64,
    /// An open proposal without an answer is repeated unchanged after this, ms.
    pub propose_again: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { read_lease: 300, read_lease_grantor: 330, replica_lag: 1000, propose_again: 500 }
    }
}

/// What a replica is from its start to its end.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The partition.
    pub key: PartitionKey,
    /// This tablet.
    pub tablet: TabletId,
    /// This run of its process.
    pub incarnation: Incarnation,
    /// The table's options.
    pub options: Options,
    /// How long things take.
    pub timing: Timing,
}

/// What a replica's log holds when its core is made. When a process starts all of it is synced (recovery made sure, R24).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stored {
    /// The highest epoch that it acted in.
    pub epoch: Epoch,
    /// Epochs of its entries.
    pub epochs: Epochs,
    /// The last entry.
    pub last: Offset,
    /// A lower bound of the commit offset (from the entries' `commit_lag`).
    pub commit: Offset,
    /// Entries up to there are in the snapshot only; those behind are in the log too. 0: the log has all.
    pub floor: Offset,
    /// Entries up to there are in the snapshot and cannot be cut from it. Never below `floor`, never above `commit`.
    pub snapshot: Offset,
    /// The copy is not whole (R30): it must not lead and must not be counted, and is rebuilt from whoever leads.
    pub damaged: bool,
    /// A leader lacked what is committed here: it must not lead, must not be counted, and is not given up either.
    pub contradicted: bool,
    /// A core that is made anew while its process runs: the last write of its predecessor that the log took. Numbers go
    /// on behind it, and until it is reported as synced nothing of the above counts as synced. 0 when a process starts.
    pub written: Write,
}

/// What happens to a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// The meta group's decision, as the heartbeat stream told it.
    View(View),
    /// The table has other options now.
    Options(Options),
    /// The meta lease holds until then (R17).
    MetaLease(Millis),
    /// A stream to a follower is open in both directions (this tablet opened it, to lead on it).
    Connected {
        /// The connection.
        conn: Conn,
        /// Who is there.
        peer: TabletId,
        /// Which run.
        incarnation: Incarnation,
    },
    /// A connection (of either direction) is gone.
    Disconnected(Conn),
    /// A message of a leader, on a stream that it opened.
    FromLeader {
        /// The connection.
        conn: Conn,
        /// Who.
        peer: TabletId,
        /// Which run.
        incarnation: Incarnation,
        /// What.
        message: ToFollower,
    },
    /// A message of a follower.
    FromFollower {
        /// The connection.
        conn: Conn,
        /// What.
        message: ToLeader,
    },
    /// All writes up to this one are on disk.
    Synced(Write),
    /// A snapshot of this copy is on disk that reaches up to there.
    Snapshot(Offset),
    /// From now on entries up to there are in the snapshot only; it has reached them before.
    Floor(Offset),
    /// The answer to the open proposal; no answer is no input.
    Verdict {
        /// The version that was expected by the proposal that is answered.
        expected: Version,
        /// The set that it proposed: an answer to an earlier proposal at the same version is told apart by it.
        in_sync: Vec<Member>,
        /// `true`: applied (its view follows). `false`: it never took and never will take effect.
        applied: bool,
    },
    /// R12: stop admitting, let the tail commit, then surrender.
    Drain {
        /// In which epoch.
        epoch: Epoch,
        /// By when.
        deadline: Millis,
    },
    /// Time passes; at least every 50 ms while anything is awaited.
    Tick,
}

/// From the leader of a partition to a follower.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToFollower {
    /// "I lead in this epoch."
    Lead {
        /// The epoch.
        epoch: Epoch,
    },
    /// "Our logs are equal up to there; cut what lies beyond."
    CommonPoint {
        /// The epoch.
        epoch: Epoch,
        /// Echo of the Hello that it answers.
        nonce: u64,
        /// The common point.
        offset: Offset,
        /// The epoch is recorded unclean: cutting below the known commit offset is in order.
        unclean: bool,
    },
    /// "My log does not reach back to where ours part, or your copy is not whole: you need a snapshot." Said only to who
    /// is in no in-sync set that may have been decided: it gives up what it has.
    NeedSnapshot {
        /// The epoch.
        epoch: Epoch,
        /// Echo of the Hello that it answers.
        nonce: u64,
        /// Up to where the logs are equal.
        common: Offset,
        /// What the snapshot has to reach at least.
        offset: Offset,
        /// As in `CommonPoint`.
        unclean: bool,
    },
    /// Records arrived; the shell keeps their bytes.
    Records {
        /// The epoch of the leader.
        epoch: Epoch,
        /// Offset and epoch of the entry before the first record (R5).
        prev: (Offset, Epoch),
        /// Offset and epoch of each record, in order.
        entries: Vec<(Offset, Epoch)>,
        /// The leader's commit offset.
        commit: Offset,
    },
    /// The commit offset moved.
    Commit {
        /// The epoch.
        epoch: Epoch,
        /// The commit offset.
        commit: Offset,
    },
}

/// From a follower to the leader of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToLeader {
    /// "I have synced your epoch; this is my log."
    Hello {
        /// The epoch.
        epoch: Epoch,
        /// Names this joining (R4).
        nonce: u64,
        /// Epochs of the entries.
        history: Epochs,
        /// The last entry.
        last: Offset,
        /// The log cannot be continued, as the copy is not whole or its snapshot would have to be cut: it asks for a
        /// snapshot.
        rebuild: bool,
    },
    /// "My log equals yours up to there" (R3), stored as the table's `sync` asks.
    Ack {
        /// The epoch.
        epoch: Epoch,
        /// Of the joining.
        nonce: u64,
        /// Up to.
        offset: Offset,
    },
    /// "I no longer follow you in this partition: I know that epoch."
    Left {
        /// The higher epoch.
        epoch: Epoch,
    },
}

/// What a replica wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Write an `EpochStart` record (R2, R10): epoch, its first offset, and the epochs of the entries.
    StoreEpoch {
        /// Its number.
        write: Write,
        /// The epoch.
        epoch: Epoch,
        /// The first offset that it may give: log end + 1.
        first: Offset,
        /// This replica leads in it.
        leads: bool,
    },
    /// Save the entries beyond `to` to `lost+found` (synced), then write a `Truncate` record (R4).
    Truncate {
        /// Its number.
        write: Write,
        /// The last entry that stays.
        to: Offset,
    },
    /// Append these records of the frame just received: indexes `from..to` of its entries.
    Append {
        /// Its number.
        write: Write,
        /// The first.
        from: usize,
        /// Behind the last.
        to: usize,
    },
    /// Send to a follower.
    SendFollower(Conn, ToFollower),
    /// Send to the leader.
    SendLeader(Conn, ToLeader),
    /// Ship entries from there on over that connection, until `StopShip` or the connection ends.
    Ship {
        /// Where to.
        conn: Conn,
        /// The first entry.
        from: Offset,
        /// Offset and epoch of the entry before.
        prev: (Offset, Epoch),
    },
    /// Ship no more over that connection.
    StopShip(Conn),
    /// Get a snapshot from the leader, and install it if [`awaits_snapshot`](crate::core::Replica::awaits_snapshot)
    /// still holds when it is there; then make the core anew. Comes again until that is done.
    FetchSnapshot {
        /// The leader.
        peer: TabletId,
        /// Which run.
        incarnation: Incarnation,
        /// Up to where its log and this one are equal: entries beyond are to be saved before they go (R4).
        common: Offset,
        /// What the snapshot has to reach at least.
        offset: Offset,
    },
    /// Propose this set to the meta group (R7).
    Propose {
        /// The epoch.
        epoch: Epoch,
        /// The version that it builds on.
        expected: Version,
        /// The new set.
        in_sync: Vec<Member>,
    },
    /// Entries up to there are committed: put them into the index. Never goes back.
    Committed(Offset),
    /// Writes up to there are acknowledged to their callers (leader only; follows `Committed`).
    Acknowledged(Offset),
    /// The leader serves in this epoch from now on; `start` is its log end at activation (R10).
    Serving {
        /// The epoch.
        epoch: Epoch,
        /// Its log end at activation.
        start: Offset,
    },
    /// It no longer leads: waiting writes have an unknown outcome, parked reads go to the new leader.
    SteppedDown,
    /// Waiting writes are answered as unknown (R9: no lease, and the commit offset stands still).
    FailWaiting,
    /// The drain is complete (R12): it neither reads nor acknowledges in this epoch any more.
    Surrendered(Epoch),
    /// It cannot prove its copy: neither reads nor leads until it has been rebuilt.
    Quarantined(String),
}

/// Why a write is not admitted, or a read not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It does not lead.
    NotLeader,
    /// It leads and does not serve yet, or drains.
    NotServing,
    /// R9: neither commits nor renews its lease.
    LeaseExpired,
    /// R36.
    NotEnoughInSync,
    /// R30.
    Quarantined,
}
