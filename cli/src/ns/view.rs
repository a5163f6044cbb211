//! What the cluster looks like: `showtablet`, `showns`, `showtable`, `showopstatus`.

use std::time::Duration;

use stela_common::clock::wall_ms;
use stela_common::code::{Code, Refusal};
use stela_common::table::Table as Definition;
use stela_common::wire::Malformed;
use stela_proto::nameserver as pb;

use super::{Session, database};
use crate::print::{Answer, Cell, Layout, Table};
use crate::shell::unsigned;

/// A nameserver that does not take a connection for so long is away.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) async fn showtablet(session: &Session) -> Answer {
    let mut tablets = match session.client.admin().show_tablet().await {
        Ok(reply) => reply.tablets,
        Err(e) => return Answer::refused("Fail to show tablets. error msg: ", &e),
    };
    tablets.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    Answer::table(tablet_table(&tablets, session.layout))
}

fn tablet_table(tablets: &[pb::TabletRow], layout: Layout) -> Table {
    let classic = layout == Layout::Classic;
    let mut table = if classic {
        Table::new(&["endpoint", "state", "age"])
    } else {
        Table::new(&["endpoint", "real_endpoint", "state", "age"])
    };
    for tablet in tablets {
        let state = match (classic, tablet.healthy) {
            (true, true) => "kTabletHealthy",
            (true, false) => "kTabletOffline",
            (false, true) => "kHealthy",
            (false, false) => "kOffline",
        };
        let mut row = vec![Cell::text(&tablet.endpoint)];
        row.extend((!classic).then(Cell::none));
        row.extend([Cell::text(state), Cell::age(tablet.age_ms)]);
        table.push(row);
    }
    table
}

pub(super) async fn showns(session: &Session) -> Answer {
    if !session.by_list {
        return Answer::failed("Show nameserver failed. zk_cluster is empty");
    }
    let reply = match session.client.admin().cluster().await {
        Ok(reply) => reply,
        Err(e) => return Answer::failed("get children failed").because(e.text),
    };
    if !reply.nameservers.iter().any(|n| n.leader) {
        return Answer::failed("get children failed")
            .because("no nameserver leads: a majority of them must be up");
    }
    // As the original's entries in ZooKeeper do, a nameserver that is away goes from the list; one that only follows could
    // not take over, and is no standby.
    let voters = reply.nameservers.into_iter().filter(|n| n.voter);
    let looks = voters.map(async |n| (n.leader || answers(&n.endpoint).await).then_some(n));
    let mut nameservers: Vec<_> =
        futures::future::join_all(looks).await.into_iter().flatten().collect();
    nameservers.sort_by(|a, b| b.leader.cmp(&a.leader).then_with(|| a.endpoint.cmp(&b.endpoint)));
    let mut table = Table::new(&["endpoint", "real_endpoint", "role"]);
    for row in nameservers {
        let role = if row.leader { "leader" } else { "standby" };
        table.push(vec![Cell::text(row.endpoint), Cell::none(), Cell::text(role)]);
    }
    Answer::table(table)
}

/// Is somebody at that address?
async fn answers(endpoint: &str) -> bool {
    let connect = tokio::net::TcpStream::connect(endpoint);
    tokio::time::timeout(PATIENCE, connect).await.is_ok_and(|connected| connected.is_ok())
}

/// Tables that are visible in the session: those of no database, then those of the selected one, by name.
pub(super) async fn visible(
    session: &Session,
    name: &str,
) -> Result<Vec<(Definition, Vec<pb::PartitionRow>)>, Refusal> {
    let db = session.db();
    let mut found: Vec<(Definition, Vec<pb::PartitionRow>)> = Vec::new();
    for db in std::iter::once("").chain((!db.is_empty()).then_some(db.as_str())) {
        let reply = match session.client.admin().show_table(db, name, false).await {
            Ok(reply) => reply,
            Err(e) if e.code == Code::TableNotFound => continue,
            // To be without a database, or in one of OpenMLDB's own, is no mistake: there is nothing to show.
            Err(e)
                if e.code == Code::DatabaseNotFound
                    && (db.is_empty() || database::is_internal(db)) =>
            {
                continue;
            }
            Err(e) => return Err(e),
        };
        for row in reply.tables {
            let table = Definition::try_from(row.table.as_ref().ok_or(Malformed("table"))?)?;
            if table.db == db && (name.is_empty() || table.name == name) {
                found.push((table, row.partitions));
            }
        }
    }
    found.sort_by(|(a, _), (b, _)| (&a.db, &a.name).cmp(&(&b.db, &b.name)));
    Ok(found)
}

pub(super) async fn showtable(session: &Session, args: &[&str]) -> Answer {
    match visible(session, args.first().copied().unwrap_or("")).await {
        Ok(tables) => Answer::table(replica_table(&tables, session.layout)),
        Err(e) => Answer::refused("failed to showtable. error msg: ", &e),
    }
}

fn replica_table(tables: &[(Definition, Vec<pb::PartitionRow>)], layout: Layout) -> Table {
    let columns: &[&str] = match layout {
        Layout::Classic => &[
            "name",
            "tid",
            "pid",
            "endpoint",
            "role",
            "ttl",
            "is_alive",
            "compress_type",
            "offset",
            "record_cnt",
            "memused",
        ],
        Layout::Current => &[
            "name",
            "tid",
            "pid",
            "endpoint",
            "role",
            "is_alive",
            "offset",
            "record_cnt",
            "memused",
            "diskused",
        ],
    };
    let mut shown = Table::new(columns);
    for (table, partitions) in tables {
        let head = [Cell::text(&table.name), Cell::number(table.tid.0)];
        let mut push = |known: Vec<Cell>| {
            let mut row: Vec<Cell> = head.iter().cloned().chain(known).collect();
            row.resize(columns.len(), Cell::none());
            shown.push(row);
        };
        if partitions.is_empty() {
            push(vec![]);
        }
        for partition in partitions {
            if partition.replicas.is_empty() {
                push(vec![Cell::number(partition.pid)]);
            }
            for replica in &partition.replicas {
                push(
                    std::iter::once(Cell::number(partition.pid))
                        .chain(replica_cells(table, replica, layout))
                        .collect(),
                );
            }
        }
    }
    shown
}

fn replica_cells(table: &Definition, replica: &pb::ReplicaRow, layout: Layout) -> Vec<Cell> {
    let classic = layout == Layout::Classic;
    let known = |n: u64| replica.known.then_some(n);
    let mut cells = vec![
        Cell::text(&replica.endpoint),
        Cell::text(if replica.leader { "leader" } else { "follower" }),
    ];
    if classic {
        cells.push(Cell::text(
            table.live_indexes().next().map_or_else(|| "0min".into(), |(_, i)| i.ttl.to_string()),
        ));
    }
    cells.push(Cell::yes_no(replica.alive));
    cells.extend(classic.then(|| Cell::text("kNoCompress")));
    cells.extend([
        Cell::known(known(replica.offset)),
        Cell::known(known(replica.record_cnt)),
        known(replica.memory).map_or_else(Cell::none, Cell::bytes),
    ]);
    cells.extend((!classic).then(|| Cell::bytes(known(replica.disk).unwrap_or(0))));
    cells
}

pub(super) async fn showopstatus(session: &Session, args: &[&str]) -> Answer {
    let name = args.first().copied().unwrap_or("");
    let pid = match args.get(1).map(|text| unsigned::<u32>(text)) {
        None => None,
        Some(Some(pid)) => Some(pid),
        Some(None) => return Answer::failed("Invalid args. pid should be uint32_t"),
    };
    match session.client.admin().show_op_status(&session.db(), name, pid).await {
        Ok(mut reply) => {
            reply.ops.sort_by_key(|op| op.id);
            Answer::table(op_table(&reply.ops, session.layout, wall_ms() / 1000))
        }
        // The words are those of showtablet, in the original too.
        Err(e) => Answer::refused("Fail to show tablets. error msg: ", &e),
    }
}

/// `now`: seconds since 1970.
fn op_table(ops: &[pb::OpRow], layout: Layout, now: u64) -> Table {
    let mut columns = vec![
        "op_id",
        "op_type",
        "name",
        "pid",
        "status",
        "start_time",
        "execute_time",
        "end_time",
        "cur_task",
    ];
    columns.extend((layout == Layout::Current).then_some("for_replica_cluster"));
    let mut table = Table::new(&columns);
    for op in ops {
        let moment = |at: u64| if at == 0 { Cell::none() } else { Cell::moment(at) };
        let took = match (op.start_time, op.end_time) {
            (0, _) => Cell::none(),
            (start, 0) => Cell::seconds(now.saturating_sub(start)),
            (start, end) => Cell::seconds(end.saturating_sub(start)),
        };
        let mut row = vec![
            Cell::number(op.id),
            Cell::text(&op.r#type),
            Cell::text(&op.name),
            Cell::known(op.pid.map(u64::from)),
            Cell::text(&op.status),
            moment(op.start_time),
            took,
            moment(op.end_time),
            Cell::text(&op.cur_task),
        ];
        row.extend((layout == Layout::Current).then(|| Cell::yes_no(false)));
        table.push(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(table: &Table) -> Vec<Vec<&str>> {
        table.rows.iter().map(|row| row.iter().map(|c| c.text.as_str()).collect()).collect()
    }

    #[test]
    fn tablets_in_both_layouts() {
        let row = |endpoint: &str, healthy, age_ms| pb::TabletRow {
            endpoint: endpoint.into(),
            healthy,
            age_ms,
            id: 1,
            ..Default::default()
        };
        let rows = [row("a:1", true, 10_800_000), row("b:1", false, 420_000)];
        let classic = tablet_table(&rows, Layout::Classic);
        assert_eq!(
            texts(&classic),
            [["a:1", "kTabletHealthy", "3h"], ["b:1", "kTabletOffline", "7m"]]
        );
        let current = tablet_table(&rows, Layout::Current);
        assert_eq!(texts(&current), [["a:1", "", "kHealthy", "3h"], ["b:1", "", "kOffline", "7m"]]);
    }

    #[test]
    fn operations_running_and_over() {
        let op = |id, start_time, end_time, cur_task: &str, pid| pb::OpRow {
            id,
            r#type: "kReAddReplicaOP".into(),
            db: "db".into(),
            name: "flow".into(),
            pid,
            status: "kDoing".into(),
            start_time,
            end_time,
            cur_task: cur_task.into(),
            why: String::new(),
        };
        let ops = [
            op(1, 0, 0, "", None),
            op(2, 100, 0, "kLoadTable", Some(0)),
            op(3, 100, 7300, "", Some(1)),
        ];
        let table = op_table(&ops, Layout::Classic, 104);
        let shown = texts(&table);
        assert_eq!(shown[0][2..], ["flow", "", "kDoing", "", "", "", ""]);
        assert_eq!(
            (shown[1][3], shown[1][6], shown[1][7], shown[1][8]),
            ("0", "4s", "", "kLoadTable")
        );
        assert_eq!((shown[2][6], shown[2][8]), ("7200s", ""));
        assert_eq!(table.columns.len(), 9);
        let table = op_table(&ops, Layout::Current, 104);
        assert_eq!((table.columns[9].as_str(), texts(&table)[0][9]), ("for_replica_cluster", "no"));
    }
}
