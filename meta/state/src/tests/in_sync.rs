//! R7, R8, R20b: what a leader's proposal of a new set comes to, and what its proposer may conclude.

use stela_common::code::Code;
use stela_common::ids::{Incarnation, PartitionKey, TabletId};

use super::planning::{all_alive, carry_out, elected, report};
use super::{World, three};
use crate::apply::{REFUSAL_HOLDS, REFUSED_ONCE_IN};
use crate::command::{ChangeInSync, Command, Verdict};
use crate::state::Doubt;

#[test]
fn the_leader_removes_and_adds() {
    let (mut w, key, [a, b, c]) = three();
    let version = w.shrink(key, &[c]);
    assert_eq!((w.in_sync(key), w.of(key).version), (vec![a, b], version));
    let change = w.change(key, &[], &[c]);
    let reply = w.apply(Command::ChangeInSync(change));
    assert_eq!(reply.verdict(), Verdict::Applied(w.of(key).version));
    assert_eq!(w.in_sync(key), [a, b, c]);
    assert_eq!(w.ops(), [("kOfflineReplicaOP", c), ("kReAddReplicaOP", c)]);
}

#[test]
fn a_proposal_that_was_sent_twice_takes_effect_once_and_its_fate_is_unknown_to_the_second() {
    let (mut w, key, [_, _, c]) = three();
    let change = w.change(key, &[c], &[]);
    w.done(Command::ChangeInSync(change.clone()));
    assert_eq!(w.apply(Command::ChangeInSync(change)).verdict(), Verdict::Unknown);
}

#[test]
fn an_addition_that_is_refused_stays_refused_whatever_happens_later() {
    let (mut w, key, [_, _, c]) = three();
    w.shrink(key, &[c]);
    w.offline(c);
    let change = w.change(key, &[], &[c]);
    let copy = change.clone();
    assert_eq!(w.apply(Command::ChangeInSync(change)).verdict(), Verdict::Rejected);
    w.online(c);
    w.refused(Command::ChangeInSync(copy), Code::StaleEpoch);
    // The same with a run that has ended.
    let mut change = w.change(key, &[], &[c]);
    w.restart(c);
    w.refused(Command::ChangeInSync(change.clone()), Code::StaleEpoch);
    change.expected = w.of(key).version;
    let reply = w.apply(Command::ChangeInSync(change));
    assert_eq!(reply.verdict(), Verdict::Rejected, "another run is registered (R8)");
}

#[test]
fn only_the_run_that_leads_adds_and_nobody_removes_it() {
    let (mut w, key, [a, b, c]) = three();
    w.shrink(key, &[c]);
    let by =
        |change: ChangeInSync, by, by_incarnation| ChangeInSync { by, by_incarnation, ..change };
    let add = w.change(key, &[], &[c]);
    w.refused(Command::ChangeInSync(by(add.clone(), b, w.incarnation(b))), Code::TableIsFollower);
    w.refused(Command::ChangeInSync(by(add, a, Incarnation(1))), Code::TableIsFollower);
    let remove = w.change(key, &[a], &[]);
    w.refused(Command::ChangeInSync(remove), Code::TableIsLeader);
    // Anyone else may be removed by anyone who holds a replica.
    let remove = by(w.change(key, &[b], &[]), c, w.incarnation(c));
    w.now += REFUSED_ONCE_IN;
    w.offline(b);
    w.done(Command::ChangeInSync(remove));
    assert_eq!(w.in_sync(key), [a]);
}

#[test]
fn a_set_that_is_none_is_refused() {
    let (mut w, key, [_, _, c]) = three();
    let change = w.change(key, &[], &[]);
    w.refused(Command::ChangeInSync(change), Code::InvalidParameter);
    let mut twice = w.change(key, &[c], &[]);
    twice.in_sync.push(twice.in_sync[1]);
    w.refused(Command::ChangeInSync(twice), Code::InvalidParameter);
    let mut stranger = w.change(key, &[], &[]);
    stranger.in_sync[1].tablet = TabletId(77);
    w.refused(Command::ChangeInSync(stranger), Code::PidNotFound);
    let mut other_run = w.change(key, &[c], &[]);
    other_run.in_sync[1].incarnation = Incarnation(5);
    w.refused(Command::ChangeInSync(other_run), Code::InvalidParameter);
    let mut nobody = w.change(key, &[], &[]);
    nobody.in_sync.clear();
    w.refused(Command::ChangeInSync(nobody), Code::TableIsLeader);
}

#[test]
fn a_mark_of_distrust_goes_with_the_membership() {
    let (mut w, key, [a, b, c]) = three();
    let mut registration = w.registration("c:1");
    registration.dir_uuid = "a new disk".into();
    w.register_as(registration);
    let marked = *w.of(key).member(c).unwrap();
    assert!(marked.untrusted && marked.incarnation != w.incarnation(c));
    let mut clean = w.change(key, &[b], &[]);
    clean.in_sync[1].untrusted = false;
    w.done(Command::ChangeInSync(clean));
    assert_eq!(w.of(key).member(c), Some(&marked), "saying so does not make it trusted");
    // Alone with one that counts as nothing: removing it is no shrink to the leader's favour.
    w.shrink(key, &[c]);
    let change = w.change(key, &[], &[c]);
    w.done(Command::ChangeInSync(change));
    assert!(!w.of(key).member(c).unwrap().untrusted);
    assert_eq!(w.in_sync(key), [a, c]);
}

#[test]
fn a_leader_that_removes_all_others_is_refused_once_while_they_are_healthy() {
    let (mut w, key, [a, b, c]) = three();
    let alone = w.change(key, &[b, c], &[]);
    let before = w.of(key).version;
    let reply = w.apply(Command::ChangeInSync(alone.clone()));
    assert_eq!(reply.verdict(), Verdict::Rejected);
    let p = w.of(key);
    assert_eq!((p.version, p.refused_shrink_epoch), (before, p.epoch));
    w.now += REFUSAL_HOLDS - 1;
    assert_eq!(w.apply(Command::ChangeInSync(alone.clone())).verdict(), Verdict::Rejected);
    // Nobody was elected in its place: it gets its way.
    w.now += 1;
    w.done(Command::ChangeInSync(alone));
    assert_eq!((w.in_sync(key), w.of(key).refused_shrink_epoch.0), (vec![a], 0));
}

#[test]
fn the_one_elected_in_its_place_may_shrink_at_once() {
    let (mut w, key, [a, b, c]) = three();
    let alone = w.change(key, &[b, c], &[]);
    w.apply(Command::ChangeInSync(alone));
    let elect = w.elect(key, b);
    w.done(Command::Elect(elect));
    let alone = w.change(key, &[a, c], &[]);
    w.done(Command::ChangeInSync(alone));
    assert_eq!(w.in_sync(key), [b]);
}

#[test]
fn a_leader_shrinks_to_itself_at_once_when_the_others_are_offline_or_nobody_would_be_elected() {
    let (mut w, key, [a, b, c]) = three();
    w.offline(b);
    w.offline(c);
    w.shrink(key, &[b, c]);
    assert_eq!(w.in_sync(key), [a]);

    let (mut w, key, [a, b, c]) = three();
    w.auto_failover("false");
    w.shrink(key, &[b, c]);
    assert_eq!(w.in_sync(key), [a]);
}

/// The leader's proposal to mark that member as one that lost what it had acknowledged (R6).
fn mark(w: &World, key: PartitionKey, lost: TabletId) -> ChangeInSync {
    let mut change = w.change(key, &[], &[]);
    change.in_sync.iter_mut().filter(|m| m.tablet == lost).for_each(|m| m.untrusted = true);
    change
}

/// R20b would have handed the partition to the very copy that lost acknowledged writes.
#[test]
fn r20b_a_follower_that_lost_acknowledged_writes_is_not_elected_in_place_of_who_removes_it() {
    let (mut w, key, [a, b, c]) = three();
    w.offline(c);
    w.shrink(key, &[c]);
    let marks = mark(&w, key, b);
    w.done(Command::ChangeInSync(marks));
    assert_eq!(w.of(key).doubt(b), Some(Doubt::Lost));
    let elect = w.elect(key, b);
    w.refused(Command::Elect(elect), Code::InvalidParameter);
    // Though it is healthy, nobody insists on it, and it comes back as any other.
    w.shrink(key, &[b]);
    assert_eq!(w.in_sync(key), [a]);
    let back = w.change(key, &[], &[b]);
    w.done(Command::ChangeInSync(back));
    assert_eq!((w.of(key).doubt(b), w.in_sync(key)), (None, vec![a, b]));
}

/// R20b with one that is whole and one that lost something: it is the whole one that is to lead, whoever has more.
#[test]
fn r20b_the_whole_one_of_the_removed_is_elected() {
    let (mut w, key, [_, b, c]) = three();
    let marks = mark(&w, key, b);
    w.done(Command::ChangeInSync(marks));
    let alone = w.change(key, &[b, c], &[]);
    assert_eq!(w.apply(Command::ChangeInSync(alone)).verdict(), Verdict::Rejected);
    let mut o = all_alive(&w);
    report(&w, &mut o, key, b, 9, 99);
    assert_eq!(elected(&carry_out(&mut w, &o)), [(key, c)]);
}

#[test]
fn only_the_run_that_leads_marks_others_and_a_mark_does_not_end_a_refusal() {
    let (mut w, key, [a, b, c]) = three();
    let marks = mark(&w, key, b);
    let by = ChangeInSync { by: c, by_incarnation: w.incarnation(c), ..marks };
    w.refused(Command::ChangeInSync(by), Code::TableIsFollower);
    let itself = mark(&w, key, a);
    w.refused(Command::ChangeInSync(itself), Code::TableIsLeader);
    let alone = w.change(key, &[b, c], &[]);
    w.apply(Command::ChangeInSync(alone));
    let marks = mark(&w, key, b);
    w.done(Command::ChangeInSync(marks.clone()));
    assert_eq!(w.of(key).refused_shrink_epoch, w.of(key).epoch);
    assert_eq!(w.apply(Command::ChangeInSync(marks)).verdict(), Verdict::Unknown, "sent twice");
    let again = mark(&w, key, b);
    w.refused(Command::ChangeInSync(again), Code::InvalidParameter);
}
