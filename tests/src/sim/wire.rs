//! What goes between two tablets: messages that gather while the transport is busy, and connections that carry them in
//! order and may break at any moment, with what is on its way.
//!
//! The gathering merges as the tablet's own (`stela-tablet`, module `replicate`): a later message of its kind replaces
//! an earlier one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Incarnation, Offset, PartitionKey};
use stela_replica::epochs::Epochs;
use stela_replica::message::{ToFollower, ToLeader};

use super::clock::Moment;
use super::disk::Entry;

/// One partition's records in a frame.
#[derive(Clone, Debug)]
pub struct Run {
    /// The leader's epoch.
    pub epoch: Epoch,
    /// The entry before (R5).
    pub prev: (Offset, Epoch),
    /// The entries.
    pub entries: Vec<(Offset, Entry)>,
    /// The leader's commit offset.
    pub commit: Offset,
}

/// What goes to a follower tablet next.
#[derive(Clone, Default, Debug)]
pub struct FollowerBox {
    /// Announcements.
    pub leads: BTreeMap<PartitionKey, Epoch>,
    /// Truncate orders.
    pub points: BTreeMap<PartitionKey, ToFollower>,
    /// Commit offsets.
    pub commits: BTreeMap<PartitionKey, (Epoch, Offset)>,
    /// Partitions with records to ship.
    pub dirty: BTreeSet<PartitionKey>,
    /// The records, filled in when the transport asks.
    pub runs: Vec<(PartitionKey, Run)>,
    /// Asks for a permit (R11).
    pub asked_at: Option<Millis>,
}

impl FollowerBox {
    /// Is there nothing to send?
    pub fn is_empty(&self) -> bool {
        self.leads.is_empty()
            && self.points.is_empty()
            && self.commits.is_empty()
            && self.dirty.is_empty()
            && self.runs.is_empty()
            && self.asked_at.is_none()
    }

    /// There are records to ship.
    pub fn dirty(&mut self, key: PartitionKey) {
        self.dirty.insert(key);
    }

    /// A core's message.
    pub fn message(&mut self, key: PartitionKey, message: ToFollower) {
        match message {
            ToFollower::Lead { epoch } => drop(self.leads.insert(key, epoch)),
            ToFollower::CommonPoint { .. } | ToFollower::NeedSnapshot { .. } => {
                drop(self.points.insert(key, message))
            }
            ToFollower::Commit { epoch, commit } => drop(self.commits.insert(key, (epoch, commit))),
            ToFollower::Records { .. } => panic!("records are shipped from the log"),
        }
    }
}

/// What goes back to a leader tablet next.
#[derive(Clone, Default, Debug)]
pub struct LeaderBox {
    /// The stream's first answer: which run it is that answers.
    pub open: Option<Incarnation>,
    /// "I have synced your epoch; this is my log": epoch, nonce, history, last, whether it asks to be rebuilt.
    pub hellos: BTreeMap<PartitionKey, (Epoch, u64, Epochs, Offset, bool)>,
    /// Epoch, nonce, offset.
    pub acks: BTreeMap<PartitionKey, (Epoch, u64, Offset)>,
    /// A higher epoch is known.
    pub lefts: BTreeMap<PartitionKey, Epoch>,
    /// R11.
    pub granted: Option<Millis>,
}

impl LeaderBox {
    /// Is there nothing to send?
    pub fn is_empty(&self) -> bool {
        self.open.is_none()
            && self.hellos.is_empty()
            && self.acks.is_empty()
            && self.lefts.is_empty()
            && self.granted.is_none()
    }

    /// A core's message.
    pub fn message(&mut self, key: PartitionKey, message: ToLeader) {
        match message {
            ToLeader::Hello { epoch, nonce, history, last, rebuild } => {
                // An acknowledgement of an earlier joining must not follow the new Hello.
                self.acks.remove(&key);
                self.hellos.insert(key, (epoch, nonce, history, last, rebuild));
            }
            ToLeader::Ack { epoch, nonce, offset } => {
                self.acks.insert(key, (epoch, nonce, offset));
            }
            ToLeader::Left { epoch } => drop(self.lefts.insert(key, epoch)),
        }
    }
}

/// One direction of a connection: what is sent arrives in order, or not at all.
#[derive(Debug)]
pub struct Pipe<T> {
    way: VecDeque<(Moment, T)>,
    last: Moment,
}

impl<T> Default for Pipe<T> {
    fn default() -> Self {
        Self { way: VecDeque::new(), last: 0 }
    }
}

impl<T> Pipe<T> {
    /// Puts it on its way; the moment of its arrival, which is not before that of what was sent earlier.
    pub fn send(&mut self, arrives: Moment, what: T) -> Moment {
        self.last = self.last.max(arrives);
        self.way.push_back((self.last, what));
        self.last
    }

    /// What has arrived by now, one at a time.
    pub fn arrived(&mut self, now: Moment) -> Option<T> {
        if self.way.front().is_some_and(|(at, _)| *at <= now) {
            self.way.pop_front().map(|(_, what)| what)
        } else {
            None
        }
    }

    /// When the next one arrives.
    pub fn next(&self) -> Option<Moment> {
        self.way.front().map(|(at, _)| *at)
    }

    /// How much is under way.
    pub fn len(&self) -> usize {
        self.way.len()
    }

    /// Lets what is under way arrive so much later.
    pub fn delay(&mut self, by: u64) {
        self.last += by;
        for (at, _) in &mut self.way {
            *at += by;
        }
    }

    /// Loses what is under way beyond the first so many.
    pub fn lose(&mut self, kept: usize) {
        self.way.truncate(kept);
    }
}

/// What a direction carries, and the end of the connection as it is noticed there.
#[derive(Debug)]
pub enum Parcel<T> {
    /// A message.
    Message(T),
    /// The connection is gone.
    End,
}

/// A connection that a leader tablet opened to a follower tablet, between one run of each.
#[derive(Debug)]
pub struct Link {
    /// The tablet that opened it and which life of its process.
    pub leader: (usize, u64),
    /// The tablet that accepted it.
    pub follower: (usize, u64),
    /// To the follower.
    pub down: Pipe<Parcel<FollowerBox>>,
    /// To the leader.
    pub up: Pipe<Parcel<LeaderBox>>,
    /// Nothing more gets through.
    pub broken: bool,
    /// Since when messages wait because the way is blocked: to the follower, to the leader.
    pub blocked: [Option<Moment>; 2],
}
