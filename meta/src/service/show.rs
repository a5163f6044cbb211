//! The rows of `showtable`: the state, and beside it what tablets report.
//!
//! Invariants: of one partition at most one row is `leader` and alive, the real one; a former leader stays `leader`/`no`
//! until it is in sync again. A figure that nobody has reported is marked as not known, never shown as 0.

use stela_common::clock::Millis;
use stela_common::ids::{PartitionId, PartitionKey};
use stela_common::table::Table;
use stela_meta_state::state::{Partition, Replica, State};
use stela_proto::nameserver as pb;

use crate::control::soft::Soft;

/// The tables that a request asks for, by name. A name asks for that table of the database; without one it is all of
/// the database, and those that belong to none.
pub(super) fn tables(
    soft: &Soft,
    state: &State,
    request: &pb::ShowTableRequest,
    now: Millis,
) -> Vec<pb::TableRow> {
    let asked = |t: &&Table| {
        let named = request.name.is_empty() || t.name == request.name;
        let everywhere = request.all_databases || (request.name.is_empty() && t.db.is_empty());
        named && (everywhere || t.db == request.db)
    };
    let mut tables: Vec<&Table> = state.tables.values().filter(asked).collect();
    tables.sort_by(|a, b| {
        (!a.db.is_empty(), &a.name, &a.db).cmp(&(!b.db.is_empty(), &b.name, &b.db))
    });
    tables.into_iter().map(|t| table(soft, state, t, now)).collect()
}

fn table(soft: &Soft, state: &State, table: &Table, now: Millis) -> pb::TableRow {
    let partitions = state.partitions_of(table.tid).map(|(pid, p)| {
        let key = PartitionKey { tid: table.tid, pid };
        partition(soft, state, key, p, now)
    });
    pb::TableRow { table: Some(table.into()), partitions: partitions.collect() }
}

fn partition(
    soft: &Soft,
    state: &State,
    key: PartitionKey,
    partition: &Partition,
    now: Millis,
) -> pb::PartitionRow {
    let PartitionKey { pid: PartitionId(pid), .. } = key;
    let leader = soft
        .report_of(state, key, partition.leader)
        .filter(|r| r.incarnation == partition.leader_incarnation);
    pb::PartitionRow {
        pid,
        epoch: partition.epoch.0,
        replicas: partition
            .replicas
            .iter()
            .map(|r| replica(soft, state, key, partition, *r))
            .collect(),
        serving: leader.is_some_and(|r| r.serving && r.epoch == partition.epoch)
            && soft.is_alive(state, partition.leader, now),
        waits: soft.obstacle(key).unwrap_or_default().into(),
    }
}

fn replica(
    soft: &Soft,
    state: &State,
    key: PartitionKey,
    partition: &Partition,
    replica: Replica,
) -> pb::ReplicaRow {
    let tablet = replica.tablet;
    let reported = soft.report_of(state, key, tablet);
    let report = reported.copied().unwrap_or_default();
    pb::ReplicaRow {
        endpoint: state.tablets.get(&tablet).map(|t| t.endpoint.clone()).unwrap_or_default(),
        leader: partition.leader == tablet || replica.was_leader,
        alive: state.is_alive(partition, tablet),
        known: reported.is_some(),
        offset: report.offset.0,
        record_cnt: report.records,
        key_cnt: report.keys,
        memory: report.memory,
        disk: report.disk,
        commit: report.commit.0,
        in_sync: partition.member(tablet).is_some_and(|m| !m.untrusted),
    }
}

#[cfg(test)]
mod tests {
    use stela_common::ids::{Epoch, Incarnation, Offset, TabletId};
    use stela_common::table::{Index, Options, Ttl};
    use stela_meta_state::command::{Batch, Command, Elect, Proposal, Register, Reply};
    use stela_meta_state::plan::Report;

    use super::*;
    use crate::control::judge::{StreamId, Timing};

    const TIMING: Timing = Timing { lease: 2000, heartbeat: 200 };

    fn apply(state: &mut State, command: Command) -> Reply {
        let index = state.applied + 1;
        state
            .apply(index, &Batch { commands: vec![Proposal { request: None, now: 0, command }] })
            .remove(0)
    }

    fn register(state: &mut State, endpoint: &str, runs: &[u64]) -> TabletId {
        let register = Register {
            endpoint: endpoint.into(),
            starts: runs.iter().map(|r| Incarnation(*r)).collect(),
            dir_uuid: "d".into(),
            boot_id: "b".into(),
            clean: false,
            damaged: Vec::new(),
            highest: 0.into(),
        };
        match apply(state, Command::Register(register)) {
            Reply::Registered(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn create(state: &mut State, db: &str, name: &str, row: &[TabletId]) {
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
            db: db.into(),
            name: name.into(),
            columns: Vec::new(),
            indexes: vec![index],
            partition_num: 1,
            replica_num: row.len().try_into().unwrap(),
            options: Options::default(),
            created_index: 0,
            added_columns: 0,
        };
        let reply = apply(state, Command::CreateTable { table, placement: vec![row.to_vec()] });
        assert!(matches!(reply, Reply::Created(_)), "{reply:?}");
    }

    /// Two tablets, and table `t` of database `db` on both.
    fn state() -> (State, [TabletId; 2]) {
        let mut state = State::default();
        apply(&mut state, Command::CreateDatabase { name: "db".into() });
        let t = [register(&mut state, "a:1", &[1]), register(&mut state, "b:1", &[2])];
        create(&mut state, "db", "t", &t);
        (state, t)
    }

    fn shown(soft: &Soft, state: &State) -> pb::PartitionRow {
        let request =
            pb::ShowTableRequest { db: "db".into(), name: "t".into(), all_databases: false };
        tables(soft, state, &request, Millis(0)).remove(0).partitions.remove(0)
    }

    #[test]
    fn after_a_failover_the_former_leader_stays_leader_no() {
        let (mut state, [a, b]) = state();
        let key = PartitionKey::new(1, 0);
        apply(&mut state, Command::Offline { tablet: a, incarnation: Incarnation(1), auto: true });
        let expected = state.partitions[&key].version;
        let elect = Elect {
            key,
            expected,
            leader: b,
            incarnation: Incarnation(2),
            auto: true,
            surrendered: None,
            unclean: None,
        };
        apply(&mut state, Command::Elect(elect));
        let row = shown(&Soft::new(TIMING, Millis(0)), &state);
        let cells: Vec<_> = row
            .replicas
            .iter()
            .map(|r| (r.endpoint.as_str(), r.leader, r.alive, r.in_sync, r.known))
            .collect();
        assert_eq!(cells, [("a:1", true, false, false, false), ("b:1", true, true, true, false)]);
    }

    #[test]
    fn figures_are_those_of_the_registered_run_and_serving_takes_this_epoch_and_a_live_stream() {
        let (mut state, [a, _]) = state();
        let mut soft = Soft::new(TIMING, Millis(0));
        let key = PartitionKey::new(1, 0);
        let report = Report {
            incarnation: Incarnation(1),
            epoch: Epoch(1),
            serving: true,
            leading: true,
            offset: Offset(7),
            commit: Offset(6),
            records: 5,
            ..Report::default()
        };
        soft.report(&state, a, [(key, report), (PartitionKey::new(9, 0), report)]);
        assert!(!shown(&soft, &state).serving, "it is not heard");
        soft.judge.opened(a, Incarnation(1), StreamId(1), Millis(0));
        let row = shown(&soft, &state);
        assert!(row.serving);
        let first = &row.replicas[0];
        assert_eq!((first.known, first.offset, first.commit, first.record_cnt), (true, 7, 6, 5));
        assert!(!row.replicas[1].known);
        soft.report(&state, a, [(key, Report { epoch: Epoch(2), ..report })]);
        assert!(!shown(&soft, &state).serving);
        soft.report(&state, a, [(key, report)]);
        register(&mut state, "a:1", &[1, 3]);
        let row = shown(&soft, &state);
        assert!(!row.serving && !row.replicas[0].known);
    }

    #[test]
    fn tables_without_a_database_come_first_and_everywhere() {
        let (mut state, t) = state();
        create(&mut state, "", "z", &t);
        create(&mut state, "", "t", &t[..1]);
        apply(&mut state, Command::CreateDatabase { name: "other".into() });
        create(&mut state, "other", "a", &t);
        let soft = Soft::new(TIMING, Millis(0));
        let ask = |db: &str, name: &str, all_databases| {
            let request = pb::ShowTableRequest { db: db.into(), name: name.into(), all_databases };
            let rows = tables(&soft, &state, &request, Millis(0)).into_iter();
            rows.map(|r| r.table.map(|t| format!("{}.{}", t.db, t.name)).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(ask("db", "", false), [".t", ".z", "db.t"]);
        assert_eq!(ask("db", "t", false), ["db.t"]);
        assert_eq!(ask("", "t", false), [".t"]);
        assert_eq!(ask("", "", true), [".t", ".z", "other.a", "db.t"]);
        assert_eq!(ask("nowhere", "", false), [".t", ".z"]);
    }
}
