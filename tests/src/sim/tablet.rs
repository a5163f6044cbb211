//! A tablet of the simulation: a machine with a disk and a clock that outlive its process, and what the process holds.
//!
//! What the process holds is what `stela-tablet` holds under its lock, without tokio and sockets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Incarnation, Offset, PartitionKey, TableId, TabletId, Version};
use stela_common::table::{Ack, Options};
use stela_common::wire::{Member, View};
use stela_meta_state::state::Partition;
use stela_replica::lease::{Grants, Permits};
use stela_replica::message::{Conn, Identity, Stored, Write};

use super::client::Request;
use super::clock::{Clock, Moment};
use super::core::{Core, MakeCore};
use super::disk::{Disk, Id, Log};
use super::scene::{Pace, Scene};
use super::wire::{FollowerBox, LeaderBox};

/// How far a partition was shipped over a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ship {
    /// The next entry.
    pub next: Offset,
    /// Offset and epoch of the one before (R5).
    pub prev: (Offset, Epoch),
}

/// A stream to a follower.
pub struct Outgoing {
    /// Who is there.
    pub peer: usize,
    /// Which run.
    pub incarnation: Incarnation,
    /// What goes there next.
    pub outbox: FollowerBox,
    /// The transport has been told that there is something.
    pub sending: bool,
    /// What is shipped.
    pub ships: BTreeMap<PartitionKey, Ship>,
}

/// A stream from a leader.
pub struct Incoming {
    /// Who is there.
    pub peer: usize,
    /// Which run.
    pub incarnation: Incarnation,
    /// What goes back next.
    pub outbox: LeaderBox,
    /// The transport has been told that there is something.
    pub sending: bool,
}

/// Who waits for a write.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    /// The request that is answered.
    pub request: Request,
    /// The write.
    pub id: Id,
    /// Who must have it (R34).
    pub level: Ack,
}

/// One replica in a process.
pub struct Copy {
    /// The decisions.
    pub core: Box<dyn Core>,
    /// The last entry that can be read here.
    pub applied: Offset,
    /// The last epoch in which its log was in line with the leader's, or the leader's own.
    pub in_line: Epoch,
    /// How many unclean epochs are behind it there (R35).
    pub uncleans: u64,
    /// The table's options.
    pub options: Options,
    /// Request ids (R32).
    pub ids: BTreeMap<Id, Offset>,
    /// Writes that wait for their acknowledgement.
    pub waiters: BTreeMap<Offset, Vec<Waiter>>,
    /// Why it is quarantined.
    pub quarantine: Option<String>,
    /// A write of it failed: it waits to be made anew.
    pub suspended: Option<Suspended>,
    /// Connections where Hello was said and not taken back by Left: there a grant covers this replica (R11).
    pub greeted: BTreeSet<Conn>,
}

/// A replica whose core is void.
pub struct Suspended {
    /// Until then, on the tablet's clock.
    pub until: Millis,
    /// What it is to be told then.
    pub view: Option<View>,
}

/// A proposal for the meta group (R7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// The partition.
    pub key: PartitionKey,
    /// The epoch that proposes.
    pub epoch: Epoch,
    /// The version that it builds on.
    pub expected: Version,
    /// The new set.
    pub in_sync: Vec<Member>,
}

/// A write of a replica and where it ends in the log.
#[derive(Clone, Copy, Debug)]
pub struct Unsynced {
    /// Behind its batch.
    pub end: usize,
    /// The partition.
    pub key: PartitionKey,
    /// Its number there.
    pub write: Write,
}

/// One run of a tablet's process.
pub struct Process {
    /// 0 until it is registered.
    pub tablet: TabletId,
    /// This run.
    pub incarnation: Incarnation,
    /// Replicas here.
    pub copies: BTreeMap<PartitionKey, Copy>,
    /// R11, as leader.
    pub permits: Permits,
    /// R11, as follower.
    pub grants: Grants,
    /// Streams to followers.
    pub outgoing: BTreeMap<Conn, Outgoing>,
    /// Streams from leaders.
    pub incoming: BTreeMap<Conn, Incoming>,
    /// Which run of the other tablets is registered.
    pub addresses: BTreeMap<usize, Incarnation>,
    /// Tablets that a stream is being opened to.
    pub dialing: BTreeSet<usize>,
    /// R17.
    pub lease_until: Millis,
    /// Told up to this Raft index.
    pub known_index: u64,
    /// Proposals to send.
    pub proposals: VecDeque<Proposal>,
    /// Writes whose sync has not ended.
    pub unsynced: VecDeque<Unsynced>,
    /// A sync is under way that covers everything up to there.
    pub syncing: Option<usize>,
    /// When it began.
    pub syncing_since: Moment,
    /// Writes that have arrived.
    pub inbox: Vec<Request>,
    /// Somebody is about to take them.
    pub draining: bool,
    /// Partitions where somebody waits for the leader's word alone (R34).
    pub early: BTreeSet<PartitionKey>,
    /// Reads that wait for a permit, with the moment at which they are given up.
    pub parked: Vec<(Request, Moment, Millis)>,
    /// Somebody is about to look at them.
    pub unparking: bool,
    /// The heartbeat stream.
    pub session: Option<u64>,
    /// When the nameserver was last heard on it.
    pub heard: Moment,
    /// When the next heartbeat is due.
    pub beats_until: Moment,
    /// R12: partitions that were surrendered, and in which epoch.
    pub surrendered: BTreeMap<PartitionKey, Epoch>,
    /// Dropped tables, and where the record of it ends in the log (R37).
    pub dropping: BTreeMap<TableId, usize>,
}

/// What a tablet's directory holds beside the log; each change is synced at once.
#[derive(Clone, Debug)]
pub struct Fences {
    /// Runs that may be registered (R14).
    pub starts: Vec<Incarnation>,
    /// Every stop since the last registration was clean (R14). Not just the last one: a run that started after a power
    /// cut and was stopped cleanly before it could register proves nothing of the tail that the cut took.
    pub clean: bool,
    /// The highest controller epoch seen (R20).
    pub controller: u64,
    /// The highest index of a decision that was carried out (R20).
    pub decision: u64,
    /// The partitions that are here, with the options of their tables.
    pub held: BTreeMap<PartitionKey, Options>,
    /// Names the directory.
    pub directory: u64,
}

/// A machine's disk as it was before.
pub struct Image {
    disk: Disk,
    fences: Fences,
}

/// A machine.
pub struct Machine {
    /// Its number.
    pub at: usize,
    /// Its disk.
    pub disk: Disk,
    /// Its clock.
    pub clock: Clock,
    /// What its directory holds beside the log.
    pub fences: Fences,
    /// How often a process was started.
    pub life: u64,
    /// The process, if one runs.
    pub process: Option<Process>,
    /// Until then the process does not run.
    pub paused_until: Moment,
    /// Until then the machine stands still, its disk, too.
    pub frozen_until: Moment,
    /// How often the machine was switched on.
    pub boot: u64,
    /// The last stop was clean.
    pub clean: bool,
    /// Something that was written is not on its disk any more, and no run has registered since.
    pub spoiled: bool,
    /// How often it has lost something that was written.
    pub losses: u64,
    /// As its disk was when earlier runs began.
    pub images: VecDeque<Image>,
    /// A sync takes so many milliseconds more.
    pub slow_ms: u64,
    /// A start is on its way.
    pub starting: bool,
    /// How replicas are made.
    pub make_core: MakeCore,
}

/// So many images of earlier runs are kept.
const IMAGES: usize = 3;

/// The tablet's name in the metadata.
pub fn id_of(at: usize) -> TabletId {
    TabletId(u32::try_from(at).unwrap_or(0) + 1)
}

/// The machine of a tablet.
pub fn place_of(id: TabletId) -> usize {
    usize::try_from(id.0).unwrap_or(0).wrapping_sub(1)
}

/// The tablet's address.
pub fn endpoint_of(at: usize) -> String {
    format!("tablet{at}")
}

impl Machine {
    /// A new machine, without a process.
    pub fn new(at: usize, scene: &mut Scene, make_core: MakeCore) -> Self {
        Self {
            at,
            disk: Disk::default(),
            clock: Clock::draw(&mut scene.random),
            fences: Fences::empty(scene),
            life: 0,
            process: None,
            paused_until: 0,
            frozen_until: 0,
            boot: 1,
            clean: true,
            spoiled: false,
            losses: 0,
            images: VecDeque::new(),
            slow_ms: 0,
            starting: false,
            make_core,
        }
    }

    /// What its clock shows.
    pub fn local(&self, scene: &Scene) -> Millis {
        self.clock.at(scene.now)
    }

    /// Starts a process: it recovers its log and is a follower of everything (R1).
    pub fn start(&mut self, scene: &mut Scene) {
        self.life += 1;
        (self.paused_until, self.frozen_until) = (0, 0);
        self.starting = false;
        let incarnation = Incarnation(scene.number() << 20 | scene.random.below(1 << 20));
        self.disk.recover();
        self.images.push_back(Image { disk: self.disk.image(), fences: self.fences.clone() });
        if self.images.len() > IMAGES {
            self.images.pop_front();
        }
        let now = self.local(scene);
        self.fences.clean &= std::mem::take(&mut self.clean);
        let mut process = Process {
            tablet: TabletId(0),
            incarnation,
            copies: BTreeMap::new(),
            permits: Permits::default(),
            grants: Grants::new(now),
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            addresses: BTreeMap::new(),
            dialing: BTreeSet::new(),
            lease_until: Millis::default(),
            known_index: 0,
            proposals: VecDeque::new(),
            unsynced: VecDeque::new(),
            syncing: None,
            syncing_since: 0,
            inbox: Vec::new(),
            draining: false,
            early: BTreeSet::new(),
            parked: Vec::new(),
            unparking: false,
            session: None,
            heard: 0,
            beats_until: 0,
            surrendered: BTreeMap::new(),
            dropping: BTreeMap::new(),
        };
        for (key, options) in &self.fences.held {
            let identity = identity(&process, scene, *key, *options);
            let copy = Copy::load(self.make_core, identity, *options, &self.disk, now);
            process.copies.insert(*key, copy);
        }
        self.process = Some(process);
        if self.fences.starts.last() != Some(&incarnation) {
            self.fences.starts.push(incarnation);
        }
    }

    /// What a replica here is told about itself.
    pub fn adopt(&mut self, scene: &Scene) {
        let now = self.local(scene);
        let Some(process) = &mut self.process else { return };
        process.tablet = id_of(self.at);
        self.fences.starts = vec![process.incarnation];
        self.fences.clean = true;
        let keys: Vec<PartitionKey> = process.copies.keys().copied().collect();
        for key in keys {
            let Some(options) = process.copies.get(&key).map(|c| c.options) else { continue };
            let identity = identity(process, scene, key, options);
            if let Some(copy) = process.copies.get_mut(&key) {
                copy.reset(self.make_core, identity, &self.disk, Write(0), now);
            }
        }
    }

    /// A partition here, as durable as it is promised to be.
    pub fn stable(&self, key: PartitionKey, partition: &Partition) -> &Log {
        if partition.may_lose_tail { self.disk.written(key) } else { self.disk.durable(key) }
    }

    /// Its disk is gone: it begins with an empty directory.
    pub fn wipe(&mut self, scene: &mut Scene) {
        (self.disk, self.fences) = (Disk::default(), Fences::empty(scene));
        self.images.clear();
    }

    /// Is there an image of its disk that does not know of the run `registered`?
    pub fn has_image_before(&self, registered: Incarnation) -> bool {
        self.images.iter().any(|i| !i.fences.starts.contains(&registered))
    }

    /// Its disk is put back to what it was when an earlier run began, one that does not know of the run `registered`.
    pub fn roll_back(&mut self, registered: Incarnation) {
        let old = self.images.iter().rposition(|i| !i.fences.starts.contains(&registered));
        if let Some(image) = old.and_then(|at| self.images.remove(at)) {
            (self.disk, self.fences) = (image.disk, image.fences);
            self.images.clear();
        }
    }

    /// Something that was written is gone.
    pub fn spoil(&mut self) {
        self.spoiled = true;
        self.losses += 1;
        self.boot += 1;
        self.clean = false;
    }
}

impl Fences {
    /// Of a new directory.
    fn empty(scene: &mut Scene) -> Self {
        Self {
            starts: Vec::new(),
            clean: true,
            controller: 0,
            decision: 0,
            held: BTreeMap::new(),
            directory: scene.number(),
        }
    }
}

/// What a replica is told about itself.
pub fn identity(process: &Process, scene: &Scene, key: PartitionKey, options: Options) -> Identity {
    let Pace { timing, .. } = scene.pace;
    Identity { key, tablet: process.tablet, incarnation: process.incarnation, options, timing }
}

impl Copy {
    /// A replica from what the log holds: what is known to be committed is readable at once.
    pub fn load(
        make: MakeCore,
        identity: Identity,
        options: Options,
        disk: &Disk,
        now: Millis,
    ) -> Self {
        let log = disk.written(identity.key);
        let damaged = disk.is_damaged(identity.key);
        let stored = Stored { damaged, ..log.stored() };
        let ids = log.from(Offset(1)).map(|(offset, entry)| (entry.id, offset)).collect();
        let applied = stored.commit;
        Self {
            core: make(identity, stored, now),
            applied,
            in_line: Epoch(0),
            uncleans: 0,
            options,
            ids,
            waiters: BTreeMap::new(),
            quarantine: damaged.then(|| "its entries in the log are damaged".to_owned()),
            suspended: None,
            greeted: BTreeSet::new(),
        }
    }

    /// Its log is in line with the leader's of that epoch.
    pub fn joined(&mut self, epoch: Epoch) {
        self.in_line = epoch;
        if let Some(view) = self.core.view().filter(|v| v.epoch == epoch) {
            self.uncleans = view.uncleans;
        }
    }

    /// The core that the log alone would give; `written` is the last write of the former one that is not synced yet.
    pub fn reset(
        &mut self,
        make: MakeCore,
        identity: Identity,
        disk: &Disk,
        written: Write,
        now: Millis,
    ) {
        let stored = Stored {
            commit: self.applied,
            contradicted: self.quarantine.is_some(),
            written,
            ..disk.written(identity.key).stored()
        };
        self.core = make(identity, stored, now);
    }
}

impl Process {
    /// Where the leader of a partition is, as far as is known here.
    pub fn leader_hint(&self, key: PartitionKey) -> Option<usize> {
        self.copies.get(&key).and_then(|c| c.core.leader()).map(|(id, _)| place_of(id))
    }

    /// The other tablets that should be connected: replicas of what this one leads.
    pub fn followers_wanted(&self) -> BTreeSet<usize> {
        self.copies
            .values()
            .filter(|c| c.core.leads())
            .filter_map(|c| c.core.view())
            .flat_map(|v| v.replicas.iter().copied())
            .filter(|t| *t != self.tablet)
            .map(place_of)
            .collect()
    }
}
