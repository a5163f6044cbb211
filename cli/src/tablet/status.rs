//! `gettablestatus` and `getfollower`.

use stela_proto::tablet as pb;

use super::{Session, partition};
use crate::print::{Answer, Cell, Layout, Table};

pub(super) async fn gettablestatus(session: &Session, args: &[&str]) -> Answer {
    let one = match args {
        [] => None,
        [tid, pid] => match partition(tid, pid) {
            Ok(one) => Some(one),
            Err(text) => return Answer::failed(text),
        },
        _ => return Answer::failed("Bad gettablestatus format"),
    };
    let request =
        pb::GetTableStatusRequest { tid: one.map(|(tid, _)| tid), pid: one.map(|(_, pid)| pid) };
    match session.ask(async |mut c| c.get_table_status(request).await).await {
        Ok(reply) => Answer::table(status_table(reply.rows, session.layout)),
        Err(e) => Answer::failed(format!("gettablestatus failed, error msg: {}", e.text)),
    }
}

fn status_table(mut rows: Vec<pb::TableStatusRow>, layout: Layout) -> Table {
    let mut columns = vec![
        "tid",
        "pid",
        "offset",
        "mode",
        "state",
        "enable_expire",
        "ttl",
        "ttl_offset",
        "memused",
        "compress_type",
    ];
    columns.extend((layout == Layout::Current).then_some("skiplist_height"));
    rows.sort_by_key(|r| (r.tid, r.pid));
    let details = ["record_cnt", "key_cnt", "mapped", "loaded"];
    let mut table = Table::new(&columns).with_details(&details);
    for r in rows {
        let loading = r.state == "kTableLoading";
        let state = if loading { format!("{} {}%", r.state, r.loaded) } else { r.state.clone() };
        let mut row = vec![
            Cell::number(r.tid),
            Cell::number(r.pid),
            Cell::number(r.offset),
            Cell::text(if r.leading { "kTableLeader" } else { "kTableFollower" }),
            Cell { text: state, json: r.state.into() },
            Cell::true_false(r.enable_expire),
            // Of the first index; in the original it is a constant, as the one behind it still is.
            Cell::text(if r.ttl.is_empty() { "0min" } else { &r.ttl }),
            Cell::seconds(0),
            Cell::bytes(r.memory),
            Cell::text("kNoCompress"),
        ];
        // There are no skip lists here.
        row.extend((layout == Layout::Current).then(|| Cell::number(0u64)));
        row.extend([r.record_cnt, r.key_cnt, r.mapped].map(Cell::number));
        row.push(Cell::known(loading.then_some(r.loaded)));
        table.push(row);
    }
    table
}

pub(super) async fn getfollower(session: &Session, args: &[&str]) -> Answer {
    let [tid, pid, ..] = args else { return Answer::failed("Bad get follower format") };
    let (tid, pid) = match partition(tid, pid) {
        Ok(both) => both,
        Err(text) => return Answer::failed(text),
    };
    let request = pb::GetFollowerRequest { tid, pid };
    match session.ask(async |mut c| c.get_follower(request).await).await {
        Ok(reply) => Answer::table(follower_table(tid, pid, reply)),
        Err(e) => Answer::failed(format!("get failed, error msg: {}", e.text)),
    }
}

fn follower_table(tid: u32, pid: u32, mut reply: pb::GetFollowerReply) -> Table {
    reply.followers.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    let mut table = Table::new(&["#", "tid", "pid", "leader_offset", "follower", "offset"]);
    // It counts from 0, and all other tables from 1.
    for (at, follower) in (0u64..).zip(reply.followers) {
        table.push(vec![
            Cell::number(at),
            Cell::number(tid),
            Cell::number(pid),
            Cell::number(reply.leader_offset),
            Cell::text(follower.endpoint),
            Cell::number(follower.offset),
        ]);
    }
    table
}
