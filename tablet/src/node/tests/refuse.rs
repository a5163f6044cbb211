//! What a leader does not take in: the answer says why, and nothing of it is stored.

use stela_common::code::Code;
use stela_common::fs::Recorder;
use stela_common::table::{Options, limits};

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use stela_proto::tablet::tablet_server::Tablet as _;

use super::*;
use crate::service::{PARKED, Service};
use crate::write::{WAITING, WAITING_BYTES};

fn put(key: &str, value: Bytes) -> Request {
    let target = Some(pb::Target { tid: KEY.tid.0, pid: KEY.pid.0, epoch: 0 });
    Request::Put(pb::PutRequest { target, rows: vec![row(key, 1, &value)], ..Default::default() })
}

fn offer(inbox: &Inbox, request: Request) -> oneshot::Receiver<pb::PutReply> {
    let (sender, receiver) = oneshot::channel();
    inbox.offer(request, Caller::Unary(sender));
    receiver
}

fn code(reply: &pb::PutReply) -> Option<Code> {
    reply.status.as_ref().and_then(|s| Code::from_number(s.code))
}

/// R36: nothing is let in that could not be acknowledged.
#[tokio::test]
async fn a_write_below_min_insync_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = Running::on(Disk::real(), dir.path());
    let options = Options { min_insync: 2, ..Options::default() };
    run.lead_table(KEY, 1, Table { options, ..plain() }).await;
    let refused = run.say(put("k", Bytes::from_static(b"v"))).await;
    assert_eq!(code(&refused), Some(Code::NotEnoughInSync), "{refused:?}");
    let seen = seen(&run.node, KEY, &["k"]);
    assert_eq!((seen.rows, seen.last), (vec![], Offset(0)));
}

/// A leader that may not read for long does not gather readers without end.
#[tokio::test]
async fn more_reads_than_may_wait_are_answered_busy_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let run = Running::on(Disk::real(), dir.path());
    // The other one never comes: it leads, and does not serve.
    run.told_in_sync(KEY, (1, 1), &[ME, TabletId(2)], plain());
    until("it leads", || run.node.look().partitions[&KEY].core.leads()).await;
    let service = Service::new(run.node.clone(), run.inbox.clone());
    let get = || {
        let target = Some(pb::Target { tid: KEY.tid.0, pid: KEY.pid.0, epoch: 0 });
        let request = pb::GetRequest { target, key: "k".into(), ..Default::default() };
        let service = service.clone();
        async move { service.get(tonic::Request::new(request)).await }
    };
    let mut waiting: FuturesUnordered<_> = (0..PARKED).map(|_| get()).collect();
    assert!(waiting.next().now_or_never().is_none(), "all of them wait");
    let reply = get().now_or_never().expect("it does not wait").unwrap().into_inner();
    let said = reply.status.and_then(|s| Code::from_number(s.code));
    assert_eq!(said, Some(Code::Busy));
}

/// Nobody drains it: what waits is bounded by its bytes.
#[tokio::test]
async fn a_full_inbox_answers_busy_at_once() {
    let inbox = Inbox::default();
    let value = Bytes::from(vec![7; limits::VALUE]);
    let mut taken = Vec::new();
    while (taken.len() + 1) * value.len() < WAITING_BYTES {
        let mut answer = offer(&inbox, put("k", value.clone()));
        assert!(answer.try_recv().is_err(), "it waits");
        taken.push(answer);
    }
    assert!(taken.len() > 1);
    let answer = offer(&inbox, put("k", value)).await.unwrap();
    assert_eq!(code(&answer), Some(Code::Busy));
    assert!(taken.iter_mut().all(|answer| answer.try_recv().is_err()), "the others wait on");
}

/// A disk that stands still does not fill the memory with callers.
#[tokio::test]
async fn a_partition_on_which_too_many_wait_answers_busy_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new());
    // All of it goes into one segment: no append waits for the disk.
    let config = Config { segment_bytes: 64 << 20, ..config(dir.path()) };
    let run = Running::new(open_on(Disk::recording(recorder.clone()), config));
    run.lead(KEY, 1).await;
    recorder.slow(true);
    let mut answers = Vec::new();
    while run.node.look().partitions[&KEY].waiters.len() < WAITING {
        assert!(answers.len() < 2 * WAITING, "it does not even admit them");
        answers.extend((0..1000).map(|_| offer(&run.inbox, put("k", Bytes::from_static(b"v")))));
        tokio::task::yield_now().await;
    }
    let refused = run.say(put("k", Bytes::from_static(b"v"))).await;
    assert_eq!(code(&refused), Some(Code::Busy));
    recorder.slow(false);
    for answer in answers {
        assert!(matches!(code(&answer.await.unwrap()), Some(Code::Ok | Code::Busy)));
    }
    assert!(run.put("k", 2, b"room again").await > WAITING as u64);
}
