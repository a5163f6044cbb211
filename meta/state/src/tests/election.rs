//! R1, R13, R21: who is elected, who stays in the set, and what is shown.

use stela_common::code::Code;
use stela_common::ids::{Epoch, Offset, Version};

use super::{set, three};
use crate::check;
use crate::command::{Batch, Command, Elect, Proposal};
use crate::object::Changed;

#[test]
fn the_next_epoch_drops_the_offline_and_the_untrusted_and_marks_the_former_leader() {
    let (mut w, key, [a, b, c]) = three();
    w.offline(a);
    let elect = w.elect(key, b);
    w.done(Command::Elect(elect));
    let p = w.of(key);
    assert_eq!((p.epoch, p.leader, p.leader_incarnation), (Epoch(2), b, w.incarnation(b)));
    assert_eq!(w.in_sync(key), [b, c]);
    assert!(p.replica(a).unwrap().was_leader && !w.state.is_alive(p, a));
    assert_eq!(w.ops(), [("kChangeLeaderOP", b)]);
    // Back in sync, it is a follower like any other.
    w.online(a);
    let change = w.change(key, &[], &[a]);
    w.done(Command::ChangeInSync(change));
    assert!(!w.of(key).replica(a).unwrap().was_leader && w.state.is_alive(w.of(key), a));
    assert_eq!(w.ops().last(), Some(&("kReAddReplicaOP", a)));
}

#[test]
fn offline_and_the_elections_that_follow_are_one_batch() {
    let (mut w, key, [a, b, c]) = three();
    let offline = Command::Offline { tablet: a, incarnation: w.incarnation(a), auto: true };
    let replies = w.propose(vec![offline, Command::Elect(w.elect(key, c))]);
    assert!(replies.iter().all(|r| r.refusal().is_none()), "{replies:?}");
    assert_eq!((w.of(key).leader, w.in_sync(key)), (c, vec![b, c]));
}

#[test]
fn a_restarted_leader_needs_a_new_epoch_also_alone() {
    let (mut w, key, [a, b, c]) = three();
    w.shrink(key, &[b]);
    w.offline(c);
    w.shrink(key, &[c]);
    let before = w.of(key).clone();
    w.restart(a);
    let p = w.of(key);
    assert_ne!(p.leader_incarnation, w.incarnation(a));
    assert!(p.version > before.version, "whoever decided on the former run must learn of it");
    let elect = w.elect(key, a);
    w.done(Command::Elect(elect));
    let p = w.of(key);
    assert_eq!(
        (p.epoch, p.leader_incarnation, w.in_sync(key)),
        (before.epoch.next(), w.incarnation(a), vec![a])
    );
}

#[test]
fn nobody_is_elected_who_might_lack_something() {
    let (mut w, key, [a, b, c]) = three();
    w.shrink(key, &[c]);
    let elect = w.elect(key, c);
    w.refused(Command::Elect(elect), Code::InvalidParameter);
    // Another run than the one that was meant.
    let late = w.elect(key, b);
    w.restart(b);
    w.refused(Command::Elect(Elect { expected: w.of(key).version, ..late }), Code::StaleEpoch);
    w.offline(b);
    let elect = w.elect(key, b);
    w.refused(Command::Elect(elect), Code::TabletNotHealthy);
    // Not proven whole.
    let mut registration = w.registration("a:1");
    registration.dir_uuid = "a new disk".into();
    w.register_as(registration);
    let elect = w.elect(key, a);
    w.refused(Command::Elect(elect), Code::InvalidParameter);
    assert_eq!(w.in_sync(key), [a, b], "it stays in the set until somebody takes its place (R14)");
}

#[test]
fn a_decision_on_an_earlier_version_is_refused() {
    let (mut w, key, [_, b, c]) = three();
    let elect = w.elect(key, c);
    w.shrink(key, &[b]);
    w.refused(Command::Elect(elect), Code::StaleEpoch);
    let elect = w.elect(key, c);
    w.done(Command::Elect(elect.clone()));
    w.refused(Command::Elect(elect), Code::StaleEpoch);
    w.refused(
        Command::Elect(Elect { expected: Version(u64::MAX), ..w.elect(key, c) }),
        Code::StaleEpoch,
    );
}

#[test]
fn automatic_elections_stop_with_auto_failover() {
    let (mut w, key, [a, b, c]) = three();
    w.offline(a);
    w.auto_failover("false");
    let elect = w.elect(key, b);
    w.refused(Command::Elect(elect.clone()), Code::AutoFailoverEnabled);
    w.done(Command::Elect(Elect { auto: false, ..elect }));
    // A run that starts while it is off is held, and can neither lead nor come into the set.
    w.restart(c);
    assert!(w.of(key).is_held(c) && !w.state.is_alive(w.of(key), c));
    let elect = Elect { auto: false, ..w.elect(key, c) };
    w.refused(Command::Elect(elect), Code::InvalidParameter);
    w.restart(a);
    let change = w.change(key, &[], &[a]);
    w.refused(Command::ChangeInSync(change), Code::InvalidParameter);
    // Switching it on lets go of all of them, and outdates what was proposed about them.
    let before = w.of(key).version;
    w.done(set("auto_failover", "TRUE"));
    assert!(w.of(key).replicas.iter().all(|r| !r.held) && w.of(key).version > before);
    let change = w.change(key, &[], &[a]);
    w.done(Command::ChangeInSync(change));
}

#[test]
fn where_an_epoch_began_is_noted_once_and_moves_no_version() {
    let (mut w, key, [_, b, _]) = three();
    let version = w.of(key).version;
    w.done(Command::Started { key, epoch: Epoch(1), start: Offset(0) });
    w.done(Command::Started { key, epoch: Epoch(1), start: Offset(0) });
    w.refused(Command::Started { key, epoch: Epoch(1), start: Offset(7) }, Code::StaleEpoch);
    w.refused(Command::Started { key, epoch: Epoch(2), start: Offset(7) }, Code::StaleEpoch);
    assert_eq!((w.of(key).version, w.of(key).history[0].start), (version, Some(Offset(0))));
    let elect = w.elect(key, b);
    w.done(Command::Elect(elect));
    assert_eq!(w.of(key).history[1].start, None);
}

#[test]
fn a_history_keeps_the_latest_epochs() {
    let (mut w, key, [a, b, _]) = three();
    for n in 0..200 {
        let elect = w.elect(key, if n % 2 == 0 { b } else { a });
        w.done(Command::Elect(elect));
    }
    let p = w.of(key);
    assert_eq!(
        (p.epoch, p.history.len(), p.history[0].epoch),
        (Epoch(201), crate::state::HISTORY, Epoch(138))
    );
}

#[test]
fn a_tablet_goes_offline_as_the_run_that_was_judged() {
    let (mut w, key, [a, b, _]) = three();
    let judged = w.incarnation(a);
    w.restart(a);
    w.refused(Command::Offline { tablet: a, incarnation: judged, auto: true }, Code::StaleEpoch);
    w.offline(a);
    let again = Command::Offline { tablet: a, incarnation: w.incarnation(a), auto: true };
    w.refused(again, Code::TabletNotHealthy);
    assert_eq!(w.in_sync(key).len(), 3, "going offline changes no set");
    w.refused(Command::Online { tablet: a, incarnation: judged }, Code::StaleEpoch);
    w.online(a);
    w.refused(Command::Online { tablet: b, incarnation: w.incarnation(b) }, Code::InvalidParameter);
}

/// The check can fail: an election by the longest log, outside the set, is noticed.
#[test]
fn the_check_notices_who_is_elected_outside_the_set() {
    struct Outside;
    impl crate::rules::Rules for Outside {
        const ELECT_OUTSIDE: bool = true;
    }
    let (mut w, key, [_, _, c]) = three();
    w.shrink(key, &[c]);
    let before = w.state.clone();
    let proposal = Proposal { request: None, now: 0, command: Command::Elect(w.elect(key, c)) };
    let batch = Batch { commands: vec![proposal] };
    let replies = w.state.apply_with::<Outside>(before.applied + 1, &batch, &mut Changed::new());
    assert_eq!(replies[0].refusal(), None);
    let broken = check::step(&before, &w.state).unwrap_err();
    assert!(broken.0.contains("elected"), "{broken}");
}
