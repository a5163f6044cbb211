//! R5, R28: records that continue the log, and what becomes visible of them.

use super::*;

fn append(write: u64, from: usize, to: usize) -> Output {
    Output::Append { write: Write(write), from, to }
}

/// A follower that has joined leader 2 in epoch 2 with two entries of epoch 1.
fn joined() -> (Bench, u64) {
    let mut b = Bench::new(stored(1, &[1, 1]));
    let nonce = b.follow(2, 2, 2);
    (b, nonce)
}

#[test]
fn records_are_acknowledged_when_they_are_synced() {
    let (mut b, nonce) = joined();
    assert_eq!(b.records(2, 2, (2, 1), &[2, 2], 0), [append(2, 0, 2)]);
    assert_eq!(b.records(2, 2, (4, 2), &[2], 0), [append(3, 0, 1)]);
    assert_eq!(b.synced(2), [ack_of(2, 2, nonce, 4)]);
    assert_eq!(b.synced(3), [ack_of(2, 2, nonce, 5)]);
    assert_eq!(b.synced(3), [], "nothing new");
}

/// A table that syncs at intervals is acknowledged when written, but epochs and cuts are synced all the same.
#[test]
fn interval_tables_acknowledge_what_is_written() {
    let mut b = Bench::<Sound>::of(stored(1, &[1, 1]), |me| me.options.sync = Sync::Interval(100));
    b.lead(2, 2);
    let nonce = nonce_of(&b.synced(1)).unwrap();
    assert_eq!(b.point(2, 2, nonce, 1), [Output::Truncate { write: Write(2), to: Offset(1) }]);
    assert_eq!(b.records(2, 2, (1, 1), &[2], 0), [append(3, 0, 1)]);
    assert_eq!(b.synced(2), [ack_of(2, 2, nonce, 2)]);
    assert_eq!(b.records(2, 2, (2, 2), &[2], 0), [append(4, 0, 1), ack_of(2, 2, nonce, 3)]);
}

#[test]
fn what_is_present_is_skipped() {
    let (mut b, _) = joined();
    assert_eq!(b.records(2, 2, (0, 0), &[1, 1], 0), []);
    assert_eq!(b.records(2, 2, (1, 1), &[1, 2], 0), [append(2, 1, 2)]);
    assert_eq!(b.replica.last(), Offset(3));
    assert_eq!(b.records(2, 2, (0, 0), &[1, 1, 2], 0), []);
}

/// A gap, another entry before, or another one in the same place: the leader is asked anew, on the same connection.
#[test]
fn what_does_not_continue_the_log_makes_the_follower_join_anew() {
    let bad: [((u64, u64), &[u64]); 5] =
        [((3, 2), &[2]), ((2, 2), &[2]), ((1, 1), &[2, 2]), ((0, 1), &[1, 1]), ((2, 1), &[3])];
    for (prev, epochs) in bad {
        let (mut b, nonce) = joined();
        let out = b.records(2, 2, prev, epochs, 2);
        assert_eq!(nonce_of(&out), Some(nonce + 1), "{prev:?} {epochs:?}: {out:?}");
        assert_eq!(out.len(), 1, "{out:?}");
        assert_eq!(b.replica.last(), Offset(2));
        // What is still on its way is not judged before the answer is there.
        assert_eq!(b.records(2, 2, (2, 1), &[2], 2), []);
        b.point(2, 2, nonce + 1, 2);
        assert!(!b.records(2, 2, (2, 1), &[2], 2).is_empty());
    }
}

/// Offsets that leave a hole inside a frame are no continuation either.
#[test]
fn a_frame_with_a_hole_is_not_taken() {
    let (mut b, nonce) = joined();
    let message = ToFollower::Records {
        epoch: Epoch(2),
        prev: (Offset(2), Epoch(1)),
        entries: vec![(Offset(3), Epoch(2)), (Offset(5), Epoch(2))],
        commit: Offset(0),
    };
    assert_eq!(nonce_of(&b.say(2, message)), Some(nonce + 1));
    assert_eq!(b.replica.last(), Offset(2));
}

/// R28: what the leader has committed, as far as it is here, and never backwards.
#[test]
fn shows_what_is_committed_and_here() {
    let (mut b, _) = joined();
    let commit = |n| ToFollower::Commit { epoch: Epoch(2), commit: Offset(n) };
    assert_eq!(b.say(2, commit(1)), [Output::Committed(Offset(1))]);
    assert_eq!(b.say(2, commit(9)), [Output::Committed(Offset(2))]);
    assert_eq!(b.say(2, commit(1)), []);
    assert_eq!(
        b.records(2, 2, (2, 1), &[2, 2], 3),
        [append(2, 0, 2), Output::Committed(Offset(3))]
    );
    assert_eq!(b.replica.commit(), Offset(3));
}

/// Before the common point is known, a leader's commit offset says nothing of this log (H33).
#[test]
fn shows_nothing_more_before_it_has_joined() {
    let mut b = Bench::new(stored(1, &[1, 1]));
    b.lead(2, 2);
    let nonce = nonce_of(&b.sync()).unwrap();
    let commit = ToFollower::Commit { epoch: Epoch(2), commit: Offset(2) };
    assert_eq!(b.say(2, commit.clone()), []);
    b.point(2, 2, nonce, 2);
    assert_eq!(b.say(2, commit), [Output::Committed(Offset(2))]);
}
