//! Copies that cannot be continued from the leader's log: behind its floor, parting within their own snapshot, or not
//! whole (R29, R30).

use super::*;

fn stop_ship(follower: u32) -> Output {
    Output::StopShip(conn(follower))
}

fn told(follower: u32, epoch: u64) -> Output {
    said_to_follower(follower, ToFollower::Lead { epoch: Epoch(epoch) })
}

fn need(epoch: u64, nonce: u64, common: u64, offset: u64) -> ToFollower {
    let (common, offset) = (Offset(common), Offset(offset));
    ToFollower::NeedSnapshot { epoch: Epoch(epoch), nonce, common, offset, unclean: false }
}

fn fetch(leader: u32, common: u64, offset: u64) -> Output {
    let (peer, incarnation) = (TabletId(leader), run(leader));
    Output::FetchSnapshot { peer, incarnation, common: Offset(common), offset: Offset(offset) }
}

fn is_quarantined(out: &[Output]) -> bool {
    matches!(out, [Output::Quarantined(_)])
}

/// Leads in epoch 4 with four entries, the first two of which are in its snapshot only; tablet 2 is outside of the set.
fn leader() -> Bench {
    let floor = Offset(2);
    let mut b = Bench::new(Stored { floor, snapshot: floor, ..stored(2, &[1, 1, 2, 2]) });
    b.leading(9, 4, &[1, 3]);
    b.connect(2);
    b
}

/// What a follower says whose copy cannot be continued.
fn asks_to_be_rebuilt(b: &mut Bench, follower: u32, nonce: u64, epochs: &[u64]) -> Vec<Output> {
    let (history, last) = log(epochs);
    b.answer(follower, ToLeader::Hello { epoch: Epoch(4), nonce, history, last, rebuild: true })
}

#[test]
fn a_leader_ships_from_its_floor_on_and_names_a_snapshot_below() {
    let mut b = leader();
    let out = b.hello(2, 4, 7, &[1, 1]);
    assert!(out.contains(&Output::Ship {
        conn: conn(2),
        from: Offset(3),
        prev: (Offset(2), Epoch(1))
    }));
    let out = b.hello(2, 4, 8, &[1]);
    assert_eq!(out, [stop_ship(2), said_to_follower(2, need(4, 8, 1, 2))]);
    assert_eq!(b.ack(2, 4, 8, 1), [], "it has not joined");
    assert_eq!(b.pass_heard(450, &[2, 3]), []);
    assert_eq!(b.pass_heard(50, &[2, 3]), [told(2, 4)], "asked again, should the answer be lost");
}

/// Nothing that may be elected gives up what it has: it goes out of the set first.
#[test]
fn a_member_is_removed_before_it_is_told_to_give_up_its_copy() {
    let floor = Offset(2);
    let mut b = Bench::new(Stored { floor, snapshot: floor, ..stored(2, &[1, 1, 2, 2]) });
    b.leading(9, 4, &[1, 2, 3]);
    let out = asks_to_be_rebuilt(&mut b, 2, 7, &[1, 1, 2]);
    assert_eq!(proposed(&out), [vec![1, 2, 3]], "with a mark on it");
    assert_eq!(out[0], stop_ship(2));
    assert_eq!(out.len(), 2, "{out:?}");
    let mut marked = view(10, 4, ME, &[1, 2, 3]);
    marked.in_sync[1].untrusted = true;
    assert_eq!(proposed(&b.decide(marked)), [vec![1, 3]]);
    // The removal is open: it may never have been applied.
    assert_eq!(asks_to_be_rebuilt(&mut b, 2, 8, &[1, 1, 2]), [stop_ship(2)]);
    b.decide(view(11, 4, ME, &[1, 3]));
    let out = asks_to_be_rebuilt(&mut b, 2, 9, &[1, 1, 2]);
    assert_eq!(out, [stop_ship(2), said_to_follower(2, need(4, 9, 3, 2))]);
}

/// An addition whose fate is not known counts as one.
#[test]
fn a_candidate_is_not_told_to_give_up_its_copy() {
    let mut b = leader();
    b.hello(2, 4, 7, &[1, 1, 2, 2]);
    b.permit(2);
    assert_eq!(proposed(&b.ack(2, 4, 7, 4)), [vec![1, 3, 2]]);
    assert_eq!(asks_to_be_rebuilt(&mut b, 2, 8, &[1, 1, 2, 2]), [stop_ship(2)]);
}

/// H37: whoever is shipped what is no longer in the log joins anew; those ahead of it are not disturbed.
#[test]
fn a_floor_that_moves_makes_those_below_it_join_anew() {
    let mut b = leader();
    b.hello(2, 4, 7, &[1, 1]);
    b.ack(2, 4, 7, 3);
    assert_eq!(b.step(Input::Floor(Offset(3))), [], "it has that much");
    assert_eq!(b.step(Input::Floor(Offset(4))), [stop_ship(2), told(2, 4)]);
    assert_eq!(b.ack(2, 4, 7, 4), [], "of the joining that is over");
    let out = b.hello(2, 4, 8, &[1, 1, 2]);
    assert_eq!(out, [stop_ship(2), said_to_follower(2, need(4, 8, 3, 4))]);
    assert_eq!(b.step(Input::Floor(Offset(1))), [], "it never goes back");
    assert_eq!(b.hello(2, 4, 9, &[1, 1, 2]).len(), 2);
}

/// A follower in epoch 3 with three entries that has said Hello, and its nonce.
fn asked(stored: Stored) -> (Bench, u64) {
    let mut b = Bench::new(stored);
    b.lead(2, 3);
    let nonce = nonce_of(&b.sync()).unwrap();
    (b, nonce)
}

#[test]
fn a_follower_fetches_when_its_hello_is_answered_so() {
    let (mut b, nonce) = asked(stored(2, &[1, 2, 2]));
    assert!(!b.replica.awaits_snapshot());
    assert_eq!(b.say(2, need(3, nonce, 1, 9)), [fetch(2, 1, 9)]);
    assert!(b.replica.awaits_snapshot());
    assert_eq!(b.say(2, need(3, nonce, 1, 9)), [], "said once");
    assert_eq!(b.records(2, 3, (3, 2), &[3], 3), [], "it has not joined");
    assert_eq!(b.replica.last(), Offset(3), "nothing is cut");
    // The leader asks again: the answer to this Hello is awaited, and comes.
    let again = nonce_of(&b.lead(2, 3)).unwrap();
    assert!(!b.replica.awaits_snapshot());
    assert_eq!(b.say(2, need(3, nonce, 1, 9)), [], "of the joining before");
    assert_eq!(b.say(2, need(3, again, 1, 12)), [fetch(2, 1, 12)]);
    assert!(b.replica.awaits_snapshot());
}

/// R3: of an earlier epoch, of another run, or over another connection it says nothing.
#[test]
fn a_snapshot_is_needed_only_by_the_word_of_whoever_is_followed() {
    let (mut b, nonce) = asked(stored(2, &[1, 2, 2]));
    assert_eq!(b.say(2, need(2, nonce, 1, 9)), [], "an earlier epoch");
    assert_eq!(b.say(2, need(4, nonce, 1, 9)), [], "one that was not joined");
    assert_eq!(b.say(3, need(3, nonce, 1, 9)), [], "another tablet");
    assert_eq!(b.say_on(2, Conn(22), need(3, nonce, 1, 9)), [], "another connection");
    let (peer, incarnation) = (TabletId(2), Incarnation(999));
    let message = need(3, nonce, 1, 9);
    let out = b.step(Input::FromLeader { conn: conn(2), peer, incarnation, message });
    assert_eq!(out, [], "another run");
    assert!(!b.replica.awaits_snapshot());
}

/// What a former leader said of its sets is void: the next one may count on this copy.
#[test]
fn a_later_epoch_ends_the_wait_for_a_snapshot() {
    let (mut b, nonce) = asked(stored(2, &[1, 2, 2]));
    b.say(2, need(3, nonce, 1, 9));
    b.decide(view(9, 4, 3, &[3]));
    assert!(!b.replica.awaits_snapshot());
    let (mut b, nonce) = asked(stored(2, &[1, 2, 2]));
    b.say(2, need(3, nonce, 1, 9));
    b.lead(3, 4);
    assert!(!b.replica.awaits_snapshot());
    let nonce = nonce_of(&b.sync()).unwrap();
    assert_eq!(b.point(3, 4, nonce, 3), [ack_of(3, 4, nonce, 3)], "its log reaches far enough");
}

/// R4: what is committed here is not given up because a leader lacks it.
#[test]
fn a_follower_with_more_than_the_leader_keeps_it() {
    let (mut b, nonce) = asked(Stored { commit: Offset(2), ..stored(2, &[1, 2, 2]) });
    assert!(is_quarantined(&b.say(2, need(3, nonce, 1, 9))));
    assert!(!b.replica.awaits_snapshot());
    assert_eq!(b.lead(2, 3), [], "it takes no part any more");
    // An unclean epoch may take it back (R16).
    let (mut b, nonce) = asked(Stored { commit: Offset(2), ..stored(2, &[1, 2, 2]) });
    let (common, offset) = (Offset(1), Offset(9));
    let unclean =
        ToFollower::NeedSnapshot { epoch: Epoch(3), nonce, common, offset, unclean: true };
    assert_eq!(b.say(2, unclean), [fetch(2, 1, 9)]);
}

/// A snapshot cannot be cut: behind an unclean epoch it takes another one.
#[test]
fn a_log_that_parts_within_the_snapshot_is_rebuilt() {
    let (mut b, nonce) = asked(Stored { snapshot: Offset(2), ..stored(2, &[1, 2, 2]) });
    let point = |nonce, offset| ToFollower::CommonPoint {
        epoch: Epoch(3),
        nonce,
        offset: Offset(offset),
        unclean: true,
    };
    let out = b.say(2, point(nonce, 1));
    let [Output::SendLeader(_, ToLeader::Hello { nonce, rebuild: true, .. })] = out.as_slice()
    else {
        panic!("{out:?}");
    };
    assert_eq!(b.say(2, point(*nonce, 1)), [], "the log is of no use");
    assert_eq!(b.say(2, need_unclean(*nonce)), [fetch(2, 1, 0)]);
    assert_eq!(b.replica.last(), Offset(3), "nothing was cut");

    let (mut b, nonce) = asked(Stored { snapshot: Offset(2), ..stored(2, &[1, 2, 2]) });
    let cut = Output::Truncate { write: Write(2), to: Offset(2) };
    assert_eq!(b.say(2, point(nonce, 2)), [cut], "behind the snapshot it is cut");
}

fn need_unclean(nonce: u64) -> ToFollower {
    let (common, offset) = (Offset(1), Offset(0));
    ToFollower::NeedSnapshot { epoch: Epoch(3), nonce, common, offset, unclean: true }
}

/// R30: the epoch is stored and synced before it speaks, and all it asks for is a snapshot.
#[test]
fn a_damaged_copy_asks_whoever_leads_to_rebuild_it() {
    let mut b = Bench::new(Stored { damaged: true, ..stored(2, &[1, 2, 2]) });
    let store =
        Output::StoreEpoch { write: Write(1), epoch: Epoch(3), first: Offset(4), leads: false };
    assert_eq!(b.lead(2, 3), [store]);
    let out = b.sync();
    let [Output::SendLeader(_, ToLeader::Hello { nonce, rebuild: true, .. })] = out.as_slice()
    else {
        panic!("{out:?}");
    };
    let nonce = *nonce;
    assert_eq!(b.point(2, 3, nonce, 3), [], "it neither joins nor acknowledges");
    assert_eq!(b.records(2, 3, (3, 2), &[3], 3), []);
    assert!(!b.replica.awaits_snapshot());
    assert_eq!(b.say(2, need(3, nonce, 3, 0)), [fetch(2, 3, 0)]);
    assert!(b.replica.awaits_snapshot());
}

/// R30: while nobody else leads, it keeps what it has; it never leads.
#[test]
fn a_damaged_copy_without_a_leader_waits() {
    let mut b = Bench::new(Stored { damaged: true, ..stored(2, &[1, 2, 2]) });
    assert_eq!(b.decide(view(9, 3, ME, &[1])), []);
    assert!(!b.replica.leads() && !b.replica.awaits_snapshot());
    assert_eq!(b.pass(2000), []);
    assert_eq!(b.may_read(), Err(Refusal::Quarantined));
    assert_eq!(
        b.lead(2, 2),
        [said_to_leader(2, ToLeader::Left { epoch: Epoch(3) })],
        "a former leader is refused"
    );
}

#[test]
fn a_copy_that_a_leader_contradicts_is_not_rebuilt_when_its_core_is_made_anew() {
    let contradicted = Stored { contradicted: true, damaged: true, ..stored(2, &[1, 2, 2]) };
    let mut b = Bench::new(contradicted);
    assert_eq!(b.lead(2, 3), []);
    assert_eq!(b.may_read(), Err(Refusal::Quarantined));
}

/// The copy that was installed goes on where its snapshot ends.
#[test]
fn an_installed_snapshot_is_joined_at_its_end() {
    let floor = Offset(3);
    let (mut b, nonce) = asked(Stored { floor, snapshot: floor, ..stored(2, &[1, 2, 2]) });
    assert_eq!(b.replica.commit(), Offset(3), "a snapshot holds what is committed");
    assert_eq!(b.point(2, 3, nonce, 3), [ack_of(2, 3, nonce, 3)]);
    assert_eq!(
        b.records(2, 3, (3, 2), &[3], 3),
        [Output::Append { write: Write(2), from: 0, to: 1 }]
    );
    assert_eq!(b.sync(), [ack_of(2, 3, nonce, 4)]);
}
