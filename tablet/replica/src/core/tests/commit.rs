//! R6, R9, R36: what is committed, and what is acknowledged.

use super::*;

#[test]
fn a_write_is_committed_when_the_leader_and_all_members_have_it_on_disk() {
    let mut b = Bench::new(stored(1, &[]));
    b.leading(5, 2, &[1, 2, 3]);
    let first = b.admit().unwrap();
    let second = b.admit().unwrap();
    assert_eq!((first.offset, second.offset), (Offset(1), Offset(2)));
    assert_eq!(b.ack(2, 2, 1, 2), []);
    assert_eq!(b.ack(3, 2, 1, 2), [], "its own disk is not done");
    let out = b.step(Input::Synced(first.write));
    let expected = [
        Output::Committed(Offset(1)),
        commit_of(2, 2, 1),
        commit_of(3, 2, 1),
        Output::Acknowledged(Offset(1)),
    ];
    assert_eq!(out, expected);
    assert_eq!(acknowledged(&b.step(Input::Synced(second.write))), Some(2));
    assert_eq!(b.ack(3, 2, 1, 1), [], "it never goes back");
    assert_eq!(b.replica.commit(), Offset(2));
}

#[test]
fn interval_tables_commit_what_is_written() {
    let mut b = Bench::<Sound>::of(stored(1, &[]), |me| me.options.sync = Sync::Interval(100));
    b.leading(5, 2, &[1, 2]);
    b.admit().unwrap();
    assert_eq!(acknowledged(&b.ack(2, 2, 1, 1)), Some(1));
}

/// A write that the log refused was never there.
#[test]
fn revoked_writes_are_given_again() {
    let mut b = Bench::new(stored(1, &[1]));
    b.leading(5, 2, &[1, 2]);
    let (first, second) = (b.admit().unwrap(), b.admit().unwrap());
    b.replica.revoke(second);
    b.replica.revoke(first);
    assert_eq!(b.replica.last(), Offset(1));
    assert_eq!(b.replica.base.log.epochs().last(), Some((Epoch(1), Offset(1))));
    assert_eq!(b.admit().unwrap().offset, Offset(2));
}

/// R6, R7 (H5): whoever is to go counts until that is committed; then what it held up is acknowledged.
#[test]
fn a_member_counts_until_its_removal_is_committed() {
    let mut b = Bench::new(stored(1, &[]));
    b.leading(5, 2, &[1, 2, 3]);
    b.write();
    b.ack(2, 2, 1, 1);
    let out = b.disconnect(3);
    assert_eq!(proposed(&out), [vec![1, 2]]);
    assert_eq!(acknowledged(&out), None);
    assert_eq!(acknowledged(&b.pass_heard(400, &[2])), None);
    assert_eq!(acknowledged(&b.decide(view(6, 2, ME, &[1, 2]))), Some(1));
}

/// R8: a candidate counts from the moment of proposing.
#[test]
fn a_candidate_counts_from_when_it_is_proposed() {
    let mut b = Bench::new(stored(1, &[]));
    b.leading(5, 2, &[1, 2]);
    b.connect(3);
    b.permit(3);
    b.hello(3, 2, 1, &[]);
    assert_eq!(proposed(&b.ack(3, 2, 1, 0)), [vec![1, 2, 3]]);
    b.write();
    assert_eq!(acknowledged(&b.ack(2, 2, 1, 1)), None);
    assert_eq!(acknowledged(&b.ack(3, 2, 1, 1)), Some(1));
}

/// R8: a member that has restarted counts as the run that the set names, once that run has joined.
#[test]
fn a_member_counts_as_the_run_that_the_set_names() {
    let mut b = Bench::new(stored(1, &[]));
    b.leading(5, 2, &[1, 2]);
    let restarted = Incarnation(201);
    b.step(Input::Connected { conn: conn(2), peer: TabletId(2), incarnation: restarted });
    b.hello(2, 2, 2, &[]);
    b.write();
    assert_eq!(b.ack(2, 2, 2, 1), [], "the set names the run before");
    let mut rebound = view(6, 2, ME, &[1, 2]);
    rebound.in_sync[1].incarnation = restarted;
    assert_eq!(acknowledged(&b.decide(rebound)), Some(1));
}

/// R6: a member that joins with less than it had acknowledged counts as nothing, is marked (R20b), and is to go.
#[test]
fn a_member_that_lost_what_it_acknowledged_does_not_count() {
    let mut b = Bench::new(stored(1, &[]));
    b.leading(5, 2, &[1, 2, 3]);
    b.write();
    b.ack(2, 2, 1, 1);
    let out = b.hello(2, 2, 2, &[]);
    assert_eq!(proposed(&out), [vec![1, 2, 3]]);
    let mut marked = view(6, 2, ME, &[1, 2, 3]);
    marked.in_sync[1].untrusted = true;
    assert!(
        out.iter()
            .any(|o| matches!(o, Output::Propose { in_sync, .. } if *in_sync == marked.in_sync))
    );
    b.ack(2, 2, 2, 1);
    assert_eq!(acknowledged(&b.ack(3, 2, 1, 1)), None);
    assert_eq!(proposed(&b.decide(marked)), [vec![1, 3]]);
    assert_eq!(acknowledged(&b.decide(view(7, 2, ME, &[1, 3]))), Some(1));
    // The mark goes with the removal.
    assert_eq!(proposed(&b.pass_heard(1050, &[2, 3])), [vec![1, 3, 2]]);
}

/// R9: alone, it needs the meta lease.
#[test]
fn alone_it_acknowledges_and_reads_only_with_a_lease() {
    let mut b = Bench::new(stored(1, &[1]));
    assert!(serves(&b.leading(5, 2, &[1])));
    assert_eq!(b.replica.commit(), Offset(1));
    assert_eq!(b.may_read(), Err(Refusal::LeaseExpired));
    assert_eq!(b.replica.may_acknowledge(b.now), Err(Refusal::LeaseExpired));
    assert_eq!(b.write(), []);
    assert_eq!(b.lease(2000), [Output::Committed(Offset(2)), Output::Acknowledged(Offset(2))]);
    assert_eq!(b.may_read(), Ok(()));
    assert_eq!(acknowledged(&b.write()), Some(3));
    b.now = b.now.plus(2000);
    assert_eq!(b.may_read(), Err(Refusal::LeaseExpired));
    assert_eq!(b.write(), []);
}

/// R9: with followers that answer it goes on without a lease.
#[test]
fn with_followers_it_goes_on_without_a_lease() {
    let mut b = Bench::new(stored(1, &[]));
    b.leading(5, 2, &[1, 2]);
    b.write();
    assert_eq!(acknowledged(&b.ack(2, 2, 1, 1)), Some(1));
    assert_eq!(b.may_read(), Ok(()));
}

/// R9: neither lease nor progress: whoever waits is told so, once, and nobody new is let in.
#[test]
fn without_lease_and_progress_it_refuses_and_fails_who_waits() {
    let mut b = Bench::new(stored(1, &[]));
    b.leading(5, 2, &[1, 2]);
    b.write();
    assert!(!b.pass_heard(950, &[2]).contains(&Output::FailWaiting));
    assert!(b.admit().is_ok());
    let out = b.pass_heard(500, &[2]);
    assert_eq!(out.iter().filter(|o| **o == Output::FailWaiting).count(), 1, "{out:?}");
    assert_eq!(b.admit(), Err(Refusal::LeaseExpired));
    b.lease(100);
    assert!(b.admit().is_ok());
    assert!(b.pass_heard(150, &[2]).contains(&Output::FailWaiting), "the lease came and went");
    b.sync();
    assert_eq!(acknowledged(&b.ack(2, 2, 1, 3)), Some(3));
    assert!(b.admit().is_ok());
}

/// R36: tested when a write is let in, and again when it is acknowledged.
#[test]
fn min_insync_is_tested_at_admission_and_at_acknowledgement() {
    let mut b = Bench::<Sound>::of(stored(1, &[]), |me| me.options.min_insync = 2);
    b.leading(5, 2, &[1, 2]);
    b.lease(5000);
    b.write();
    b.disconnect(2);
    let out = b.decide(view(6, 2, ME, &[1]));
    assert_eq!(out, [Output::Committed(Offset(1))]);
    assert_eq!(b.admit(), Err(Refusal::NotEnoughInSync));
    assert_eq!(b.replica.may_acknowledge(b.now), Err(Refusal::NotEnoughInSync));
    assert_eq!(b.may_read(), Ok(()), "reads do not need it");
    assert_eq!(acknowledged(&b.decide(view(7, 2, ME, &[1, 3]))), Some(1));
}
