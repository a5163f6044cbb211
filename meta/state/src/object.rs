//! The state as separate objects, each under a key: what the shell stores, one record per object.
//!
//! Invariants: a state is equal to one that was built from all its objects; applying reports every key whose object
//! changed, so that writing just those keeps the store equal to the state ([`State::get`] answers `None` for an object
//! that is gone).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use stela_common::ids::{JobId, OpId, PartitionKey, TableId, TabletId, Version};
use stela_common::table::Table;

use crate::job::Job;
use crate::op::Op;
use crate::state::{
    Controller, Counters, Partition, Removal, Session, Setting, State, Tablet, Tombstone,
};

/// Names one object of the state.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Key {
    /// The name of the cluster, the counters, the controller and the applied index.
    Meta,
    /// A database.
    Database(String),
    /// A table.
    Table(TableId),
    /// A partition.
    Partition(PartitionKey),
    /// A tablet.
    Tablet(TabletId),
    /// A dropped table.
    Tombstone(TableId),
    /// The replicas that were taken out of a partition.
    Removal(PartitionKey),
    /// An operation.
    Op(OpId),
    /// A job.
    Job(JobId),
    /// A setting.
    Config(String),
    /// A client.
    Session(u64),
}

/// The keys of the objects that a batch changed, made or removed.
pub type Changed = BTreeSet<Key>;

/// What there is once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// See [`State::cluster`].
    pub cluster: String,
    /// See [`State::counters`].
    pub counters: Counters,
    /// See [`State::controller`].
    pub controller: Controller,
    /// See [`State::applied`].
    pub applied: u64,
}

/// One object of the state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Object {
    /// Under [`Key::Meta`].
    Meta(Meta),
    /// Under [`Key::Database`].
    Database(Version),
    /// Under [`Key::Table`].
    Table(Table),
    /// Under [`Key::Partition`].
    Partition(Partition),
    /// Under [`Key::Tablet`].
    Tablet(Tablet),
    /// Under [`Key::Tombstone`].
    Tombstone(Tombstone),
    /// Under [`Key::Removal`].
    Removal(BTreeMap<TabletId, Removal>),
    /// Under [`Key::Op`].
    Op(Op),
    /// Under [`Key::Job`].
    Job(Job),
    /// Under [`Key::Config`].
    Config(Setting),
    /// Under [`Key::Session`].
    Session(Session),
}

/// An object that does not belong under its key: the store is damaged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("object of another kind under key {0:?}")]
pub struct Mismatch(pub Key);

impl State {
    /// The object of that key, or `None` when there is none (any more).
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Object> {
        Some(match key {
            Key::Meta => Object::Meta(Meta {
                cluster: self.cluster.clone(),
                counters: self.counters,
                controller: self.controller,
                applied: self.applied,
            }),
            Key::Database(name) => Object::Database(*self.databases.get(name)?),
            Key::Table(tid) => Object::Table(self.tables.get(tid)?.clone()),
            Key::Partition(key) => Object::Partition(self.partitions.get(key)?.clone()),
            Key::Tablet(id) => Object::Tablet(self.tablets.get(id)?.clone()),
            Key::Tombstone(tid) => Object::Tombstone(self.tombstones.get(tid)?.clone()),
            Key::Removal(key) => Object::Removal(self.removals.get(key)?.clone()),
            Key::Op(id) => Object::Op(self.ops.get(id)?.clone()),
            Key::Job(id) => Object::Job(self.jobs.get(id)?.clone()),
            Key::Config(key) => Object::Config(self.config.get(key)?.clone()),
            Key::Session(client) => Object::Session(self.sessions.get(client)?.clone()),
        })
    }

    /// Puts an object in its place, as when the state is loaded.
    ///
    /// # Errors
    /// The object is not of the key's kind; nothing changed.
    pub fn put(&mut self, key: Key, object: Object) -> Result<(), Mismatch> {
        match (key, object) {
            (Key::Meta, Object::Meta(meta)) => {
                self.cluster = meta.cluster;
                self.counters = meta.counters;
                self.controller = meta.controller;
                self.applied = meta.applied;
            }
            (Key::Database(name), Object::Database(it)) => drop(self.databases.insert(name, it)),
            (Key::Table(tid), Object::Table(it)) => drop(self.tables.insert(tid, it)),
            (Key::Partition(key), Object::Partition(it)) => drop(self.partitions.insert(key, it)),
            (Key::Tablet(id), Object::Tablet(it)) => drop(self.tablets.insert(id, it)),
            (Key::Tombstone(tid), Object::Tombstone(it)) => drop(self.tombstones.insert(tid, it)),
            (Key::Removal(key), Object::Removal(it)) => drop(self.removals.insert(key, it)),
            (Key::Op(id), Object::Op(it)) => drop(self.ops.insert(id, it)),
            (Key::Job(id), Object::Job(it)) => drop(self.jobs.insert(id, it)),
            (Key::Config(key), Object::Config(it)) => drop(self.config.insert(key, it)),
            (Key::Session(id), Object::Session(it)) => drop(self.sessions.insert(id, it)),
            (key, _) => return Err(Mismatch(key)),
        }
        Ok(())
    }

    /// Takes the object of that key away; nothing happens when there is none. `Meta` always stays.
    pub fn remove(&mut self, key: &Key) {
        match key {
            Key::Meta => {}
            Key::Database(name) => drop(self.databases.remove(name)),
            Key::Table(tid) => drop(self.tables.remove(tid)),
            Key::Partition(key) => drop(self.partitions.remove(key)),
            Key::Tablet(id) => drop(self.tablets.remove(id)),
            Key::Tombstone(tid) => drop(self.tombstones.remove(tid)),
            Key::Removal(key) => drop(self.removals.remove(key)),
            Key::Op(id) => drop(self.ops.remove(id)),
            Key::Job(id) => drop(self.jobs.remove(id)),
            Key::Config(key) => drop(self.config.remove(key)),
            Key::Session(client) => drop(self.sessions.remove(client)),
        }
    }

    /// The keys of all objects.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        std::iter::once(Key::Meta)
            .chain(self.databases.keys().cloned().map(Key::Database))
            .chain(self.tables.keys().copied().map(Key::Table))
            .chain(self.partitions.keys().copied().map(Key::Partition))
            .chain(self.tablets.keys().copied().map(Key::Tablet))
            .chain(self.tombstones.keys().copied().map(Key::Tombstone))
            .chain(self.removals.keys().copied().map(Key::Removal))
            .chain(self.ops.keys().copied().map(Key::Op))
            .chain(self.jobs.keys().copied().map(Key::Job))
            .chain(self.config.keys().cloned().map(Key::Config))
            .chain(self.sessions.keys().copied().map(Key::Session))
    }
}
