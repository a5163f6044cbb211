//! A table's options: who must have a write (R34), when it counts as stored, and that they change under a running core.

use super::*;

fn with(options: Options) -> Bench {
    Bench::of(stored(1, &[]), |me| me.options = options)
}

/// H29: the leader's word alone, and only while it has a lease.
#[test]
fn r34_the_leader_alone_acknowledges_what_it_has_synced_while_its_lease_holds() {
    let mut b = with(Options { ack: Ack::Leader, ..Options::default() });
    b.leading(5, 2, &[1, 2]);
    assert_eq!(b.replica.admit(Ack::Leader, b.now), Err(Refusal::LeaseExpired));
    assert_eq!(b.replica.stored(b.now), None);
    b.lease(2000);
    let admitted = b.replica.admit(Ack::Leader, b.now).unwrap();
    assert_eq!(b.replica.stored(b.now), Some(Offset(0)), "it is not synced");
    b.step(Input::Synced(admitted.write));
    assert_eq!(b.replica.stored(b.now), Some(Offset(1)));
    assert_eq!(b.replica.commit(), Offset(0), "nobody else has it");
    // Reads need the lease, and no permit.
    b.pass(400);
    assert_eq!(b.may_read(), Ok(()));
    b.pass(2000);
    assert_eq!(b.replica.stored(b.now), None);
    assert_eq!(b.may_read(), Err(Refusal::LeaseExpired));
}

#[test]
fn r34_who_does_not_serve_acknowledges_nothing() {
    let mut b = with(Options { ack: Ack::Leader, ..Options::default() });
    b.lease(2000);
    assert_eq!(b.replica.stored(b.now), None, "a follower");
    b.decide(view(5, 2, ME, &[1, 2]));
    b.sync();
    b.lease(2000);
    assert_eq!(b.replica.stored(b.now), None, "before the barrier (R10)");
}

/// H28 and the options of a table that change under a leader: what waits is judged by the new ones.
#[test]
fn options_hold_from_when_they_are_told() {
    let mut b = with(Options::default());
    b.leading(5, 2, &[1, 2]);
    let admitted = b.admit().unwrap();
    b.ack(2, 2, 1, 1);
    assert_eq!(b.replica.commit(), Offset(0), "not synced here");
    let interval = Options { sync: Sync::Interval(100), ..Options::default() };
    let out = b.step(Input::Options(interval));
    assert_eq!(acknowledged(&out), Some(1), "written is enough now");
    b.step(Input::Synced(admitted.write));
    b.step(Input::Options(Options { min_insync: 3, ..interval }));
    assert_eq!(b.admit(), Err(Refusal::NotEnoughInSync));
}

#[test]
fn a_follower_acknowledges_what_the_new_options_call_stored() {
    let mut b = with(Options::default());
    b.decide(view(5, 2, 2, &[1, 2]));
    let nonce = b.follow(2, 2, 0);
    assert!(!b.records(2, 2, (0, 0), &[2], 0).contains(&ack_of(2, 2, nonce, 1)));
    let out = b.step(Input::Options(Options { sync: Sync::Interval(9), ..Options::default() }));
    assert!(out.contains(&ack_of(2, 2, nonce, 1)), "{out:?}");
}
