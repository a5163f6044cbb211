//! What was set aside can be listed and read.

use stela_common::code::Code;
use stela_proto::tablet as pb;

use crate::cluster::*;
use crate::nameserver::FakeNameserver;

#[tokio::test]
async fn a_tail_that_was_cut_can_be_listed_and_read() {
    let nameserver = FakeNameserver::start().await;
    let homes = [Home::new(&nameserver), Home::new(&nameserver)];
    let first = homes[0].start().await;
    let second = homes[1].start().await;
    nameserver.create(table(1, 2), &[1, 2]);
    nameserver.elect(TID, 1, &[1, 2]);
    until("it serves", || nameserver.report(1, TID, 0).serving).await;
    let mut leader = first.client().await;
    leader.store("k", 1, "both").await;
    // What the leader takes now it can neither commit nor have committed without its follower.
    nameserver.state.lock().deaf = true;
    second.kill().await;
    let mut looks = first.client().await;
    let two = put(vec![row("k", 2, "lost"), row("l", 3, "too")], (5, 1));
    let delete = pb::DeleteRequest {
        target: target(0),
        session: 6,
        seq: 1,
        dimensions: vec![pb::Dimension { index: 0, key: bytes::Bytes::from_static(b"k") }],
        ..Default::default()
    };
    let mut putting = first.client().await.0;
    let unacknowledged = tokio::spawn(async move { putting.put(two).await.is_ok() });
    while looks.status().await.offset < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let mut deleting = first.client().await.0;
    let nor_this = tokio::spawn(async move { deleting.delete(delete).await.is_ok() });
    while looks.status().await.offset < 3 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    first.kill().await;
    assert!(!unacknowledged.await.unwrap() && !nor_this.await.unwrap());
    nameserver.state.lock().deaf = false;
    let second = homes[1].start().await;
    nameserver.elect(TID, 2, &[2]);
    let mut leader = second.client().await;
    leader.store("k", 3, "kept").await;
    let first = homes[0].start().await;
    until("it has joined", || nameserver.in_sync(TID, 0).len() == 2).await;

    let mut client = first.client().await.0;
    let list = pb::LostListRequest { tid: Some(TID), ..Default::default() };
    let listed = client.lost_list(list.clone()).await.unwrap().into_inner();
    assert_eq!(said(&listed.status), OK);
    assert!(listed.finished);
    let [file] = &listed.files[..] else { panic!("{listed:?}") };
    assert_eq!((file.tid, file.pid, file.first, file.last), (TID, 0, 2, 3));
    assert_eq!((file.entries, file.rows, file.deletes, file.damage.as_str()), (2, 2, 1, ""));
    assert_eq!(file.name, format!("{TID}_0_2_2-3"));
    assert!(file.bytes > 0 && file.saved > 0);
    let after = pb::LostListRequest { after: file.name.clone(), ..list.clone() };
    assert_eq!(client.lost_list(after).await.unwrap().into_inner().files, []);
    let other = pb::LostListRequest { pid: Some(1), ..list };
    assert_eq!(client.lost_list(other).await.unwrap().into_inner().files, []);

    let read = pb::LostReadRequest { name: file.name.clone(), at: 0 };
    let reply = client.lost_read(read).await.unwrap().into_inner();
    assert_eq!((said(&reply.status), reply.next, reply.damage.as_str()), (OK, 0, ""));
    let [put, delete] = &reply.entries[..] else { panic!("{reply:?}") };
    assert_eq!((put.offset, put.epoch, put.session, put.seq), (2, 1, 5, 1));
    let rows: Vec<_> = put
        .rows
        .iter()
        .map(|r| (&r.dimensions[0].key[..], r.dimensions[0].ts, &r.value[..]))
        .collect();
    assert_eq!(rows, [(&b"k"[..], 2, &b"lost"[..]), (b"l", 3, b"too")]);
    assert_eq!((delete.offset, delete.session, delete.rows.len()), (3, 6, 0));
    assert_eq!(&delete.deletes[0].key[..], b"k");

    // Only files of that place, by their names.
    for name in ["", "../TABLET", "/etc/passwd", "7_0_1_2-4"] {
        let read = pb::LostReadRequest { name: name.into(), at: 0 };
        let refused = client.lost_read(read).await.unwrap().into_inner();
        assert_eq!(said(&refused.status).0, Code::InvalidParameter as i32, "{name}");
        assert!(said(&refused.status).1.contains("lost+found"), "{name}");
    }
    // A damaged one is shown as such.
    let path = homes[0].path().join("lost+found").join(&file.name);
    let mut raw = stela_common::fs::read(&path).unwrap();
    *raw.last_mut().unwrap() ^= 1;
    stela_common::fs::write(&path, raw).unwrap();
    let list = client.lost_list(pb::LostListRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.files[0].entries, 1);
    assert!(list.files[0].damage.contains("checksum"), "{list:?}");
}
