//! R7, R8: who is proposed to come and to go, and how often.

use super::*;

fn leader(in_sync: &[u32]) -> Bench {
    let mut b = Bench::new(stored(1, &[1]));
    b.leading(5, 2, in_sync);
    b
}

fn verdict(b: &mut Bench, version: u64, in_sync: &[u32], applied: bool) -> Vec<Output> {
    b.step(Input::Verdict { expected: Version(version), in_sync: members(in_sync), applied })
}

/// H39: at once, with what the proposal builds on.
#[test]
fn a_member_whose_connection_breaks_is_proposed_for_removal_at_once() {
    let mut b = leader(&[1, 2, 3]);
    let propose =
        Output::Propose { epoch: Epoch(2), expected: Version(5), in_sync: members(&[1, 2]) };
    assert_eq!(b.disconnect(3), [propose]);
}

/// The last other one has two attempts to come back first.
#[test]
fn the_last_other_member_is_removed_when_it_stays_away() {
    let mut b = leader(&[1, 2]);
    assert_eq!(b.disconnect(2), []);
    assert_eq!(b.pass(50), []);
    b.connect(2);
    assert_eq!(proposed(&b.pass_heard(200, &[2])), [] as [Vec<u32>; 0]);
    b.disconnect(2);
    assert_eq!(proposed(&b.pass(100)), [vec![1]]);
}

#[test]
fn a_member_that_never_came_is_removed_after_the_lag() {
    let mut b = Bench::new(stored(1, &[1]));
    b.decide(view(5, 2, ME, &[1, 2]));
    b.sync();
    assert_eq!(b.pass(950), []);
    assert_eq!(proposed(&b.pass(50)), [vec![1]]);
}

/// Behind is who lacks something for too long, not who lacks the latest.
#[test]
fn a_member_that_lags_is_removed_after_the_lag() {
    let mut b = leader(&[1, 2, 3]);
    for offset in 2..40 {
        b.write();
        b.ack(2, 2, 1, offset);
        b.ack(3, 2, 1, offset - 1);
        assert_eq!(proposed(&b.pass_heard(50, &[2, 3])), [] as [Vec<u32>; 0]);
    }
    b.ack(3, 2, 1, 39);
    b.pass_heard(100, &[2, 3]);
    b.write();
    b.ack(2, 2, 1, 40);
    assert_eq!(proposed(&b.pass_heard(1000, &[2, 3])), [] as [Vec<u32>; 0]);
    assert_eq!(proposed(&b.pass_heard(100, &[2, 3])), [vec![1, 2]]);
}

/// A follower that hangs stalls reads: it goes even if nothing is written.
#[test]
fn a_member_that_is_silent_is_removed_after_the_lag_and_comes_back_when_it_is_heard() {
    let mut b = leader(&[1, 2, 3]);
    assert!(!b.replica.idle(), "it watches");
    assert_eq!(b.pass_heard(950, &[2]), []);
    assert_eq!(proposed(&b.pass_heard(50, &[2])), [vec![1, 2]]);
    b.decide(view(6, 2, ME, &[1, 2]));
    assert_eq!(b.pass_heard(2000, &[2]), [], "it hangs, whatever it acknowledged before");
    assert_eq!(proposed(&b.pass_heard(50, &[2, 3])), [vec![1, 2, 3]]);
}

/// Time in which this process did not run counts against nobody.
#[test]
fn a_pause_of_the_leader_itself_removes_nobody() {
    let mut b = leader(&[1, 2, 3]);
    b.now = b.now.plus(5000);
    assert_eq!(b.step(Input::Tick), []);
    assert_eq!(b.pass(900), []);
    assert_eq!(proposed(&b.pass(100)), [vec![1]]);
}

/// R14: marked by the meta group.
#[test]
fn an_untrusted_member_is_removed_at_once() {
    let mut b = leader(&[1, 2, 3]);
    let mut decided = view(6, 2, ME, &[1, 2, 3]);
    decided.in_sync[2].untrusted = true;
    assert_eq!(proposed(&b.decide(decided)), [vec![1, 2]]);
}

/// R7: one proposal at a time, unchanged, until the version moves. A timeout changes nothing.
#[test]
fn a_proposal_is_repeated_unchanged() {
    let mut b = leader(&[1, 2, 3]);
    let first = b.disconnect(3);
    assert_eq!(b.disconnect(2), [], "one at a time");
    assert_eq!(b.pass(450), []);
    assert_eq!(b.pass(50), first);
    assert_eq!(b.pass(500), first);
    assert_eq!(verdict(&mut b, 5, &[1, 2], true), [], "its view is to come");
    assert_eq!(proposed(&b.decide(view(6, 2, ME, &[1, 2]))), [vec![1]]);
}

/// A rejection closes the proposal that it answers, and no other one.
#[test]
fn a_rejection_is_heeded_for_a_while() {
    let mut b = leader(&[1, 2, 3]);
    let first = b.disconnect(3);
    assert_eq!(verdict(&mut b, 4, &[1, 2], false), []);
    assert_eq!(verdict(&mut b, 5, &[1, 3], false), []);
    assert_eq!(b.pass_heard(500, &[2]), first, "still open, and repeated");
    assert_eq!(verdict(&mut b, 5, &[1, 2], false), []);
    assert_eq!(b.pass_heard(450, &[2]), []);
    assert_eq!(b.pass_heard(50, &[2]), first);
}

/// H5: an answer to an earlier proposal must not make a candidate forgotten that may be in the set by now.
#[test]
fn a_late_rejection_of_another_set_does_not_close_an_addition() {
    let mut b = leader(&[1, 2]);
    b.connect(3);
    b.permit(3);
    b.hello(3, 2, 1, &[1]);
    b.ack(3, 2, 1, 1);
    assert_eq!(verdict(&mut b, 5, &[1], false), []);
    b.write();
    assert_eq!(acknowledged(&b.ack(2, 2, 1, 2)), None, "3 counts");
    assert_eq!(
        acknowledged(&verdict(&mut b, 5, &[1, 2, 3], false)),
        Some(2),
        "3 never comes by this one"
    );
}

/// R8: not before the barrier, not below the commit offset, not unheard, not held; and as the run that has joined.
#[test]
fn a_follower_is_added_when_it_has_what_is_committed() {
    let mut b = leader(&[1, 2]);
    b.write();
    b.ack(2, 2, 1, 2);
    let incarnation = Incarnation(301);
    b.step(Input::Connected { conn: conn(3), peer: TabletId(3), incarnation });
    b.hello(3, 2, 1, &[1]);
    b.permit(3);
    assert_eq!(b.ack(3, 2, 1, 1), [], "behind");
    let added = Member { tablet: TabletId(3), incarnation, untrusted: false };
    let in_sync = vec![member(1), member(2), added];
    let propose = Output::Propose { epoch: Epoch(2), expected: Version(5), in_sync };
    assert_eq!(b.ack(3, 2, 1, 2), [propose]);

    let mut b = leader(&[1, 2]);
    let mut held = view(6, 2, ME, &[1, 2]);
    held.held = vec![TabletId(3)];
    b.decide(held);
    b.connect(3);
    b.permit(3);
    b.hello(3, 2, 1, &[1]);
    assert_eq!(b.ack(3, 2, 1, 1), [], "held");
    assert_eq!(proposed(&b.decide(view(7, 2, ME, &[1, 2]))), [vec![1, 2, 3]]);
}

#[test]
fn nobody_is_added_before_the_barrier() {
    let mut b = Bench::new(stored(1, &[1]));
    b.decide(view(5, 2, ME, &[1, 2]));
    b.sync();
    b.connect(2);
    b.connect(3);
    b.permit(3);
    b.hello(3, 2, 1, &[1]);
    assert_eq!(b.ack(3, 2, 1, 1), []);
    b.hello(2, 2, 1, &[1]);
    assert_eq!(proposed(&b.ack(2, 2, 1, 1)), [vec![1, 2, 3]]);
}

/// A connection that breaks again and again must not cost the meta group a command each time.
#[test]
fn who_was_removed_comes_back_after_a_while() {
    let mut b = leader(&[1, 2, 3]);
    b.disconnect(3);
    b.decide(view(6, 2, ME, &[1, 2]));
    b.connect(3);
    b.hello(3, 2, 2, &[1]);
    b.ack(3, 2, 2, 1);
    assert_eq!(proposed(&b.pass_heard(950, &[2, 3])), [] as [Vec<u32>; 0]);
    assert_eq!(proposed(&b.pass_heard(50, &[2, 3])), [vec![1, 2, 3]]);
}

/// A follower that knows of a higher epoch: nothing that is proposed in this one can succeed.
#[test]
fn a_leader_that_is_superseded_proposes_nothing() {
    let mut b = leader(&[1, 2, 3]);
    b.left(3, 3);
    assert_eq!(b.disconnect(2), []);
    assert_eq!(b.pass(3000), [] as [Output; 0]);
}

/// A replica that the partition has no longer is not shipped to.
#[test]
fn a_replica_that_is_gone_is_left_alone() {
    let mut b = leader(&[1, 2]);
    b.connect(3);
    b.hello(3, 2, 1, &[1]);
    let mut without = view(6, 2, ME, &[1, 2]);
    without.replicas.pop();
    assert_eq!(b.decide(without), [Output::StopShip(conn(3))]);
    assert_eq!(b.replica.followers().count(), 1);
}

/// Alone, with nobody to come and nothing to wait for, it needs no time.
#[test]
fn a_leader_alone_is_idle() {
    let mut b = leader(&[1]);
    assert!(!b.replica.idle(), "what it inherited is not acknowledged without a lease");
    b.lease(2000);
    assert!(b.replica.idle());
    b.admit().unwrap();
    assert!(!b.replica.idle());
    b.sync();
    assert!(b.replica.idle());
    b.connect(2);
    assert!(!b.replica.idle());
}
