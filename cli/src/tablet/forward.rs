//! What is asked of a tablet and decided by the nameservers: `changerole`, `addreplica`, `delreplica`, `setttl`,
//! `deleteindex`.
//!
//! A tablet gives itself no role and adds nothing to itself (R1, R22): it hands these on. The arguments are read here in the
//! words of each command; what is done with them is one function each.

use stela_common::table::{Ttl, TtlKind};

use super::{Session, partition};
use crate::print::{Answer, Part};
use crate::shell::unsigned;

/// Why none of them does anything yet.
const LATER: &str = "not wired yet";
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
    match rest.first().map(|term| unsigned(term)) {
        Some(None) => Answer::failed("Invalid args, termid should be uint64_t"),
        term => change_role(session, tid, pid, leads, term.flatten()).await,
    }
}

/// A replica leads, or does not any more; `term`: as the command has it.
async fn change_role(_: &Session, _: u32, _: u32, leads: bool, _: Option<u64>) -> Answer {
    let words = if leads { "Fail to change leader" } else { "Fail to change follower" };
    Answer::failed(words).because(LATER)
}

pub(super) async fn addreplica(session: &Session, args: &[&str]) -> Answer {
    let [tid, pid, endpoint, ..] = args else { return Answer::failed("Bad addreplica format") };
    match partition(tid, pid) {
        Ok((tid, pid)) => add_replica(session, tid, pid, endpoint).await,
        Err(text) => Answer::failed(text),
    }
}

/// A tablet gets a replica of a partition.
async fn add_replica(_: &Session, _: u32, _: u32, _: &str) -> Answer {
    Answer::failed("Fail to Add Replica").because(LATER)
}

pub(super) async fn delreplica(session: &Session, args: &[&str]) -> Answer {
    let [tid, pid, endpoint, ..] = args else { return Answer::failed("Bad delreplica format") };
    match partition(tid, pid) {
        Ok((tid, pid)) => del_replica(session, tid, pid, endpoint).await,
        Err(text) => Answer::failed(text),
    }
}

/// A tablet has no replica of a partition any more.
async fn del_replica(_: &Session, _: u32, _: u32, _: &str) -> Answer {
    Answer::failed("Fail to Del Replica").because(LATER)
}

pub(super) async fn setttl(session: &Session, args: &[&str]) -> Answer {
    let [tid, pid, rest @ ..] = args else { return Answer::failed(SETTTL_USAGE) };
    let read = match (unsigned(tid), unsigned(pid)) {
        (Some(tid), Some(pid)) => ttl(rest).map(|(ttl, index)| (tid, pid, ttl, index)),
        _ if rest.len() < 2 => Err(SETTTL_USAGE),
        _ => Err("Invalid args tid and pid should be uint32_t"),
    };
    match read {
        Ok((tid, pid, ttl, index)) => set_ttl(session, tid, pid, ttl, index).await,
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

/// The rows of an index live for so long; no index: of each.
async fn set_ttl(_: &Session, _: u32, _: u32, _: Ttl, _: Option<&str>) -> Answer {
    Answer::failed("Set ttl failed! ").because(LATER)
}

pub(super) async fn deleteindex(session: &Session, args: &[&str]) -> Answer {
    let [tid, pid, index] = args else {
        let lines = ["Bad format", "usage: deleteindex tid pid index_name"];
        let parts = lines.map(|line| Part::Line(line.into())).into();
        return Answer { parts, failed: true, ..Answer::default() };
    };
    match partition(tid, pid) {
        Ok((tid, pid)) => delete_index(session, tid, pid, index).await,
        Err(text) => Answer::failed(text),
    }
}

/// An index of a table goes.
async fn delete_index(_: &Session, _: u32, _: u32, _: &str) -> Answer {
    Answer::failed("Fail to delete index. error msg: ").because(LATER)
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
