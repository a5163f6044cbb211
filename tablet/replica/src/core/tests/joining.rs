//! R4: where two logs part, and what is cut.

use super::*;

fn cut(write: u64, to: u64) -> Output {
    Output::Truncate { write: Write(write), to: Offset(to) }
}

/// A follower in epoch 3 that has said Hello; its log and its nonce.
fn asked(epochs: &[u64], commit: u64) -> (Bench, u64) {
    let mut b = Bench::new(Stored { commit: Offset(commit), ..stored(2, epochs) });
    b.lead(2, 3);
    let nonce = nonce_of(&b.synced(1)).unwrap();
    (b, nonce)
}

#[test]
fn a_leader_names_the_common_point_and_ships_from_there() {
    let mut b = Bench::new(stored(2, &[1, 1, 2, 2]));
    b.leading(9, 4, &[1, 3]);
    b.connect(2);
    let out = b.hello(2, 4, 77, &[1, 1, 2, 3, 3]);
    let point =
        ToFollower::CommonPoint { epoch: Epoch(4), nonce: 77, offset: Offset(3), unclean: false };
    let ship = Output::Ship { conn: conn(2), from: Offset(4), prev: (Offset(3), Epoch(2)) };
    assert_eq!(out, [said_to_follower(2, point), ship, commit_of(2, 4, 4)]);
}

/// The cut is on disk before anything is acknowledged; then all of the log is.
#[test]
fn a_follower_cuts_what_lies_beyond_and_acknowledges_when_that_is_synced() {
    let (mut b, nonce) = asked(&[1, 1, 2, 2], 1);
    assert_eq!(b.point(2, 3, nonce, 3), [cut(2, 3)]);
    assert_eq!(b.replica.last(), Offset(3));
    assert_eq!(b.synced(1), []);
    assert_eq!(b.synced(2), [ack_of(2, 3, nonce, 3)]);
}

#[test]
fn a_follower_with_nothing_to_cut_acknowledges_at_once_even_an_empty_log() {
    let (mut b, nonce) = asked(&[1, 1], 0);
    assert_eq!(b.point(2, 3, nonce, 2), [ack_of(2, 3, nonce, 2)]);
    let (mut b, nonce) = asked(&[], 0);
    assert_eq!(b.point(2, 3, nonce, 0), [ack_of(2, 3, nonce, 0)]);
}

/// H10: a second answer, or one to an earlier Hello, cuts nothing.
#[test]
fn the_log_is_cut_at_most_once_for_each_joining() {
    let (mut b, nonce) = asked(&[1, 1, 2, 2], 1);
    b.point(2, 3, nonce, 3);
    b.sync();
    assert_eq!(b.point(2, 3, nonce, 2), []);
    assert_eq!(b.replica.last(), Offset(3));
    // It joins anew, and the answer to the joining before comes late.
    let again = nonce_of(&b.lead(2, 3)).unwrap();
    assert_eq!(b.point(2, 3, nonce, 2), []);
    assert_eq!(b.point(2, 3, again, 3), [ack_of(2, 3, again, 3)]);
}

#[test]
fn what_was_acknowledged_in_this_epoch_is_never_cut() {
    let (mut b, nonce) = asked(&[1, 1], 0);
    b.point(2, 3, nonce, 2);
    let again = nonce_of(&b.lead(2, 3)).unwrap();
    let out = b.point(2, 3, again, 1);
    assert!(matches!(out.as_slice(), [Output::Quarantined(_)]), "{out:?}");
    assert_eq!(b.replica.last(), Offset(2));
    assert_eq!(b.lead(2, 3), [], "it takes no part any more");
}

/// Below the known commit offset only in an epoch that is recorded unclean (R16).
#[test]
fn what_is_committed_is_cut_only_when_that_is_on_record() {
    let (mut b, nonce) = asked(&[1, 1, 2], 2);
    let out = b.point(2, 3, nonce, 1);
    assert!(matches!(out.as_slice(), [Output::Quarantined(_)]), "{out:?}");
    let (mut b, nonce) = asked(&[1, 1, 2], 2);
    let point =
        ToFollower::CommonPoint { epoch: Epoch(3), nonce, offset: Offset(1), unclean: true };
    assert_eq!(b.say(2, point), [cut(2, 1)]);
}

/// A connection is never joined by what came on another one; when its own is gone, the leader is asked on the next.
#[test]
fn a_joining_belongs_to_its_connection() {
    let mut b = Bench::new(stored(1, &[1]));
    b.follow(2, 2, 1);
    let commit = ToFollower::Commit { epoch: Epoch(2), commit: Offset(1) };
    assert_eq!(b.say_on(2, Conn(22), commit.clone()), []);
    assert_eq!(b.say(2, commit), [Output::Committed(Offset(1))]);
    b.disconnect(2);
    let records = ToFollower::Records {
        epoch: Epoch(2),
        prev: (Offset(1), Epoch(1)),
        entries: vec![(Offset(2), Epoch(2))],
        commit: Offset(1),
    };
    let out = b.say_on(2, Conn(22), records);
    assert!(
        matches!(out.as_slice(), [Output::SendLeader(Conn(22), ToLeader::Hello { .. })]),
        "{out:?}"
    );
}

/// R3: an acknowledgement counts on its connection and for its joining only.
#[test]
fn a_leader_counts_the_joining_that_it_answered_last() {
    let mut b = Bench::new(stored(1, &[1]));
    b.leading(5, 2, &[1, 2]);
    b.write();
    assert_eq!(b.ack(2, 2, 9, 2), [], "another nonce");
    assert_eq!(b.ack(2, 1, 1, 2), [], "another epoch");
    assert_eq!(b.ack(2, 2, 1, 3), [], "more than there is");
    let stray = ToLeader::Ack { epoch: Epoch(2), nonce: 1, offset: Offset(2) };
    assert_eq!(
        b.step(Input::FromFollower { conn: Conn(22), message: stray }),
        [],
        "another connection"
    );
    b.hello(2, 2, 2, &[1]);
    assert_eq!(b.ack(2, 2, 1, 2), [], "the joining before");
    assert_eq!(acknowledged(&b.ack(2, 2, 2, 2)), Some(2));
}

/// A reconnection joins anew: what was acknowledged on the connection before does not count.
#[test]
fn a_new_connection_counts_from_its_own_joining() {
    let mut b = Bench::new(stored(1, &[1]));
    b.leading(5, 2, &[1, 2]);
    b.write();
    b.connect_on(2, Conn(22));
    assert_eq!(b.ack(2, 2, 1, 2), [], "the connection that it replaces");
    assert_eq!(b.disconnect(2), [], "its end concerns nobody");
}

/// A follower that does not acknowledge is told again who leads; one that has left is not.
#[test]
fn a_follower_that_does_not_join_is_told_again() {
    let mut b = Bench::new(stored(1, &[1]));
    b.leading(5, 2, &[1, 2]);
    b.connect(3);
    let told = said_to_follower(3, ToFollower::Lead { epoch: Epoch(2) });
    assert_eq!(b.pass_heard(450, &[2]), []);
    assert_eq!(b.pass_heard(50, &[2]), std::slice::from_ref(&told));
    b.left(3, 3);
    assert_eq!(b.pass_heard(600, &[2]), []);
}

/// A core that is made anew after a failed write counts nothing as synced before the log says so.
#[test]
fn what_a_predecessor_wrote_is_acknowledged_when_it_is_synced() {
    let mut b = Bench::new(Stored { written: Write(4), ..stored(2, &[1, 2]) });
    assert_eq!(b.lead(2, 2), []);
    let nonce = nonce_of(&b.synced(4)).unwrap();
    assert_eq!(b.point(2, 2, nonce, 2), [ack_of(2, 2, nonce, 2)]);
}

/// Found by the simulation: a late word on a connection that the leader had given up drew the joining there, and when it
/// ended the follower waited for the next write to join again where the leader counted on it.
#[test]
fn a_joining_that_was_drawn_to_an_old_connection_comes_back_when_that_one_ends() {
    let (mut b, nonce) = asked(&[1, 1], 1);
    b.point(2, 3, nonce, 2);
    let old = Conn(77);
    let late = ToFollower::Lead { epoch: Epoch(3) };
    assert!(nonce_of(&b.say_on(2, old, late)).is_some(), "it follows the last word");
    let out = b.step(Input::Disconnected(old));
    let again = nonce_of(&out).expect("it asks where the leader was greeted before");
    assert!(matches!(&out[..], [Output::SendLeader(on, _)] if *on == conn(2)), "{out:?}");
    assert_eq!(b.point(2, 3, again, 2), [ack_of(2, 3, again, 2)]);
    assert_eq!(b.step(Input::Disconnected(conn(2))), [], "nobody else was greeted");
}
