//! The planted mistakes: each switch changes what its rule forbids, and the sound replica does not.
//!
//! That the simulation finds them is tested there; here, that they are where they should be.

use super::*;

macro_rules! planted {
    ($($name:ident: $switch:ident),* $(,)?) => {
        $(
            #[derive(Clone, Debug)]
            struct $name;
            impl Variant for $name {
                const $switch: bool = true;
            }
        )*
    };
}

planted! {
    B1: ACK_BEFORE_REMOVAL,
    B3: NO_EPOCH_CHECK,
    B4a: SERVE_LOG_END,
    B4b: SERVE_OLD_COMMIT,
    B5a: FORGET_CANDIDATE,
    B5c: ADD_BEFORE_BARRIER,
    B6: RESUME_EPOCH,
    B7: REPEAT_TRUNCATE,
    B8: SKIP_GRANT_WAIT,
    B9: OLD_ACKS,
    B11: ACK_BEFORE_SYNC,
    B12: RESUME_AFTER_SURRENDER,
    B13: READ_WITHOUT_PERMIT,
}

fn bench<V: Variant>(stored: Stored) -> Bench<V> {
    Bench::of(stored, |_| {})
}

/// Runs a scenario on the sound replica and on a planted one: what it shows must differ in just that.
macro_rules! shows {
    ($test:ident, $planted:ty, $scenario:ident, $sound:expr, $broken:expr) => {
        #[test]
        fn $test() {
            assert_eq!($scenario::<Sound>(), $sound);
            assert_eq!($scenario::<$planted>(), $broken);
        }
    };
}

fn acknowledged_while_a_removal_is_open<V: Variant>() -> Option<u64> {
    let mut b = bench::<V>(stored(1, &[]));
    b.leading(5, 2, &[1, 2, 3]);
    b.write();
    b.ack(2, 2, 1, 1);
    acknowledged(&b.disconnect(3))
}
shows!(b1_does_not_wait_for_the_removal, B1, acknowledged_while_a_removal_is_open, None, Some(1));

fn last_after_a_frame_of_an_epoch_that_is_over<V: Variant>() -> Offset {
    let mut b = bench::<V>(stored(1, &[1]));
    b.follow(2, 2, 1);
    b.follow(3, 3, 1);
    b.records(2, 2, (1, 1), &[2], 0);
    b.replica.last()
}
shows!(
    b3_takes_what_an_old_leader_ships,
    B3,
    last_after_a_frame_of_an_epoch_that_is_over,
    Offset(1),
    Offset(2)
);

fn serves_unconfirmed<V: Variant>() -> Option<(bool, Offset)> {
    let mut b = bench::<V>(Stored { commit: Offset(1), ..stored(1, &[1, 1]) });
    b.decide(view(5, 2, ME, &[1, 2]));
    b.sync();
    b.replica.serving().then(|| (b.admit().is_ok(), b.replica.commit()))
}
shows!(b4a_serves_its_log_end, B4a, serves_unconfirmed, None, Some((true, Offset(2))));
shows!(b4b_serves_its_old_commit, B4b, serves_unconfirmed, None, Some((true, Offset(1))));

fn acknowledged_while_an_addition_is_open<V: Variant>() -> Option<u64> {
    let mut b = bench::<V>(stored(1, &[]));
    b.leading(5, 2, &[1, 2]);
    b.connect(3);
    b.permit(3);
    b.hello(3, 2, 1, &[]);
    b.ack(3, 2, 1, 0);
    b.write();
    acknowledged(&b.ack(2, 2, 1, 1))
}
shows!(b5a_forgets_the_candidate, B5a, acknowledged_while_an_addition_is_open, None, Some(1));

fn added_before_the_barrier<V: Variant>() -> Vec<Vec<u32>> {
    let mut b = bench::<V>(stored(1, &[1]));
    b.decide(view(5, 2, ME, &[1, 2]));
    b.sync();
    b.connect(3);
    b.permit(3);
    b.hello(3, 2, 1, &[]);
    proposed(&b.ack(3, 2, 1, 0))
}
shows!(
    b5c_adds_before_its_barrier,
    B5c,
    added_before_the_barrier,
    [] as [Vec<u32>; 0],
    [vec![1, 2, 3]]
);

fn leads_in_the_epoch_of_a_former_run<V: Variant>() -> bool {
    let mut b = bench::<V>(stored(5, &[5]));
    let mut former = view(9, 5, ME, &[1, 2]);
    former.leader_incarnation = Incarnation(7);
    b.decide(former);
    b.replica.leads()
}
shows!(b6_goes_on_in_its_epoch, B6, leads_in_the_epoch_of_a_former_run, false, true);

fn last_after_a_repeated_cut<V: Variant>() -> Offset {
    let mut b = bench::<V>(stored(1, &[1, 1]));
    let nonce = b.follow(2, 2, 1);
    b.records(2, 2, (1, 1), &[2], 0);
    b.sync();
    b.point(2, 2, nonce, 1);
    b.replica.last()
}
shows!(b7_obeys_a_repeated_order, B7, last_after_a_repeated_cut, Offset(2), Offset(1));

fn serves_while_its_permits_hold<V: Variant>() -> bool {
    let mut b = bench::<V>(stored(1, &[1]));
    b.follow(2, 2, 1);
    b.grants.grant(TabletId(2), b.now);
    serves(&b.leading(9, 3, &[1]))
}
shows!(b8_does_not_wait, B8, serves_while_its_permits_hold, false, true);

fn serves_by_an_old_acknowledgement<V: Variant>() -> bool {
    let mut b = bench::<V>(stored(1, &[1]));
    b.leading(5, 2, &[1, 2]);
    b.decide(view(6, 3, 2, &[1, 2]));
    b.decide(view(7, 4, ME, &[1, 2]));
    b.connect(2);
    b.sync();
    serves(&b.ack(2, 2, 1, 1))
}
shows!(b9_counts_an_old_acknowledgement, B9, serves_by_an_old_acknowledgement, false, true);

fn said_before_the_sync<V: Variant>() -> (bool, Option<u64>) {
    let mut b = bench::<V>(stored(1, &[1]));
    b.lead(2, 2);
    let nonce = nonce_of(&b.synced(1)).unwrap();
    b.point(2, 2, nonce, 1);
    let follower = b.records(2, 2, (1, 1), &[2], 0).contains(&ack_of(2, 2, nonce, 2));
    let mut b = bench::<V>(stored(1, &[]));
    b.leading(5, 2, &[1, 2]);
    b.admit().unwrap();
    (follower, acknowledged(&b.ack(2, 2, 1, 1)))
}
shows!(
    b11_acknowledges_what_is_not_synced,
    B11,
    said_before_the_sync,
    (false, None),
    (true, Some(1))
);

fn reads_after_its_surrender<V: Variant>() -> bool {
    let mut b = bench::<V>(stored(1, &[]));
    b.leading(5, 2, &[1, 2]);
    b.step(Input::Drain { epoch: Epoch(2), deadline: b.now.plus(1000) });
    b.pass_heard(1100, &[2]);
    b.may_read().is_ok()
}
shows!(b12_resumes_after_its_surrender, B12, reads_after_its_surrender, false, true);

fn reads_without_permits<V: Variant>() -> bool {
    let mut b = bench::<V>(stored(1, &[]));
    b.leading(5, 2, &[1, 2]);
    b.now = b.now.plus(1000);
    b.may_read().is_ok()
}
shows!(b13_reads_without_permits, B13, reads_without_permits, false, true);
