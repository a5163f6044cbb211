//! R1, R2, R7: who leads, and when it may say so.

use super::*;

fn store(write: u64, epoch: u64, first: u64, leads: bool) -> Output {
    Output::StoreEpoch { write: Write(write), epoch: Epoch(epoch), first: Offset(first), leads }
}

/// R1, R2: nothing is said in an epoch before it is on disk.
#[test]
fn a_leader_speaks_when_its_epoch_is_synced() {
    let mut b = Bench::new(stored(1, &[1, 1]));
    assert_eq!(b.decide(view(5, 2, ME, &[1, 2])), [store(1, 2, 3, true)]);
    assert!(b.replica.leads() && !b.replica.serving());
    assert_eq!(b.connect(2), []);
    assert_eq!(b.synced(1), [said_to_follower(2, ToFollower::Lead { epoch: Epoch(2) })]);
    assert_eq!(b.connect(3), [said_to_follower(3, ToFollower::Lead { epoch: Epoch(2) })]);
}

/// R2, R4: the same for a follower; the epoch that it has stored already it answers at once.
#[test]
fn a_follower_answers_when_the_epoch_is_synced() {
    let mut b = Bench::new(stored(1, &[1, 1]));
    assert_eq!(b.lead(2, 2), [store(1, 2, 3, false)]);
    assert_eq!(b.lead(2, 2), [], "told again before the disk is done");
    let (history, last) = log(&[1, 1]);
    let hello = |nonce| ToLeader::Hello {
        epoch: Epoch(2),
        nonce,
        history: history.clone(),
        last,
        rebuild: false,
    };
    let out = b.synced(1);
    let nonce = nonce_of(&out).unwrap();
    assert_eq!(out, [said_to_leader(2, hello(nonce))]);
    let out = b.say_on(2, Conn(22), ToFollower::Lead { epoch: Epoch(2) });
    assert_eq!(
        out,
        [Output::SendLeader(Conn(22), hello(nonce + 1))],
        "another connection is joined anew"
    );
}

/// R1 (H3): a leadership belongs to one run; its successor needs a new epoch.
#[test]
fn a_restarted_leader_does_not_go_on() {
    let mut b = Bench::new(stored(5, &[5]));
    let mut former = view(9, 5, ME, &[1, 2]);
    former.leader_incarnation = Incarnation(7);
    assert_eq!(b.decide(former.clone()), []);
    assert!(!b.replica.leads());
    assert_eq!(b.replica.leader(), None, "it would be this tablet, and is not");
    // Late or repeated: the epoch is stored already, or it names a former run.
    former.version = Version(10);
    former.leader_incarnation = run(ME);
    assert_eq!(b.decide(former), []);
    let mut other = view(11, 6, ME, &[1, 2]);
    other.leader_incarnation = Incarnation(7);
    assert_eq!(b.decide(other), []);
    assert!(!b.replica.leads());
    assert_eq!(b.decide(view(12, 7, ME, &[1, 2])), [store(1, 7, 2, true)]);
}

/// R7: an older word of a lagging nameserver changes nothing.
#[test]
fn versions_never_go_back() {
    let mut b = Bench::new(stored(1, &[1]));
    b.decide(view(5, 3, 2, &[2, 1]));
    assert_eq!(b.decide(view(4, 2, ME, &[1, 2])), []);
    assert_eq!(b.replica.view().map(|v| v.version), Some(Version(5)));
    assert_eq!(b.replica.leader(), Some((TabletId(2), run(2))));
}

#[test]
fn a_leader_steps_down_for_a_higher_epoch_from_the_nameserver_or_from_its_leader() {
    let mut b = Bench::new(stored(1, &[1]));
    b.leading(5, 2, &[1, 2]);
    assert_eq!(b.decide(view(6, 3, 2, &[1, 2])), [Output::SteppedDown]);
    assert!(!b.replica.leads());
    assert_eq!(b.admit(), Err(Refusal::NotLeader));

    let mut b = Bench::new(stored(1, &[1]));
    b.leading(5, 2, &[1, 2]);
    assert_eq!(b.lead(2, 3), [Output::SteppedDown, store(2, 3, 2, false)]);
    assert_eq!(b.replica.leader(), Some((TabletId(2), run(2))));
}

/// The connections stay, the joinings do not.
#[test]
fn a_leader_that_is_elected_again_joins_its_followers_anew() {
    let mut b = Bench::new(stored(1, &[1]));
    b.leading(5, 2, &[1, 2]);
    assert_eq!(b.decide(view(6, 3, ME, &[1, 2])), [Output::SteppedDown, store(2, 3, 2, true)]);
    assert_eq!(b.sync(), [said_to_follower(2, ToFollower::Lead { epoch: Epoch(3) })]);
    assert_eq!(b.ack(2, 2, 1, 1), [], "of the epoch before");
    assert!(!b.replica.serving());
}

/// R3: whoever leads in an epoch that is over is told so, and is not followed.
#[test]
fn a_leader_of_an_epoch_that_is_over_is_told_so() {
    let mut b = Bench::new(stored(3, &[1, 3]));
    assert_eq!(b.lead(2, 2), [said_to_leader(2, ToLeader::Left { epoch: Epoch(3) })]);
    b.decide(view(9, 4, 3, &[1, 3]));
    assert_eq!(
        b.lead(2, 3),
        [said_to_leader(2, ToLeader::Left { epoch: Epoch(4) })],
        "known, and not yet stored"
    );
    assert_eq!(b.records(2, 3, (2, 3), &[3], 0), []);
    assert_eq!(b.replica.last(), Offset(2));
}

/// R1: one leader for each epoch, as the meta group named it or as it was heard first.
#[test]
fn another_leader_of_the_same_epoch_is_not_followed() {
    let mut b = Bench::new(stored(1, &[1]));
    b.decide(view(5, 2, 2, &[1, 2]));
    assert_eq!(b.lead(3, 2), []);
    let mut b = Bench::new(stored(1, &[1]));
    b.follow(2, 2, 1);
    assert_eq!(b.lead(3, 2), []);
}

/// R30: a copy that is not proven whole does not lead.
#[test]
fn a_damaged_copy_takes_no_part() {
    let mut b = Bench::new(Stored { damaged: true, ..stored(1, &[1]) });
    assert_eq!(b.decide(view(5, 3, ME, &[1, 2])), []);
    assert!(!b.replica.leads());
    assert_eq!(b.admit(), Err(Refusal::Quarantined));
    assert_eq!(b.may_read(), Err(Refusal::Quarantined));
}
