//! R12: a planned switch, seen by the leader that goes.

use super::*;

fn drain(b: &mut Bench<impl Variant>, ms: u64) -> Vec<Output> {
    b.step(Input::Drain { epoch: Epoch(2), deadline: b.now.plus(ms) })
}

#[test]
fn admits_nothing_more_and_surrenders_when_the_tail_is_committed() {
    let mut b = Bench::new(stored(1, &[]));
    b.leading(5, 2, &[1, 2]);
    b.write();
    assert_eq!(drain(&mut b, 1000), []);
    assert_eq!(b.admit(), Err(Refusal::NotServing));
    assert_eq!(b.may_read(), Ok(()), "it still leads");
    let out = b.ack(2, 2, 1, 1);
    let tail = [Output::Acknowledged(Offset(1)), Output::Surrendered(Epoch(2))];
    assert!(out.ends_with(&tail), "{out:?}");
    assert!(!b.replica.serving());
    // Whatever happens.
    b.pass_heard(3000, &[2]);
    b.lease(5000);
    assert_eq!(b.may_read(), Err(Refusal::NotServing));
    assert_eq!(b.replica.may_acknowledge(b.now), Err(Refusal::NotServing));
    assert_eq!(b.admit(), Err(Refusal::NotServing));
    assert_eq!(drain(&mut b, 1000), []);
}

#[test]
fn goes_on_when_the_deadline_passes_before_the_surrender() {
    let mut b = Bench::new(stored(1, &[]));
    b.leading(5, 2, &[1, 2]);
    b.write();
    drain(&mut b, 200);
    b.pass_heard(200, &[2]);
    assert!(b.admit().is_ok());
    let out = b.ack(2, 2, 1, 1);
    assert_eq!(acknowledged(&out), Some(1));
    assert!(!out.contains(&Output::Surrendered(Epoch(2))));
}

#[test]
fn a_drain_of_another_epoch_or_of_the_past_is_none() {
    let mut b = Bench::new(stored(1, &[]));
    b.leading(5, 2, &[1, 2]);
    assert_eq!(b.step(Input::Drain { epoch: Epoch(1), deadline: b.now.plus(1000) }), []);
    assert_eq!(b.step(Input::Drain { epoch: Epoch(2), deadline: b.now }), []);
    assert!(b.admit().is_ok());
}

/// With nothing to wait for it surrenders at once.
#[test]
fn an_idle_leader_surrenders_at_once() {
    let mut b = Bench::new(stored(1, &[]));
    b.leading(5, 2, &[1, 2]);
    assert_eq!(drain(&mut b, 1000), [Output::Surrendered(Epoch(2))]);
}
