//! The meta group: one linearizable register, the state, whose proposals may take long, be lost, arrive twice or be
//! answered never; and the nameserver that leads it, with what it observes and plans.
//!
//! The leading nameserver does what `stela-meta`'s control does: it answers a heartbeat after a linearizable read that
//! it began after receiving it (R17), pushes what changed, judges by silence, by refused ports and by registrations
//! (R17, R18), and proposes what the planner says.

use std::collections::{BTreeMap, BTreeSet};

use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Incarnation, NodeId, OpId, PartitionKey, TableId, TabletId};
use stela_common::table;
use stela_common::wire::View;
use stela_meta::control::judge::{Judge, Timing};
use stela_meta_state::command::{Batch, ChangeInSync, Command, Register, Reply};
use stela_meta_state::object::Changed;
use stela_meta_state::plan::{self, Drain, Observed, Report};
use stela_meta_state::rules::Rules;
use stela_meta_state::state::State;

use super::clock::{Clock, MS, Moment};
use super::scene::{Event, Scene};
use super::wire::Pipe;

/// How a state is changed and planned for, whichever mistakes are planted in it.
#[derive(Clone, Copy)]
pub struct Law {
    pub(super) apply: fn(&mut State, u64, &Batch, &mut Changed) -> Vec<Reply>,
    pub(super) plan: fn(&State, &Observed) -> Vec<Command>,
    /// The invariants of the state are checked, too: not where breaking them is the mistake.
    pub(super) checked: bool,
}

impl Law {
    /// Under these rules.
    pub fn of<R: Rules>(checked: bool) -> Self {
        Self {
            apply: |state, index, batch, changed| state.apply_with::<R>(index, batch, changed),
            plan: plan::plan_with::<R>,
            checked,
        }
    }
}

/// A heartbeat.
#[derive(Clone, Debug)]
pub struct Beat {
    /// The tablet's clock when it was sent, if it asks for a lease.
    pub sent: Option<Millis>,
    /// The tablet has applied what it was told up to here.
    pub known_index: u64,
    /// Its replicas.
    pub reports: Vec<(PartitionKey, Report)>,
    /// Tables of which nothing is left (R37).
    pub dropped: Vec<TableId>,
}

/// What a nameserver says to a tablet.
#[derive(Clone, Debug)]
pub struct Told {
    /// Of the nameserver.
    pub controller: u64,
    /// All that changed for the tablet up to this index was told.
    pub index: u64,
    /// Partitions that changed, with the options of their tables.
    pub views: Vec<(table::Options, View)>,
    /// Tables that were dropped.
    pub drops: Vec<TableId>,
    /// Tablets that changed.
    pub addresses: Vec<(usize, Incarnation)>,
    /// When the heartbeat was sent that this lease is for, and its length.
    pub lease: Option<(Millis, u64)>,
    /// R12: partition, epoch, milliseconds to the deadline.
    pub drains: Vec<(PartitionKey, Epoch, u64)>,
}

/// What happens at the nameservers.
#[derive(Clone, Debug)]
pub enum MetaEvent {
    /// A heartbeat arrives on that stream.
    Heard(u64),
    /// A linearizable read has ended that was begun for that heartbeat.
    Read(u64, Millis),
    /// A registration arrives: of which tablet and which life of its process.
    Register((usize, u64), Register),
    /// A proposal of an in-sync set arrives: from whom, what, microseconds until it is applied beyond the usual, and
    /// whether its answer gets back.
    Propose((usize, u64), ChangeInSync, u64, bool),
    /// A proposal is applied.
    Commit(u64),
    /// The next pass of the planner.
    Pass,
    /// Somebody looks after what no planner may decide (R16).
    Operate,
    /// The pass's proposal should have an outcome by now.
    GiveUp(u64),
    /// That stream has ended; whether the tablet's port refuses then.
    Ended(u64, bool),
    /// A handshake with a tablet that a run is missed of, begun then: is it gone?
    Probed(TabletId, Incarnation, Millis, bool),
    /// Another nameserver leads and takes over.
    TakeOver,
}

/// A heartbeat stream.
#[derive(Debug)]
pub struct Session {
    /// The tablet and the life of its process.
    pub tablet: (usize, u64),
    /// The run.
    pub incarnation: Incarnation,
    /// To the nameserver.
    pub up: Pipe<Beat>,
    /// To the tablet.
    pub down: Pipe<Told>,
    /// Pushed up to this index; nothing was heard yet: none.
    pub told: Option<u64>,
    /// The nameserver holds it open.
    pub open: bool,
}

pub(super) enum Origin {
    Pass,
    Register((usize, u64)),
    Change((usize, u64), ChangeInSync, bool),
    TakeOver,
    Operator,
}

pub(super) struct Pending {
    pub(super) commands: Vec<Command>,
    pub(super) origin: Origin,
}

/// See the module.
pub struct Nameserver {
    /// The register.
    pub state: State,
    pub(super) law: Law,
    pub(super) pending: BTreeMap<u64, Pending>,
    /// A nameserver leads.
    pub up: bool,
    pub(super) controller: u64,
    /// Heartbeat streams.
    pub sessions: BTreeMap<u64, Session>,
    /// Signs of life, as the nameserver itself keeps them.
    pub(super) judge: Judge,
    pub(super) clock: Clock,
    /// Until then the nameserver that leads stands still; the group does not.
    pub stands_until: Moment,
    pub(super) reports: BTreeMap<(PartitionKey, TabletId), Report>,
    pub(super) passing: Option<u64>,
    pub(super) accused: BTreeSet<usize>,
    /// R12: planned switches that are wanted, since when, and whom to drain for them.
    pub(super) wanted: BTreeMap<OpId, Moment>,
    pub(super) drains: Vec<Drain>,
    /// Elections after a surrender that are put off.
    pub(super) handing: BTreeMap<PartitionKey, Moment>,
    pub(super) dropped: BTreeSet<(TabletId, TableId)>,
    /// Tables whose options changed, and at which index.
    pub(super) changed_tables: BTreeMap<TableId, u64>,
    /// Tables that were made.
    pub(super) made: u32,
    /// The last thing that each tablet was told about partitions, and which life of its process.
    pub last_told: BTreeMap<usize, (u64, Told)>,
    /// Tablets that have lost something of their disks and not registered since.
    pub spoiled: BTreeSet<usize>,
}

/// Between two passes of the planner, milliseconds.
pub(super) const PASS: u64 = 50;
/// A drain's deadline, milliseconds.
pub(super) const DRAIN: u64 = 1000;
/// A planned switch is given up after this, milliseconds.
pub(super) const SWITCH: u64 = 10_000;
/// Between two looks of the operator, milliseconds.
pub(super) const OPERATE: u64 = 700;

impl Nameserver {
    /// A group with nothing in it.
    pub fn new(law: Law, scene: &mut Scene) -> Self {
        let clock = Clock::draw(&mut scene.random);
        Self {
            state: State::default(),
            law,
            pending: BTreeMap::new(),
            up: true,
            controller: 0,
            sessions: BTreeMap::new(),
            judge: Judge::new(timing(scene), clock.at(0)),
            clock,
            stands_until: 0,
            reports: BTreeMap::new(),
            passing: None,
            accused: BTreeSet::new(),
            wanted: BTreeMap::new(),
            drains: Vec::new(),
            handing: BTreeMap::new(),
            dropped: BTreeSet::new(),
            changed_tables: BTreeMap::new(),
            made: 0,
            last_told: BTreeMap::new(),
            spoiled: BTreeSet::new(),
        }
    }

    /// What its clock shows.
    pub(super) fn local(&self, scene: &Scene) -> Millis {
        self.clock.at(scene.now)
    }

    /// What happens.
    pub fn go_on(&mut self, event: MetaEvent, scene: &mut Scene) {
        match event {
            MetaEvent::Commit(number) => self.commit(number, scene),
            MetaEvent::TakeOver => {
                self.propose(
                    vec![Command::TakeOver { node: NodeId(1) }],
                    Origin::TakeOver,
                    0,
                    scene,
                );
            }
            MetaEvent::Pass => {
                scene.after(PASS * MS, Event::Meta(MetaEvent::Pass));
                if self.up {
                    self.pass(scene);
                }
            }
            MetaEvent::Operate => {
                scene.after(OPERATE * MS, Event::Meta(MetaEvent::Operate));
                if self.up {
                    self.operate(scene);
                }
            }
            MetaEvent::GiveUp(number) => {
                if self.passing == Some(number) {
                    self.passing = None;
                    self.accused.clear();
                }
            }
            _ if !self.up => {}
            MetaEvent::Heard(session) => self.heard(session, scene),
            MetaEvent::Read(session, sent) => self.read(session, sent, scene),
            MetaEvent::Register(of, register) => {
                self.propose(vec![Command::Register(register)], Origin::Register(of), 0, scene);
            }
            MetaEvent::Propose(of, change, held, answered) => {
                let origin = Origin::Change(of, change.clone(), answered);
                self.propose(vec![Command::ChangeInSync(change)], origin, held, scene);
            }
            MetaEvent::Ended(session, refuses) => self.ended(session, refuses, scene),
            MetaEvent::Probed(tablet, run, begun, gone) => {
                if gone {
                    self.judge.refused(tablet, run, begun);
                }
            }
        }
    }
}

/// What the judge is told about time.
pub(super) fn timing(scene: &Scene) -> Timing {
    Timing { lease: scene.pace.lease, heartbeat: scene.pace.heartbeat }
}
