//! What a tablet is told: everything that was decided about it, and nothing twice on one stream.
//!
//! **Invariants**
//! * Level-triggered: what is told is worked out from the state and the index that the tablet has confirmed, never from
//!   events that somebody would have to have seen.
//! * After a message that says `index`, the tablet has been told all that was decided about it up to there, on this
//!   stream or before (R17).
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use stela_common::ids::{PartitionKey, TableId, TabletId, Version};
use stela_meta_state::object::Key;
use stela_meta_state::state::State;
use stela_proto::common;
use stela_proto::heartbeat as pb;

/// What one tablet has been told on one stream.
#[derive(Debug)]
pub struct Told {
    tablet: TabletId,
    /// It knows all that was decided about it up to this index.
    upto: u64,
    /// The partitions that it was told on this stream, as of which version.
    views: BTreeMap<PartitionKey, Version>,
    /// The drops that it was told on this stream.
    drops: BTreeSet<TableId>,
    /// The replicas that it was told on this stream to drop, by which removal.
    removals: BTreeSet<(PartitionKey, Version)>,
}

/// News for a tablet.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct News {
    /// Told with this, it knows everything up to this index.
    pub index: u64,
    /// Partitions.
    pub views: Vec<pb::PartitionView>,
    /// Dropped tables.
    pub drops: Vec<pb::Dropped>,
    /// Where tablets are.
    pub tablets: Vec<common::TabletAddress>,
}

impl News {
    /// Is there nothing in it but the index?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.views.is_empty() && self.drops.is_empty() && self.tablets.is_empty()
    }
}

impl Told {
    /// A stream begins with a tablet that has confirmed everything up to `known`.
    #[must_use]
    pub fn new(tablet: TabletId, known: u64) -> Self {
        Self {
            tablet,
            upto: known,
            views: BTreeMap::new(),
            drops: BTreeSet::new(),
            removals: BTreeSet::new(),
        }
    }

    /// Up to which index it knows all.
    #[must_use]
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// What it does not know yet, given the keys that changed after [`Self::upto`] in their order; `None`: nobody knows,
    /// take all. It counts as told then.
    pub fn news(&mut self, state: &State, changed: Option<Vec<Key>>) -> News {
        let changed = changed.unwrap_or_else(|| {
            self.views.clear();
            state.keys().collect()
        });
        let mut news = News { index: state.applied.max(self.upto), ..News::default() };
        for key in changed {
            match key {
                Key::Partition(key) => self.view(state, key, &mut news),
                Key::Table(tid) => self.table(state, tid, &mut news),
                Key::Tombstone(tid) => self.tombstone(state, tid, &mut news),
                Key::Removal(key) => self.removal(state, key, &mut news),
                Key::Tablet(id) => {
                    news.tablets.extend(state.tablets.get(&id).map(|t| common::TabletAddress {
                        id: id.0,
                        endpoint: t.endpoint.clone(),
                        incarnation: t.incarnation.0,
                        healthy: t.healthy,
                    }))
                }
                _ => {}
            }
        }
        self.upto = news.index;
        news
    }

    /// A partition, if a replica of it is on the tablet and this version was not told.
    fn view(&mut self, state: &State, key: PartitionKey, news: &mut News) {
        let Some(partition) = state.partitions.get(&key) else {
            self.views.remove(&key);
            return;
        };
        let Some(table) = state.tables.get(&key.tid) else { return };
        if partition.replica(self.tablet).is_none()
            || self.views.insert(key, partition.version) == Some(partition.version)
        {
            return;
        }
        news.views.push(pb::PartitionView {
            table: Some(table.into()),
            partition: Some((&partition.view(key)).into()),
        });
    }

    /// Another definition of a table goes with each of its partitions.
    fn table(&mut self, state: &State, tid: TableId, news: &mut News) {
        let keys: Vec<PartitionKey> =
            state.partitions_of(tid).map(|(pid, _)| PartitionKey { tid, pid }).collect();
        for key in keys {
            self.views.remove(&key);
            self.view(state, key, news);
        }
    }

    fn tombstone(&mut self, state: &State, tid: TableId, news: &mut News) {
        let waits = state.tombstones.get(&tid).filter(|t| t.waiting.contains(&self.tablet));
        if let Some(tombstone) = waits.filter(|_| self.drops.insert(tid)) {
            let created_index = tombstone.created_index;
            news.drops.push(pb::Dropped { tid: tid.0, created_index, pid: None, removal: 0 });
        }
    }

    fn removal(&mut self, state: &State, key: PartitionKey, news: &mut News) {
        let removal = state.removals.get(&key).and_then(|gone| gone.get(&self.tablet));
        if let Some(removal) = removal.filter(|r| self.removals.insert((key, r.version))) {
            let created_index = removal.created_index;
            news.drops.push(pb::Dropped {
                tid: key.tid.0,
                created_index,
                pid: Some(key.pid.0),
                removal: removal.version.0,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use stela_common::ids::{Epoch, Incarnation};
    use stela_common::table::{Index, Options, Table, Ttl};
    use stela_meta_state::command::{Batch, Command, Elect, Proposal, Register, Reply};
    use stela_meta_state::object::Changed;

    use super::*;

    /// A state, and which keys changed at which index.
    #[derive(Default)]
    struct Meta {
        state: State,
        changes: Vec<(u64, Changed)>,
    }

    impl Meta {
        fn apply(&mut self, command: Command) -> Reply {
            let mut changed = Changed::new();
            let batch = Batch { commands: vec![Proposal { request: None, now: 1, command }] };
            let index = self.state.applied + 1;
            let reply = self.state.apply_tracked(index, &batch, &mut changed).remove(0);
            assert_eq!(reply.refusal(), None);
            self.changes.push((index, changed));
            reply
        }

        fn since(&self, index: u64) -> Option<Vec<Key>> {
            let keys: BTreeSet<Key> = self
                .changes
                .iter()
                .filter(|(at, _)| *at > index)
                .flat_map(|(_, c)| c.clone())
                .collect();
            Some(keys.into_iter().collect())
        }

        fn news(&self, told: &mut Told) -> News {
            told.news(&self.state, self.since(told.upto()))
        }

        fn register(&mut self, endpoint: &str, run: u64) -> TabletId {
            let register = Register {
                endpoint: endpoint.into(),
                starts: vec![Incarnation(run)],
                dir_uuid: String::new(),
                boot_id: String::new(),
                clean: true,
                damaged: Vec::new(),
                highest: 0.into(),
            };
            match self.apply(Command::Register(register)) {
                Reply::Registered(id) => id,
                other => panic!("{other:?}"),
            }
        }

        fn create(&mut self, name: &str, rows: &[&[TabletId]]) -> u32 {
            let index = Index {
                name: "key".into(),
                columns: Vec::new(),
                ts: None,
                ttl: Ttl::default(),
                deleted: false,
                added: Default::default(),
            };
            let table = Table {
                tid: 0.into(),
                db: String::new(),
                name: name.into(),
                columns: Vec::new(),
                indexes: vec![index],
                partition_num: rows.len().try_into().unwrap(),
                replica_num: rows[0].len().try_into().unwrap(),
                options: Options::default(),
                created_index: 0,
                added_columns: 0,
            };
            match self.apply(Command::CreateTable {
                table,
                placement: rows.iter().map(|r| r.to_vec()).collect(),
            }) {
                Reply::Created(tid) => tid.0,
                other => panic!("{other:?}"),
            }
        }
    }

    fn told_partitions(news: &News) -> Vec<(u32, u32)> {
        news.views.iter().filter_map(|v| v.partition.as_ref()).map(|p| (p.tid, p.pid)).collect()
    }

    #[test]
    fn a_tablet_is_told_its_own_partitions_once_and_every_address() {
        let mut meta = Meta::default();
        let [a, b, c] = [("a:1", 1), ("b:1", 2), ("c:1", 3)].map(|(e, run)| meta.register(e, run));
        let tid = meta.create("t", &[&[a, b], &[b, c], &[c, a]]);
        let mut told = Told::new(a, 0);
        let news = meta.news(&mut told);
        assert_eq!(told_partitions(&news), [(tid, 0), (tid, 2)]);
        assert_eq!(news.views[0].table.as_ref().map(|t| t.created_index), Some(meta.state.applied));
        assert_eq!(news.tablets.len(), 3);
        assert_eq!(news.index, meta.state.applied);
        assert!(meta.news(&mut told).is_empty());
    }

    #[test]
    fn what_changed_since_is_told_and_what_concerns_others_is_not() {
        let mut meta = Meta::default();
        let [a, b] = [("a:1", 1), ("b:1", 2)].map(|(e, run)| meta.register(e, run));
        let tid = meta.create("t", &[&[a, b], &[b, a]]);
        let mut told = Told::new(b, meta.state.applied);
        assert!(meta.news(&mut told).is_empty(), "it had confirmed all of it before");
        meta.create("u", &[&[a]]);
        let news = meta.news(&mut told);
        assert!(news.is_empty() && news.index == meta.state.applied);
        let key = PartitionKey::new(tid, 0);
        let expected = meta.state.partitions[&key].version;
        let elect = Elect {
            key,
            expected,
            leader: b,
            incarnation: Incarnation(2),
            auto: true,
            surrendered: None,
            unclean: None,
        };
        meta.apply(Command::Elect(elect));
        let news = meta.news(&mut told);
        assert_eq!(told_partitions(&news), [(tid, 0)]);
        assert_eq!(news.views[0].partition.as_ref().map(|p| (p.epoch, p.leader)), Some((2, b.0)));
        // A mark for display does not change what tablets are told.
        meta.apply(Command::Started { key, epoch: Epoch(2), start: 0.into() });
        assert!(meta.news(&mut told).is_empty());
        meta.apply(Command::Offline { tablet: a, incarnation: Incarnation(1), auto: true });
        assert_eq!(
            meta.news(&mut told).tablets.iter().map(|t| (t.id, t.healthy)).collect::<Vec<_>>(),
            [(a.0, false)]
        );
    }

    #[test]
    fn a_drop_is_told_to_those_who_have_to_confirm_it() {
        let mut meta = Meta::default();
        let [a, b, c] = [("a:1", 1), ("b:1", 2), ("c:1", 3)].map(|(e, run)| meta.register(e, run));
        let tid = meta.create("t", &[&[a, b]]);
        let created = meta.state.applied;
        let mut told = [a, b, c].map(|t| Told::new(t, meta.state.applied));
        meta.apply(Command::DropTable { db: String::new(), name: "t".into() });
        let drops = told.each_mut().map(|t| meta.news(t).drops);
        let expected = vec![pb::Dropped { tid, created_index: created, pid: None, removal: 0 }];
        assert_eq!(drops, [expected.clone(), expected.clone(), vec![]]);
        meta.apply(Command::ConfirmDropped { tid: tid.into(), tablet: a });
        assert!(told.iter_mut().all(|t| meta.news(t).is_empty()), "b was told on this stream");
        // A stream that begins anew, of one that has confirmed nothing.
        assert_eq!(meta.news(&mut Told::new(b, 0)).drops, expected);
        assert_eq!(meta.news(&mut Told::new(a, 0)).drops, []);
    }

    #[test]
    fn when_nobody_remembers_what_changed_everything_is_told_again() {
        let mut meta = Meta::default();
        let a = meta.register("a:1", 1);
        let tid = meta.create("t", &[&[a], &[a]]);
        let mut told = Told::new(a, 0);
        meta.news(&mut told);
        let again = told.news(&meta.state, None);
        assert_eq!(told_partitions(&again), [(tid, 0), (tid, 1)]);
        assert_eq!(again.tablets.len(), 1);
    }

    #[test]
    fn the_index_never_goes_back() {
        let meta = Meta::default();
        let mut told = Told::new(TabletId(1), 77);
        assert_eq!(meta.news(&mut told).index, 77);
    }
}
