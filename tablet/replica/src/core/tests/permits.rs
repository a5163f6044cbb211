//! R11: when a leader may read.

use stela_common::table::{Options, Read};

use super::*;

/// A leader with two followers in its set, all of which permit reads.
fn leader() -> Bench {
    let mut b = Bench::new(stored(1, &[1]));
    b.leading(5, 2, &[1, 2, 3]);
    assert_eq!(b.may_read(), Ok(()));
    b
}

#[test]
fn reads_while_every_member_permits() {
    let mut b = leader();
    b.now = b.now.plus(299);
    b.permit(2);
    assert_eq!(b.may_read(), Ok(()));
    b.now = b.now.plus(1);
    assert_eq!(b.may_read(), Err(Refusal::LeaseExpired), "3 has been silent for 300 ms");
    b.permit(3);
    assert_eq!(b.may_read(), Ok(()));
}

/// R38: a permit that was asked for before the read came says nothing, however fresh the clock believes it to be.
#[test]
fn r38_a_read_that_is_to_be_confirmed_needs_permits_asked_for_after_it_came() {
    let mut b = leader();
    b.step(Input::Options(Options { read: Read::Confirm, ..Options::default() }));
    b.permit(2);
    b.permit(3);
    let came = b.now;
    assert_eq!(b.may_read_since(came), Err(Refusal::LeaseExpired));
    b.now = b.now.plus(1);
    b.permit(2);
    assert_eq!(b.may_read_since(came), Err(Refusal::LeaseExpired), "3 has not been asked");
    b.permit(3);
    assert_eq!(b.may_read_since(came), Ok(()));
    // Time alone takes nothing away: it is no lease.
    b.now = b.now.plus(10_000);
    assert_eq!(b.may_read_since(came), Ok(()));
    assert_eq!(b.may_read_since(b.now), Err(Refusal::LeaseExpired), "the next read asks again");
}

#[test]
fn a_permit_of_a_connection_that_was_not_joined_is_none() {
    let mut b = leader();
    b.connect_on(2, Conn(22));
    b.permits.granted(Conn(22), b.now);
    assert_eq!(b.may_read(), Err(Refusal::LeaseExpired));
    let (history, last) = log(&[1]);
    let message = ToLeader::Hello { epoch: Epoch(2), nonce: 2, history, last, rebuild: false };
    b.step(Input::FromFollower { conn: Conn(22), message });
    assert_eq!(b.may_read(), Ok(()));
}

/// Grants go on for other partitions; in this one they mean nothing any more, nor does a Hello that was said before.
#[test]
fn who_has_left_permits_nothing() {
    let mut b = leader();
    assert_eq!(b.left(2, 3), [Output::StopShip(conn(2))]);
    b.permit(2);
    assert_eq!(b.may_read(), Err(Refusal::LeaseExpired));
    assert_eq!(b.hello(2, 2, 9, &[1]), []);
    assert_eq!(b.may_read(), Err(Refusal::LeaseExpired));
    assert_eq!(b.ack(2, 2, 1, 1), []);
}

/// What a follower said of an epoch that is over by now does not concern this one.
#[test]
fn a_late_word_of_an_earlier_epoch_is_not_heard() {
    let mut b = leader();
    assert_eq!(b.left(2, 2), []);
    assert_eq!(b.may_read(), Ok(()));
}

/// Whoever may be in the set by now must permit: also who is about to come, and who is about to go.
#[test]
fn who_is_proposed_must_permit_too() {
    let mut b = Bench::new(stored(1, &[1]));
    b.leading(5, 2, &[1, 2]);
    b.connect(3);
    b.permit(3);
    b.hello(3, 2, 1, &[1]);
    assert_eq!(proposed(&b.ack(3, 2, 1, 1)), [vec![1, 2, 3]]);
    b.now = b.now.plus(300);
    b.permit(2);
    assert_eq!(b.may_read(), Err(Refusal::LeaseExpired));
    b.permit(3);
    assert_eq!(b.may_read(), Ok(()));
    let mut b = leader();
    assert_eq!(proposed(&b.disconnect(3)), [vec![1, 2]]);
    assert_eq!(b.may_read(), Err(Refusal::LeaseExpired));
    b.decide(view(6, 2, ME, &[1, 2]));
    assert_eq!(b.may_read(), Ok(()));
}

/// A follower that learns of a higher epoch tells the leader wherever that counts on it.
#[test]
fn a_follower_says_that_it_leaves_on_every_connection_that_it_greeted() {
    let mut b = Bench::new(stored(1, &[1]));
    b.follow(2, 2, 1);
    b.say_on(2, Conn(22), ToFollower::Lead { epoch: Epoch(2) });
    let left = ToLeader::Left { epoch: Epoch(3) };
    let out = b.decide(view(9, 3, 3, &[1, 3]));
    assert_eq!(out, [said_to_leader(2, left.clone()), Output::SendLeader(Conn(22), left)]);
    assert_eq!(b.decide(view(10, 4, 3, &[1, 3])), [], "it was told already");
}

/// The same when the higher epoch's leader is heard first.
#[test]
fn a_follower_leaves_for_the_leader_of_a_higher_epoch() {
    let mut b = Bench::new(stored(1, &[1]));
    b.follow(2, 2, 1);
    let out = b.lead(3, 3);
    assert_eq!(out[0], said_to_leader(2, ToLeader::Left { epoch: Epoch(3) }));
    assert!(matches!(out[1], Output::StoreEpoch { .. }));
}
