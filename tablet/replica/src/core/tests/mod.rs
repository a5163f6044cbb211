//! Little scenarios, each driven by [`Replica::step`](super::Replica::step) alone: what goes in, and all that comes out.

mod barrier;
mod commit;
mod drain;
mod following;
mod joining;
mod members;
mod options;
mod permits;
mod planted;
mod rebuild;
mod roles;

use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Incarnation, Offset, PartitionKey, TabletId, Version};
use stela_common::table::{Ack, Options, Sync};
use stela_common::wire::{Member, View};

use super::{Admitted, Env, Replica};
use crate::epochs::Epochs;
use crate::lease::{Grants, Permits};
use crate::message::{
    Conn, Identity, Input, Output, Refusal, Stored, Timing, ToFollower, ToLeader, Write,
};
use crate::variant::{Sound, Variant};

/// The tablet under test.
const ME: u32 = 1;
/// When its process started.
const START: u64 = 1_000;
/// Long after that: nothing that was granted before is still held.
const LATER: u64 = 10_000;

/// The run of a tablet.
fn run(tablet: u32) -> Incarnation {
    Incarnation(u64::from(tablet) * 100)
}

/// A connection to or from a tablet.
fn conn(tablet: u32) -> Conn {
    Conn(u64::from(tablet))
}

fn member(tablet: u32) -> Member {
    Member { tablet: TabletId(tablet), incarnation: run(tablet), untrusted: false }
}

fn members(tablets: &[u32]) -> Vec<Member> {
    tablets.iter().map(|t| member(*t)).collect()
}

/// What the meta group has decided: three replicas.
fn view(version: u64, epoch: u64, leader: u32, in_sync: &[u32]) -> View {
    View {
        key: PartitionKey::new(1, 0),
        epoch: Epoch(epoch),
        version: Version(version),
        leader: TabletId(leader),
        leader_incarnation: run(leader),
        in_sync: members(in_sync),
        replicas: vec![TabletId(1), TabletId(2), TabletId(3)],
        last_unclean: Epoch(0),
        uncleans: 0,
        surrendered: None,
        held: Vec::new(),
    }
}

/// A log by the epochs of its entries.
fn log(epochs: &[u64]) -> (Epochs, Offset) {
    let mut history = Epochs::default();
    for (at, epoch) in epochs.iter().enumerate() {
        history.appended(Epoch(*epoch), Offset(at as u64 + 1));
    }
    (history, Offset(epochs.len() as u64))
}

fn stored(epoch: u64, epochs: &[u64]) -> Stored {
    let (epochs, last) = log(epochs);
    Stored { epoch: Epoch(epoch), epochs, last, ..Stored::default() }
}

/// One replica and what is around it.
struct Bench<V: Variant = Sound> {
    replica: Replica<V>,
    permits: Permits,
    grants: Grants,
    now: Millis,
}

impl Bench {
    fn new(stored: Stored) -> Self {
        Self::of(stored, |_| {})
    }
}

impl<V: Variant> Bench<V> {
    fn of(stored: Stored, change: impl FnOnce(&mut Identity)) -> Self {
        let mut me = Identity {
            key: PartitionKey::new(1, 0),
            tablet: TabletId(ME),
            incarnation: run(ME),
            options: Options::default(),
            timing: Timing::default(),
        };
        change(&mut me);
        Self {
            replica: Replica::new(me, stored, Millis(START)),
            permits: Permits::default(),
            grants: Grants::new(Millis(START)),
            now: Millis(LATER),
        }
    }

    /// A step, and what came out of it.
    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        let env = Env { permits: &self.permits, grants: &self.grants };
        self.replica.step(self.now, &env, input, &mut out);
        out
    }

    /// Time passes, with a tick every 50 ms; all that came out.
    fn pass(&mut self, ms: u64) -> Vec<Output> {
        let mut out = Vec::new();
        let until = self.now.plus(ms);
        while self.now < until {
            self.now = self.now.plus(50).min(until);
            out.extend(self.step(Input::Tick));
        }
        out
    }

    /// The same, while these followers permit reads.
    fn pass_heard(&mut self, ms: u64, followers: &[u32]) -> Vec<Output> {
        let mut out = Vec::new();
        let until = self.now.plus(ms);
        while self.now < until {
            followers.iter().for_each(|f| self.permit(*f));
            let left = until.since(self.now).min(50);
            out.extend(self.pass(left));
        }
        out
    }

    fn permit(&mut self, follower: u32) {
        self.permits.granted(conn(follower), self.now);
    }

    fn decide(&mut self, view: View) -> Vec<Output> {
        self.step(Input::View(view))
    }

    /// Everything written so far is on disk.
    fn sync(&mut self) -> Vec<Output> {
        self.step(Input::Synced(self.replica.base.log.written()))
    }

    fn synced(&mut self, write: u64) -> Vec<Output> {
        self.step(Input::Synced(Write(write)))
    }

    fn lease(&mut self, ms: u64) -> Vec<Output> {
        self.step(Input::MetaLease(self.now.plus(ms)))
    }

    fn connect(&mut self, peer: u32) -> Vec<Output> {
        self.connect_on(peer, conn(peer))
    }

    fn connect_on(&mut self, peer: u32, conn: Conn) -> Vec<Output> {
        self.step(Input::Connected { conn, peer: TabletId(peer), incarnation: run(peer) })
    }

    fn disconnect(&mut self, peer: u32) -> Vec<Output> {
        self.step(Input::Disconnected(conn(peer)))
    }

    /// A follower says what its log is.
    fn hello(&mut self, follower: u32, epoch: u64, nonce: u64, epochs: &[u64]) -> Vec<Output> {
        let (history, last) = log(epochs);
        self.answer(
            follower,
            ToLeader::Hello { epoch: Epoch(epoch), nonce, history, last, rebuild: false },
        )
    }

    fn ack(&mut self, follower: u32, epoch: u64, nonce: u64, offset: u64) -> Vec<Output> {
        self.answer(follower, ToLeader::Ack { epoch: Epoch(epoch), nonce, offset: Offset(offset) })
    }

    fn left(&mut self, follower: u32, epoch: u64) -> Vec<Output> {
        self.answer(follower, ToLeader::Left { epoch: Epoch(epoch) })
    }

    fn answer(&mut self, follower: u32, message: ToLeader) -> Vec<Output> {
        self.step(Input::FromFollower { conn: conn(follower), message })
    }

    /// A leader speaks.
    fn say(&mut self, leader: u32, message: ToFollower) -> Vec<Output> {
        self.say_on(leader, conn(leader), message)
    }

    fn say_on(&mut self, leader: u32, conn: Conn, message: ToFollower) -> Vec<Output> {
        self.step(Input::FromLeader {
            conn,
            peer: TabletId(leader),
            incarnation: run(leader),
            message,
        })
    }

    fn lead(&mut self, leader: u32, epoch: u64) -> Vec<Output> {
        self.say(leader, ToFollower::Lead { epoch: Epoch(epoch) })
    }

    fn point(&mut self, leader: u32, epoch: u64, nonce: u64, offset: u64) -> Vec<Output> {
        let message = ToFollower::CommonPoint {
            epoch: Epoch(epoch),
            nonce,
            offset: Offset(offset),
            unclean: false,
        };
        self.say(leader, message)
    }

    /// Records behind the entry `prev`, by their epochs.
    fn records(
        &mut self,
        leader: u32,
        epoch: u64,
        prev: (u64, u64),
        epochs: &[u64],
        commit: u64,
    ) -> Vec<Output> {
        let entries = (prev.0 + 1..).zip(epochs).map(|(o, e)| (Offset(o), Epoch(*e))).collect();
        let prev = (Offset(prev.0), Epoch(prev.1));
        let message =
            ToFollower::Records { epoch: Epoch(epoch), prev, entries, commit: Offset(commit) };
        self.say(leader, message)
    }

    fn admit(&mut self) -> Result<Admitted, Refusal> {
        self.replica.admit(Ack::All, self.now)
    }

    fn may_read(&self) -> Result<(), Refusal> {
        self.may_read_since(self.now)
    }

    fn may_read_since(&self, since: Millis) -> Result<(), Refusal> {
        let env = Env { permits: &self.permits, grants: &self.grants };
        self.replica.may_read(since, self.now, &env)
    }

    /// A follower that has joined: what its nonce is.
    fn follow(&mut self, leader: u32, epoch: u64, common: u64) -> u64 {
        self.lead(leader, epoch);
        let nonce = nonce_of(&self.sync()).or_else(|| nonce_of(&self.lead(leader, epoch))).unwrap();
        self.point(leader, epoch, nonce, common);
        self.sync();
        nonce
    }

    /// A leader in that epoch, with its log on disk and these followers joined, by nonce 1, with all of it.
    fn leading(&mut self, version: u64, epoch: u64, in_sync: &[u32]) -> Vec<Output> {
        let mut out = self.decide(view(version, epoch, ME, in_sync));
        out.extend(self.sync());
        let last = self.replica.last();
        let history = self.replica.base.log.epochs().clone();
        for follower in in_sync.iter().copied().filter(|t| *t != ME) {
            out.extend(self.connect(follower));
            let hello = ToLeader::Hello {
                epoch: Epoch(epoch),
                nonce: 1,
                history: history.clone(),
                last,
                rebuild: false,
            };
            out.extend(self.answer(follower, hello));
            out.extend(self.ack(follower, epoch, 1, last.0));
            self.permit(follower);
        }
        out
    }

    /// Admits a write and syncs it.
    fn write(&mut self) -> Vec<Output> {
        let admitted = self.admit().unwrap();
        self.step(Input::Synced(admitted.write))
    }
}

/// The nonce of a Hello among the outputs.
fn nonce_of(out: &[Output]) -> Option<u64> {
    out.iter().find_map(|o| match o {
        Output::SendLeader(_, ToLeader::Hello { nonce, .. }) => Some(*nonce),
        _ => None,
    })
}

/// What is proposed among the outputs: the tablets of each set.
fn proposed(out: &[Output]) -> Vec<Vec<u32>> {
    out.iter()
        .filter_map(|o| match o {
            Output::Propose { in_sync, .. } => Some(in_sync.iter().map(|m| m.tablet.0).collect()),
            _ => None,
        })
        .collect()
}

/// The offset up to which writes are acknowledged by the outputs.
fn acknowledged(out: &[Output]) -> Option<u64> {
    out.iter().rev().find_map(|o| match o {
        Output::Acknowledged(offset) => Some(offset.0),
        _ => None,
    })
}

fn serves(out: &[Output]) -> bool {
    out.iter().any(|o| matches!(o, Output::Serving { .. }))
}

fn said_to_leader(leader: u32, message: ToLeader) -> Output {
    Output::SendLeader(conn(leader), message)
}

fn said_to_follower(follower: u32, message: ToFollower) -> Output {
    Output::SendFollower(conn(follower), message)
}

fn ack_of(leader: u32, epoch: u64, nonce: u64, offset: u64) -> Output {
    said_to_leader(leader, ToLeader::Ack { epoch: Epoch(epoch), nonce, offset: Offset(offset) })
}

fn commit_of(follower: u32, epoch: u64, commit: u64) -> Output {
    said_to_follower(follower, ToFollower::Commit { epoch: Epoch(epoch), commit: Offset(commit) })
}
