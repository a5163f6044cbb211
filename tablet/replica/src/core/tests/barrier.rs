//! R10, R11: when a new leader begins to serve.

use super::*;

#[test]
fn serves_when_the_whole_commit_set_has_its_log_in_this_epoch() {
    let mut b = Bench::new(Stored { commit: Offset(1), ..stored(1, &[1, 1, 1]) });
    b.decide(view(5, 2, ME, &[1, 2, 3]));
    b.sync();
    for follower in [2, 3] {
        b.connect(follower);
        b.hello(follower, 2, 1, &[1, 1]);
    }
    assert_eq!(b.ack(2, 2, 1, 3), []);
    assert_eq!(b.ack(3, 2, 1, 2), []);
    assert_eq!(b.admit(), Err(Refusal::NotServing));
    assert_eq!(b.may_read(), Err(Refusal::NotServing));
    let serving = Output::Serving { epoch: Epoch(2), start: Offset(3) };
    let commits = [commit_of(2, 2, 3), commit_of(3, 2, 3)];
    let mut expected = vec![serving, Output::Committed(Offset(3))];
    expected.extend(commits);
    expected.push(Output::Acknowledged(Offset(3)));
    assert_eq!(b.ack(3, 2, 1, 3), expected);
    assert_eq!(
        b.admit().map(|a| (a.offset, a.epoch, a.commit)),
        Ok((Offset(4), Epoch(2), Offset(3)))
    );
}

/// An empty log, too, is to be confirmed: silence is no confirmation.
#[test]
fn an_empty_log_is_confirmed_like_any_other() {
    let mut b = Bench::new(Stored::default());
    b.decide(view(5, 1, ME, &[1, 2]));
    b.sync();
    b.connect(2);
    b.hello(2, 1, 1, &[]);
    assert!(!b.replica.serving());
    assert_eq!(b.ack(2, 1, 1, 0), [Output::Serving { epoch: Epoch(1), start: Offset(0) }]);
}

/// A member that has not confirmed may have left by a committed removal instead.
#[test]
fn a_member_that_was_removed_is_waited_for_no_longer() {
    let mut b = Bench::new(stored(1, &[1]));
    b.leading(5, 2, &[1, 2]);
    let mut b = Bench::new(stored(1, &[1]));
    b.decide(view(5, 2, ME, &[1, 2, 3]));
    b.sync();
    b.connect(2);
    b.hello(2, 2, 1, &[1]);
    assert_eq!(b.ack(2, 2, 1, 1), []);
    assert_eq!(proposed(&b.pass_heard(1000, &[2])), [vec![1, 2]]);
    assert!(!b.replica.serving(), "proposed is not committed");
    assert!(serves(&b.decide(view(6, 2, ME, &[1, 2]))));
}

/// R11: it waits out the permits that it gave as a follower, but not those given after it had left.
#[test]
fn waits_for_the_last_permit_it_gave_before_it_left() {
    let mut b = Bench::new(stored(1, &[1]));
    b.follow(2, 2, 1);
    b.grants.grant(TabletId(2), Millis(LATER + 100));
    b.now = Millis(LATER + 150);
    let left = said_to_leader(2, ToLeader::Left { epoch: Epoch(3) });
    assert_eq!(b.decide(view(8, 3, 3, &[1, 3])), [left]);
    // The two lead other partitions and grant each other on and on.
    b.grants.grant(TabletId(2), Millis(LATER + 390));
    b.now = Millis(LATER + 400);
    assert!(!serves(&b.leading(9, 4, &[1])));
    b.now = Millis(LATER + 100 + 329);
    assert_eq!(b.step(Input::Tick), []);
    b.now = Millis(LATER + 100 + 330);
    assert!(serves(&b.step(Input::Tick)));
}

/// A connection that breaks ends what may be counted on it; what was granted before still counts here.
#[test]
fn waits_for_what_it_granted_on_a_connection_that_is_gone() {
    let mut b = Bench::new(stored(1, &[1]));
    b.follow(2, 2, 1);
    b.grants.grant(TabletId(2), Millis(LATER + 100));
    b.now = Millis(LATER + 120);
    b.disconnect(2);
    b.now = Millis(LATER + 200);
    assert!(!serves(&b.leading(9, 3, &[1])));
    assert!(!serves(&b.pass(200)));
    assert!(serves(&b.pass(50)));
}

/// After a restart nobody knows what the run before granted.
#[test]
fn after_a_start_it_waits_for_everybody() {
    let mut b = Bench::new(stored(1, &[1]));
    b.now = Millis(START + 10);
    assert!(!serves(&b.leading(9, 2, &[1])));
    assert!(!serves(&b.pass(300)));
    assert!(serves(&b.pass(50)));
}

/// A copy that was created a moment ago has permitted nothing to anybody.
#[test]
fn a_new_partition_is_served_at_once() {
    let mut b = Bench::new(Stored::default());
    let me = b.replica.base.me.clone();
    b.replica = Replica::new(me, Stored::default(), Millis(LATER));
    assert!(serves(&b.leading(9, 1, &[1])));
}

/// R12: the one that surrendered reads no more; others may.
#[test]
fn a_surrender_frees_from_the_wait_for_its_leader() {
    for (surrendered, at_once) in [(None, false), (Some(2), true), (Some(3), false)] {
        let mut b = Bench::new(stored(1, &[1]));
        b.follow(2, 2, 1);
        b.grants.grant(TabletId(2), Millis(LATER));
        let mut decided = view(9, 3, ME, &[1]);
        decided.surrendered = surrendered.map(TabletId);
        b.decide(decided);
        assert_eq!(serves(&b.sync()), at_once, "{surrendered:?}");
    }
}
