//! What the planner names in each case, and that it names nothing when there is nothing to do.

use std::collections::BTreeSet;

use stela_common::ids::{Epoch, Incarnation, Offset, PartitionKey, TabletId};

use super::{World, three};
use crate::command::Command;
use crate::plan::{Observed, PassedOver, Report, Seen, obstacles, plan};

/// All registered runs are alive.
pub(super) fn all_alive(w: &World) -> Observed {
    let tablets = w.state.tablets.iter();
    let tablets = tablets
        .map(|(id, t)| (*id, Seen { incarnation: t.incarnation, alive: true, ..Seen::default() }));
    Observed { tablets: tablets.collect(), ..Observed::default() }
}

fn silent(o: &mut Observed, t: TabletId) {
    let seen = o.tablets.get_mut(&t).unwrap();
    (seen.alive, seen.silent) = (false, true);
}

pub(super) fn refused(o: &mut Observed, t: TabletId) {
    let seen = o.tablets.get_mut(&t).unwrap();
    (seen.alive, seen.refused) = (false, true);
}

pub(super) fn report(
    w: &World,
    o: &mut Observed,
    key: PartitionKey,
    t: TabletId,
    last_epoch: u64,
    offset: u64,
) {
    let report = Report {
        incarnation: w.incarnation(t),
        last_epoch: Epoch(last_epoch),
        offset: Offset(offset),
        ..Report::default()
    };
    o.replicas.insert((key, t), report);
}

/// Who is elected for which partition.
pub(super) fn elected(commands: &[Command]) -> Vec<(PartitionKey, TabletId)> {
    let elect =
        |c: &Command| if let Command::Elect(e) = c { Some((e.key, e.leader)) } else { None };
    commands.iter().filter_map(elect).collect()
}

/// Applies what is planned; nothing of it may be refused.
pub(super) fn carry_out(w: &mut World, o: &Observed) -> Vec<Command> {
    let commands = plan(&w.state, o);
    for (command, reply) in commands.iter().zip(w.propose(commands.clone())) {
        assert_eq!(reply.refusal(), None, "{command:?}");
    }
    commands
}

/// Carries out what is planned when everybody is there.
fn mend(w: &mut World) -> Vec<Command> {
    let observed = all_alive(w);
    carry_out(w, &observed)
}

#[test]
fn nothing_is_planned_when_all_is_well_or_nothing_is_known() {
    let (w, _, _) = three();
    assert_eq!(plan(&w.state, &all_alive(&w)), []);
    assert_eq!(plan(&w.state, &Observed::default()), []);
    let mut unknown = all_alive(&w);
    unknown.tablets.values_mut().for_each(|seen| seen.alive = false);
    assert_eq!(plan(&w.state, &unknown), [], "a stream that is not there yet is no reason");
}

#[test]
fn a_lost_leader_is_replaced_in_the_batch_that_calls_it_offline() {
    let (w, key, [a, b, c]) = three();
    for lose in [silent, refused] {
        let mut w = World { state: w.state.clone(), ..World::new() };
        let mut o = all_alive(&w);
        lose(&mut o, a);
        let commands = carry_out(&mut w, &o);
        assert!(matches!(commands[0], Command::Offline { tablet, auto: true, .. } if tablet == a));
        assert_eq!(elected(&commands), [(key, b)]);
        assert_eq!(w.in_sync(key), [b, c]);
        assert_eq!(plan(&w.state, &o), [], "it is done");
    }
}

#[test]
fn a_lost_follower_is_offline_and_its_leader_is_left_to_shrink() {
    let (mut w, key, [_, b, _]) = three();
    let mut o = all_alive(&w);
    refused(&mut o, b);
    assert_eq!(carry_out(&mut w, &o).len(), 1);
    assert_eq!((w.of(key).epoch, w.in_sync(key).len()), (Epoch(1), 3));
}

#[test]
fn the_partitions_of_a_lost_tablet_are_spread() {
    let mut w = World::new();
    let t = ["a:1", "b:1", "c:1"].map(|e| w.register(e));
    let [a, b, c] = t;
    w.create("t", &[&[a, b, c], &[b, c, a], &[c, a, b], &[a, b, c], &[b, c, a], &[a, b, c]]);
    let mut o = all_alive(&w);
    refused(&mut o, a);
    let commands = carry_out(&mut w, &o);
    assert_eq!(elected(&commands).iter().map(|(_, t)| *t).collect::<Vec<_>>(), [c, b, c]);
}

#[test]
fn the_longest_log_is_preferred_and_a_later_epoch_counts_more_than_length() {
    let (w, key, [a, b, c]) = three();
    let mut o = all_alive(&w);
    silent(&mut o, a);
    report(&w, &mut o, key, b, 1, 10);
    report(&w, &mut o, key, c, 1, 11);
    assert_eq!(elected(&plan(&w.state, &o)), [(key, c)]);
    report(&w, &mut o, key, b, 2, 3);
    assert_eq!(elected(&plan(&w.state, &o)), [(key, b)]);
    // What a former run reported does not count.
    o.replicas.get_mut(&(key, b)).unwrap().incarnation = Incarnation(1);
    assert_eq!(elected(&plan(&w.state, &o)), [(key, c)]);
}

#[test]
fn a_restarted_leader_is_followed_by_a_new_epoch_as_soon_as_somebody_is_alive() {
    let (mut w, key, [a, b, c]) = three();
    w.restart(a);
    let mut o = all_alive(&w);
    report(&w, &mut o, key, a, 1, 12);
    report(&w, &mut o, key, b, 1, 11);
    assert_eq!(elected(&plan(&w.state, &o)), [(key, a)], "the restarted one is a candidate");
    for t in [a, b, c] {
        o.tablets.get_mut(&t).unwrap().alive = false;
    }
    assert_eq!(plan(&w.state, &o), [], "nobody is known to be there: it has to wait");
    o.tablets.get_mut(&c).unwrap().alive = true;
    assert_eq!(elected(&carry_out(&mut w, &o)), [(key, c)]);
    assert_eq!(w.in_sync(key), [a, b, c].to_vec(), "who is slow to answer stays in the set (R13)");
}

#[test]
fn one_replica_gets_a_new_epoch_when_its_tablet_is_back() {
    let mut w = World::new();
    let a = w.register("a:1");
    let key = PartitionKey { tid: w.create("t", &[&[a]]), pid: 0.into() };
    let mut o = all_alive(&w);
    silent(&mut o, a);
    assert_eq!(carry_out(&mut w, &o).len(), 1, "offline, and nobody to elect");
    w.restart(a);
    assert_eq!(elected(&mend(&mut w)), [(key, a)]);
    assert_eq!(plan(&w.state, &all_alive(&w)), []);
}

#[test]
fn a_tablet_that_is_heard_again_is_online_and_goes_on_leading_if_it_was_not_replaced() {
    let mut w = World::new();
    let a = w.register("a:1");
    let tid = w.create("t", &[&[a]]);
    w.offline(a);
    let commands = mend(&mut w);
    assert!(
        matches!(commands[..], [Command::Online { tablet, .. }] if tablet == a),
        "{commands:?}"
    );
    assert_eq!(w.of(PartitionKey { tid, pid: 0.into() }).epoch, Epoch(1));
}

#[test]
fn an_election_waits_for_the_version_that_a_return_moves() {
    let (mut w, key, [a, b, c]) = three();
    w.shrink(key, &[c]);
    w.offline(c);
    let mut o = all_alive(&w);
    silent(&mut o, a);
    let commands = carry_out(&mut w, &o);
    assert_eq!((commands.len(), elected(&commands)), (2, vec![]), "{commands:?}");
    assert_eq!(elected(&carry_out(&mut w, &o)), [(key, b)]);
}

#[test]
fn who_is_held_untrusted_quarantined_or_outside_is_no_candidate() {
    let (mut w, key, [a, b, c]) = three();
    let mut registration = w.registration("b:1");
    registration.damaged = vec![key];
    w.register_as(registration);
    let mut o = all_alive(&w);
    silent(&mut o, a);
    report(&w, &mut o, key, b, 9, 99);
    assert_eq!(elected(&plan(&w.state, &o)), [(key, c)]);
    report(&w, &mut o, key, c, 1, 1);
    o.replicas.get_mut(&(key, c)).unwrap().quarantined = true;
    assert_eq!(elected(&plan(&w.state, &o)), []);

    let (mut w, key, [a, b, c]) = three();
    w.shrink(key, &[c]);
    let mut o = all_alive(&w);
    silent(&mut o, a);
    silent(&mut o, b);
    report(&w, &mut o, key, c, 9, 99);
    assert_eq!(
        elected(&carry_out(&mut w, &o)),
        [],
        "the only one alive is outside the set: wait (R16)"
    );
    let _ = key;
}

#[test]
fn a_leader_that_may_be_cut_off_is_replaced_by_one_that_it_wanted_to_remove() {
    let (mut w, key, [a, b, c]) = three();
    let alone = w.change(key, &[b, c], &[]);
    w.apply(Command::ChangeInSync(alone));
    let mut o = all_alive(&w);
    report(&w, &mut o, key, a, 1, 100);
    assert_eq!(elected(&carry_out(&mut w, &o)), [(key, b)]);
    assert_eq!(plan(&w.state, &o), []);
}

#[test]
fn a_leader_that_was_refused_to_shrink_is_a_candidate_again_as_another_run() {
    // Found by the simulation: nobody else was left to be elected, and nobody ever was (R1, R20b).
    let (mut w, key, [a, b, c]) = three();
    let alone = w.change(key, &[b, c], &[]);
    w.apply(Command::ChangeInSync(alone));
    w.restart(a);
    let mut o = all_alive(&w);
    o.tablets.get_mut(&b).unwrap().alive = false;
    o.tablets.get_mut(&c).unwrap().alive = false;
    assert_eq!(elected(&carry_out(&mut w, &o)), [(key, a)]);
    assert_eq!(plan(&w.state, &o), []);
}

#[test]
fn a_leader_that_finds_its_copy_damaged_is_replaced() {
    let (mut w, key, [a, b, _]) = three();
    let mut o = all_alive(&w);
    report(&w, &mut o, key, a, 1, 100);
    o.replicas.get_mut(&(key, a)).unwrap().quarantined = true;
    assert_eq!(elected(&carry_out(&mut w, &o)), [(key, b)]);
}

#[test]
fn with_auto_failover_off_findings_are_recorded_and_no_role_changes() {
    let (mut w, key, [a, b, c]) = three();
    w.auto_failover("false");
    let mut o = all_alive(&w);
    silent(&mut o, a);
    let commands = carry_out(&mut w, &o);
    assert!(matches!(commands[..], [Command::Offline { .. }]), "{commands:?}");
    w.restart(a);
    assert_eq!(plan(&w.state, &all_alive(&w)), [], "a leader that came back is held");
    // Switched on, all that was left is made up for.
    w.auto_failover("true");
    assert_eq!(elected(&mend(&mut w)), [(key, a)]);
    assert_eq!(w.in_sync(key), [a, b, c]);
}

/// H16: the one with the longest log was elected again and again, though it never came to serve.
#[test]
fn h16_a_leader_that_does_not_come_to_serve_is_passed_over_in_turn() {
    let (mut w, key, [a, b, c]) = three();
    let mut o = all_alive(&w);
    for (t, offset) in [(a, 100), (b, 50), (c, 99)] {
        report(&w, &mut o, key, t, 1, offset);
    }
    let mut turns = Vec::new();
    for turn in 1..=4 {
        let leader = w.of(key).leader;
        o.stalled = BTreeSet::from([(key, w.of(key).epoch)]);
        let passed =
            PassedOver { incarnation: w.incarnation(leader), turn, ..PassedOver::default() };
        o.passed_over.insert((key, leader), passed);
        carry_out(&mut w, &o);
        assert_eq!(plan(&w.state, &o), [], "the epoch that is over is judged no more");
        turns.push(w.of(key).leader);
    }
    assert_eq!(turns, [c, b, a, c]);
    // The next run of its process begins anew.
    w.restart(a);
    report(&w, &mut o, key, a, 1, 100);
    o.tablets = all_alive(&w).tablets;
    o.stalled = BTreeSet::from([(key, w.of(key).epoch)]);
    assert_eq!(elected(&plan(&w.state, &o)), [(key, a)]);
}

#[test]
fn r23_a_leader_that_nobody_can_replace_goes_on() {
    let (mut w, key, [a, b, c]) = three();
    for t in [b, c] {
        w.offline(t);
    }
    let mut o = all_alive(&w);
    for t in [b, c] {
        o.tablets.get_mut(&t).unwrap().alive = false;
    }
    o.stalled = BTreeSet::from([(key, Epoch(1))]);
    assert_eq!(plan(&w.state, &o), []);
    assert_eq!(obstacles(&w.state, &o), [(key, "waits for b:1, c:1".to_owned())]);
    w.shrink(key, &[b, c]);
    let alone = "a:1 does not come to serve, and no other replica can lead";
    assert_eq!(obstacles(&w.state, &o), [(key, alone.to_owned())]);
    w.auto_failover("false");
    let mut o = all_alive(&w);
    o.stalled = BTreeSet::from([(key, Epoch(1))]);
    assert_eq!(plan(&w.state, &o).len(), 2, "they are back online; nobody is elected (R21)");
    let _ = a;
}

#[test]
fn where_an_epoch_began_is_recorded_once_its_leader_serves() {
    let (mut w, key, [a, _, _]) = three();
    let mut o = all_alive(&w);
    report(&w, &mut o, key, a, 0, 0);
    let it = o.replicas.get_mut(&(key, a)).unwrap();
    (it.epoch, it.leading, it.start) = (Epoch(1), true, Some(Offset(0)));
    assert_eq!(plan(&w.state, &o), []);
    o.replicas.get_mut(&(key, a)).unwrap().serving = true;
    assert_eq!(
        carry_out(&mut w, &o),
        [Command::Started { key, epoch: Epoch(1), start: Offset(0) }]
    );
    assert_eq!(plan(&w.state, &o), []);
}

#[test]
fn what_is_dropped_is_confirmed_once() {
    let (mut w, key, [a, b, _]) = three();
    w.done(Command::DropTable { db: "db".into(), name: "t".into() });
    let mut o = all_alive(&w);
    o.dropped = BTreeSet::from([(a, key.tid), (b, key.tid), (b, 77.into())]);
    assert_eq!(carry_out(&mut w, &o).len(), 2);
    assert_eq!(plan(&w.state, &o), []);
}
