//! What is asked of a tablet and decided by the nameservers: `changerole`, `addreplica`, `delreplica`, `setttl`,
//! `deleteindex`.
//!
//! A tablet gives itself no role and adds nothing to itself (R1, R22): it is asked who its nameservers are, and they are
//! asked to do it, also while `auto_failover` is on. "ok" means that it is on record there.

use stela_common::client::{Admin, Client, Options};
use stela_common::code::Refusal;
use stela_common::table::{Ttl, TtlKind};
use stela_common::wire;
use stela_proto::nameserver as ns;
use stela_proto::nameserver::alter_table_request::Change;
use stela_proto::tablet as pb;

use super::{Session, partition};
use crate::print::{Answer, Part};
use crate::shell::unsigned;

const SETTTL_USAGE: &str = "Bad setttl format, eg setttl tid pid type ttl [index_name]";

pub(super) async fn changerole(session: &Session, args: &[&str]) -> Answer {
    let [tid, pid, role, rest @ ..] = args else { return Answer::failed("Bad changerole format") };
    let (tid, pid) = match partition(tid, pid) {
        Ok(both) => both,
        Err(text) => return Answer::failed(text),
    };
    let leads = match *role {
        "leader" => true,
        "follower" => false,
        _ => return Answer::failed("role must be leader or follower"),
    };
    match rest.first().map(|term| unsigned::<u64>(term)) {
        Some(None) => Answer::failed("Invalid args, termid should be uint64_t"),
        _ => change_role(session, tid, pid, leads).await,
    }
}

/// The nameservers of the tablet's cluster, and the tablet as they name it.
async fn nameservers(session: &Session) -> Result<(Admin, String), String> {
    let mut tablet = session.connect().await?;
    let identity = tablet.identity(pb::IdentityRequest {}).await;
    let identity = identity.map_err(|e| e.message().to_owned())?.into_inner();
    let options = Options {
        cluster: Some(identity.cluster).filter(|c| !c.is_empty()),
        timeout: session.timeout,
        ..Options::new(identity.nameservers)
    };
    let client = Client::connect(options).await.map_err(|e| e.to_string())?;
    Ok((client.admin(), identity.endpoint))
}

fn table(tid: u32) -> ns::TableName {
    ns::TableName { tid, ..Default::default() }
}

/// The answer in the words of the command; why it failed has no place in most of them.
fn answer(said: Result<ns::WriteReply, Refusal>, ok: &str, failed: &str) -> Answer {
    match said {
        Ok(_) => Answer::done(ok),
        Err(refusal) => Answer::failed(failed).because(refusal.text),
    }
}

/// A replica leads, or does not any more. OpenMLDB's term is an epoch here, and is given by the nameservers.
async fn change_role(session: &Session, tid: u32, pid: u32, leads: bool) -> Answer {
    let failed = if leads { "Fail to change leader" } else { "Fail to change follower" };
    let (admin, endpoint) = match nameservers(session).await {
        Ok(known) => known,
        Err(cause) => return Answer::failed(failed).because(cause),
    };
    let led = match admin.leads(tid, pid, &endpoint).await {
        Ok(led) => led,
        Err(refusal) => return Answer::failed(failed).because(refusal.text),
    };
    if led == leads {
        return Answer::done("ChangeRole ok");
    }
    let to = if leads { endpoint.as_str() } else { "" };
    answer(admin.hand_over(tid, pid, to).await, "ChangeRole ok", failed)
}

pub(super) async fn addreplica(session: &Session, args: &[&str]) -> Answer {
    let [tid, pid, endpoint, ..] = args else { return Answer::failed("Bad addreplica format") };
    match partition(tid, pid) {
        Ok((tid, pid)) => add_replica(session, tid, pid, endpoint).await,
        Err(text) => Answer::failed(text),
    }
}

/// A tablet gets a replica of a partition.
async fn add_replica(session: &Session, tid: u32, pid: u32, endpoint: &str) -> Answer {
    const FAILED: &str = "Fail to Add Replica";
    match nameservers(session).await {
        Ok((admin, _)) => {
            let said = admin.add_replica(table(tid), vec![pid], endpoint).await;
            answer(said, "AddReplica ok", FAILED)
        }
        Err(cause) => Answer::failed(FAILED).because(cause),
    }
}

pub(super) async fn delreplica(session: &Session, args: &[&str]) -> Answer {
    let [tid, pid, endpoint, ..] = args else { return Answer::failed("Bad delreplica format") };
    match partition(tid, pid) {
        Ok((tid, pid)) => del_replica(session, tid, pid, endpoint).await,
        Err(text) => Answer::failed(text),
    }
}

/// A tablet has no replica of a partition any more.
async fn del_replica(session: &Session, tid: u32, pid: u32, endpoint: &str) -> Answer {
    const FAILED: &str = "Fail to Del Replica";
    match nameservers(session).await {
        Ok((admin, _)) => {
            let said = admin.del_replica(table(tid), vec![pid], endpoint).await;
            answer(said, "DelReplica ok", FAILED)
        }
        Err(cause) => Answer::failed(FAILED).because(cause),
    }
}

pub(super) async fn setttl(session: &Session, args: &[&str]) -> Answer {
    let [tid, pid, rest @ ..] = args else { return Answer::failed(SETTTL_USAGE) };
    let read = match (unsigned(tid), unsigned::<u32>(pid)) {
        (Some(tid), Some(_)) => ttl(rest).map(|(ttl, index)| (tid, ttl, index)),
        _ if rest.len() < 2 => Err(SETTTL_USAGE),
        _ => Err("Invalid args tid and pid should be uint32_t"),
    };
    match read {
        Ok((tid, ttl, index)) => set_ttl(session, tid, ttl, index).await,
        Err(text) => Answer::failed(text),
    }
}

/// `absolute|latest n [index]`, `absandlat|absorlat n n [index]`. Any other word is an error: OpenMLDB would keep no row.
fn ttl<'a>(words: &[&'a str]) -> Result<(Ttl, Option<&'a str>), &'static str> {
    let number = |text| unsigned(text).ok_or("Invalid args ttl which should be uint64_t");
    let (kind, abs, lat, index) = match *words {
        ["absolute", abs, ref rest @ ..] => (TtlKind::Absolute, number(abs)?, 0, rest),
        ["latest", lat, ref rest @ ..] => (TtlKind::Latest, 0, number(lat)?, rest),
        ["absandlat", abs, lat, ref rest @ ..] => {
            (TtlKind::AbsAndLat, number(abs)?, number(lat)?, rest)
        }
        ["absorlat", abs, lat, ref rest @ ..] => {
            (TtlKind::AbsOrLat, number(abs)?, number(lat)?, rest)
        }
        _ => return Err(SETTTL_USAGE),
    };
    Ok((Ttl { kind, abs, lat }, index.first().copied()))
}

/// The rows of an index live for so long; no index: of each. It holds for the whole table.
async fn set_ttl(session: &Session, tid: u32, ttl: Ttl, index: Option<&str>) -> Answer {
    let index = index.unwrap_or_default().to_owned();
    let change = Change::Ttl(ns::SetTtl { ttl: Some(wire::ttl(&ttl)), index });
    alter(session, tid, change, "Set ttl ok !", "Set ttl failed! ").await
}

async fn alter(session: &Session, tid: u32, change: Change, ok: &str, failed: &str) -> Answer {
    match nameservers(session).await {
        Ok((admin, _)) => answer(admin.alter_table(table(tid), change).await, ok, failed),
        Err(cause) => Answer::failed(failed).because(cause),
    }
}

pub(super) async fn deleteindex(session: &Session, args: &[&str]) -> Answer {
    let [tid, pid, index] = args else {
        let lines = ["Bad format", "usage: deleteindex tid pid index_name"];
        let parts = lines.map(|line| Part::Line(line.into())).into();
        return Answer { parts, failed: true, ..Answer::default() };
    };
    match partition(tid, pid) {
        Ok((tid, _)) => delete_index(session, tid, index).await,
        Err(text) => Answer::failed(text),
    }
}

/// An index of a table goes.
async fn delete_index(session: &Session, tid: u32, index: &str) -> Answer {
    let change = Change::DeleteIndex(index.to_owned());
    alter(session, tid, change, "delete index ok", "Fail to delete index. error msg: ").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live() {
        let read = |text: &'static str| {
            let words: Vec<&str> = text.split(' ').collect();
            ttl(&words).map(|(ttl, index)| (ttl.to_string(), index))
        };
        assert_eq!(read("absolute 10"), Ok(("10min".into(), None)));
        assert_eq!(read("latest 3 i"), Ok(("3".into(), Some("i"))));
        assert_eq!(read("absandlat 10 3 i"), Ok(("10min&&3".into(), Some("i"))));
        assert_eq!(read("absorlat 10 3"), Ok(("10min||3".into(), None)));
        for bad in ["absolute", "absandlat 10", "later 10"] {
            assert_eq!(read(bad), Err(SETTTL_USAGE));
        }
        assert_eq!(read("latest x"), Err("Invalid args ttl which should be uint64_t"));
    }
}
