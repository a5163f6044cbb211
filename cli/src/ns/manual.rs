//! The commands that do by hand what the cluster does by itself, and those that move replicas.
//!
//! Arguments are checked here, everything else where the order is applied. "ok" means that it is on record: `showopstatus`
//! tells how it goes on.

use stela_common::code::Refusal;
use stela_proto::nameserver as pb;

use super::Session;
use crate::print::Answer;
use crate::shell::{pid_group, unsigned};

const PID: &str = "Invalid args. pid should be uint32_t";

/// What the nameserver said, in the words of the command.
type Said = Result<pb::WriteReply, Refusal>;

/// Of commands that print nothing where no server answered.
fn quiet(said: Said, ok: &str, failed: &str) -> Answer {
    match said {
        Ok(_) => Answer::done(ok),
        Err(refusal) => Answer::refused(failed, &refusal),
    }
}

/// Of commands that print the client's own words then.
fn told(said: Said, ok: &str, failed: &str) -> Answer {
    match said {
        Ok(_) => Answer::done(ok),
        Err(refusal) => Answer::failed(format!("{failed}{}", refusal.text)),
    }
}

/// Of commands that print the code, too.
fn coded(said: Said, ok: &str, failed: &str) -> Answer {
    match said {
        Ok(_) => Answer::done(ok),
        Err(Refusal { code, text }) => {
            Answer::failed(format!("{failed}ReturnCode[{}]{text}", code as i32))
        }
    }
}

fn bad_format() -> Answer {
    Answer::failed("Bad format")
}

impl Session {
    /// A table of the selected database, by its name.
    pub(super) fn table(&self, name: &str) -> pb::TableName {
        pb::TableName { db: self.db(), name: name.into(), tid: 0 }
    }
}

pub(super) async fn offlineendpoint(session: &Session, args: &[&str]) -> Answer {
    let Some(endpoint) = args.first() else { return bad_format() };
    let concurrency = match args.get(1).map(|text| text.parse::<i32>()) {
        None => 0,
        Some(Ok(n @ 1..)) => n.unsigned_abs(),
        Some(Ok(_)) => {
            return Answer::failed("Invalid args. concurrency should be greater than 0");
        }
        Some(Err(_)) => return Answer::failed("Invalid args. concurrency should be uint32_t"),
    };
    let said = session.client.admin().offline_endpoint(endpoint, concurrency).await;
    quiet(said, "offline endpoint ok", "failed to offline endpoint. error msg: ")
}

pub(super) async fn recoverendpoint(session: &Session, args: &[&str]) -> Answer {
    let Some(endpoint) = args.first() else { return bad_format() };
    let need_restore = match args.get(1).map(|t| t.to_ascii_lowercase()).as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            return Answer::failed("Invalid args. need_restore should be true or false");
        }
    };
    let concurrency = match args.get(2).map(|text| unsigned::<u32>(text)) {
        None => 0,
        Some(Some(n)) => n,
        Some(None) => return Answer::failed("Invalid args. concurrency should be uint32"),
    };
    let said = session.client.admin().recover_endpoint(endpoint, need_restore, concurrency).await;
    quiet(said, "recover endpoint ok", "failed to recover endpoint. error msg: ")
}

pub(super) async fn recovertable(session: &Session, args: &[&str]) -> Answer {
    let [table, pid, endpoint, ..] = args else { return bad_format() };
    let Some(pid) = unsigned(pid) else { return Answer::failed(PID) };
    let said = session.client.admin().recover_table(session.table(table), pid, endpoint).await;
    told(said, "recover table ok", "Fail to recover table. error msg:")
}

pub(super) async fn changeleader(session: &Session, args: &[&str]) -> Answer {
    let [table, pid, candidate @ ..] = args else { return bad_format() };
    let Some(pid) = unsigned(pid) else { return Answer::failed(PID) };
    let candidate = candidate.first().map(|word| if *word == "auto" { "" } else { word });
    let admin = session.client.admin();
    let said = admin.change_leader_by_hand(&session.db(), table, pid, candidate).await;
    let ok = "change leader ok. If there are writing operations while changing a leader, it may cause data loss.";
    told(said, ok, "failed to change leader. error msg: ")
}

pub(super) async fn migrate(session: &Session, args: &[&str]) -> Answer {
    let [from, table, pids, to, ..] = args else {
        return Answer::failed("Bad format. eg, migrate 127.0.0.1:9991 table1 1-10 127.0.0.1:9992");
    };
    if from == to {
        return Answer::failed("migrate error. src_endpoint is same as des_endpoint");
    }
    let pids = match pid_group(pids) {
        Ok(pids) => pids,
        Err(text) => return Answer::failed(text),
    };
    let said = session.client.admin().migrate(from, session.table(table), pids, to).await;
    told(said, "partition migrate ok", "failed to migrate partition. error msg: ")
}

pub(super) async fn addreplica(session: &Session, args: &[&str]) -> Answer {
    let (table, pids, endpoint) = match replicas(args) {
        Ok(known) => known,
        Err(answer) => return answer,
    };
    let said = session.client.admin().add_replica(session.table(table), pids, endpoint).await;
    told(said, "AddReplica ok", "Fail to addreplica. error msg:")
}

pub(super) async fn delreplica(session: &Session, args: &[&str]) -> Answer {
    let (table, pids, endpoint) = match replicas(args) {
        Ok(known) => known,
        Err(answer) => return answer,
    };
    let said = session.client.admin().del_replica(session.table(table), pids, endpoint).await;
    told(said, "DelReplica ok", "Fail to delreplica. error msg:")
}

fn replicas<'a>(args: &[&'a str]) -> Result<(&'a str, Vec<u32>, &'a str), Answer> {
    let [table, pids, endpoint, ..] = args else { return Err(bad_format()) };
    Ok((table, pid_group(pids).map_err(Answer::failed)?, endpoint))
}

pub(super) async fn updatetablealive(session: &Session, args: &[&str]) -> Answer {
    let [table, pid, endpoint, alive, ..] = args else { return bad_format() };
    let alive = match *alive {
        "yes" => true,
        "no" => false,
        _ => return Answer::failed("is_alive should be yes or no"),
    };
    let pid = match *pid {
        "*" => None,
        pid => match unsigned(pid) {
            Some(pid) => Some(pid),
            None => return Answer::failed(PID),
        },
    };
    let admin = session.client.admin();
    let said = admin.update_table_alive(session.table(table), pid, endpoint, alive).await;
    told(said, "update ok", "Fail to update table alive. error msg: ")
}

pub(super) async fn makesnapshot(session: &Session, args: &[&str]) -> Answer {
    let [table, pid, ..] = args else { return bad_format() };
    let Some(pid) = unsigned(pid) else { return Answer::failed(PID) };
    let said = session.client.admin().make_snapshot(session.table(table), pid).await;
    quiet(said, "MakeSnapshot ok", "Fail to makesnapshot. error msg:")
}

pub(super) async fn cancelop(session: &Session, args: &[&str]) -> Answer {
    let Some(id) = args.first() else {
        return Answer::failed("bad cancelop format, eg cancelop 1002");
    };
    let Some(id) = unsigned(id) else {
        return Answer::failed("Invalid args. op_id should be uint64_t");
    };
    let said = session.client.admin().cancel_op(id).await;
    coded(said, "Cancel op ok!", "Cancel op failed, error msg: ")
}

pub(super) async fn deleteop(session: &Session, args: &[&str]) -> Answer {
    let Some(which) = args.first() else {
        return Answer::failed("bad deleteop format, eg: deleteop 1002, deleteop doing");
    };
    let admin = session.client.admin();
    let said = match (unsigned(which), which.to_ascii_lowercase().as_str()) {
        (Some(id), _) => admin.delete_op(id).await,
        (None, status @ ("done" | "failed" | "canceled")) => {
            admin.delete_ops(status, &session.db()).await
        }
        _ => return Answer::failed("invalid args"),
    };
    coded(said, "Delete op ok!", "Delete op failed, error msg: ")
}
