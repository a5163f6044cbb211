//! Snapshots of one replica: `makesnapshot`, `pausesnapshot`, `recoversnapshot`, `sendsnapshot`.

use stela_proto::tablet as pb;

use super::{Session, line, partition};
use crate::print::Answer;

/// The tablet gives up waiting so long before its client does, ms: then it can say how far the follower is.
const BEFORE: u64 = 1000;

pub(super) async fn makesnapshot(session: &Session, args: &[&str]) -> Answer {
    let (tid, pid) = match named(args, "Bad MakeSnapshot format") {
        Ok(both) => both,
        Err(text) => return Answer::failed(text),
    };
    let request = pb::MakeSnapshotRequest { tid, pid };
    let made = session.ask(async |mut c| c.make_snapshot(request).await).await;
    line(made, "MakeSnapshot ok", "Fail to MakeSnapshot")
}

pub(super) async fn pausesnapshot(session: &Session, args: &[&str]) -> Answer {
    let (tid, pid) = match named(args, "Bad PauseSnapshot format") {
        Ok(both) => both,
        Err(text) => return Answer::failed(text),
    };
    let request = pb::ReplicaRequest { tid, pid };
    let paused = session.ask(async |mut c| c.pause_snapshot(request).await).await;
    line(paused, "PauseSnapshot ok", "Fail to PauseSnapshot")
}

pub(super) async fn recoversnapshot(session: &Session, args: &[&str]) -> Answer {
    let (tid, pid) = match named(args, "Bad RecoverSnapshot format") {
        Ok(both) => both,
        Err(text) => return Answer::failed(text),
    };
    let request = pb::ReplicaRequest { tid, pid };
    let recovered = session.ask(async |mut c| c.recover_snapshot(request).await).await;
    line(recovered, "RecoverSnapshot ok", "Fail to RecoverSnapshot")
}

pub(super) async fn sendsnapshot(session: &Session, args: &[&str]) -> Answer {
    let usage = "Bad SendSnapshot format";
    let (both, Some(endpoint)) = (named(args, usage), args.get(2)) else {
        return Answer::failed(usage);
    };
    let (tid, pid) = match both {
        Ok(both) => both,
        Err(text) => return Answer::failed(text),
    };
    let patience = u64::try_from(session.timeout.as_millis()).unwrap_or(u64::MAX);
    let wait_ms = u32::try_from(patience.saturating_sub(BEFORE).max(1)).unwrap_or(u32::MAX);
    let request = pb::SendSnapshotRequest { tid, pid, endpoint: (*endpoint).into(), wait_ms };
    let sent = session.ask(async |mut c| c.send_snapshot(request).await).await;
    line(sent, "SendSnapshot ok", "Fail to SendSnapshot")
}

/// The partition that the first two words name.
fn named(args: &[&str], usage: &'static str) -> Result<(u32, u32), &'static str> {
    let [tid, pid, ..] = args else { return Err(usage) };
    partition(tid, pid)
}
