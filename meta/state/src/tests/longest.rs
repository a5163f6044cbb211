//! R15: power was lost everywhere, and nobody is known to have all. Why that needs all members, and the operator (R16) for
//! whatever is worse than a lost tail.

use stela_common::code::Code;
use stela_common::ids::{Epoch, Offset, PartitionKey, TabletId};
use stela_common::table::{Options, Sync, Table};

use super::planning::{all_alive, carry_out};
use super::{World, table};
use crate::command::{Command, Elect, Register};
use crate::op::OpStatus;
use crate::plan::{Observed, Report, obstacles, plan};
use crate::state::Doubt;

/// Three replicas on `sync=interval`, led by the first.
fn on_interval() -> (World, PartitionKey, [TabletId; 3]) {
    let mut w = World::new();
    let t = ["a:1", "b:1", "c:1"].map(|e| w.register(e));
    let options = Options { sync: Sync::Interval(100), ..Options::default() };
    let tid = w.create_as(Table { options, ..table("t", 1, 3) }, &[&t]);
    (w, PartitionKey { tid, pid: 0.into() }, t)
}

/// The tablet is back after its machine lost power.
fn lose_power(w: &mut World, tablet: TabletId) {
    let endpoint = w.state.tablets[&tablet].endpoint.clone();
    let registration = w.registration(&endpoint);
    let boot_id = format!("boot {}", registration.starts[registration.starts.len() - 1]);
    w.register_as(Register { boot_id, ..registration });
}

fn has(w: &World, o: &mut Observed, key: PartitionKey, t: TabletId, log: (u64, u64)) {
    let (last_epoch, offset) = (Epoch(log.0), Offset(log.1));
    let incarnation = w.incarnation(t);
    o.replicas.insert((key, t), Report { incarnation, last_epoch, offset, ..Report::default() });
}

/// All lost power, are back, and report.
fn all_back(logs: [(u64, u64); 3]) -> (World, PartitionKey, [TabletId; 3], Observed) {
    let (mut w, key, t) = on_interval();
    for t in t {
        lose_power(&mut w, t);
    }
    let mut o = all_alive(&w);
    for (t, log) in t.into_iter().zip(logs) {
        has(&w, &mut o, key, t, log);
    }
    (w, key, t, o)
}

fn why(w: &World, o: &Observed) -> String {
    match &obstacles(&w.state, o)[..] {
        [(_, why)] => why.clone(),
        other => panic!("{other:?}"),
    }
}

/// H17: there would be no rule to go on.
#[test]
fn h17_when_all_have_lost_their_tails_the_longest_leads_and_it_is_on_record() {
    let (mut w, key, [_, b, _], o) = all_back([(1, 90), (2, 7), (1, 100)]);
    let commands = carry_out(&mut w, &o);
    let shown = "a:1 90 of epoch 1, b:1 7 of epoch 2, c:1 100 of epoch 1";
    assert!(
        matches!(&commands[..], [Command::Elect(Elect { leader, auto: true, unclean: Some(text), .. })] if *leader == b && text == shown),
        "{commands:?}"
    );
    let p = w.of(key);
    assert_eq!((w.in_sync(key), p.last_unclean, p.uncleans), (vec![b], Epoch(2), 1));
    assert!(!p.in_sync[0].untrusted && p.history.last().is_some_and(|l| l.unclean));
    assert!(p.replicas.iter().all(|r| r.doubt.is_none()), "doubts go with the memberships");
    let op = w.state.ops.values().next_back().expect("an op");
    assert_eq!((op.status, op.why.clone()), (OpStatus::Done, format!("tail may be lost: {shown}")));
    assert!(op.auto && plan(&w.state, &all_alive(&w)).is_empty());
    assert_eq!(obstacles(&w.state, &all_alive(&w)), []);
}

/// H17: electing the first to report loses what another has.
#[test]
fn h17_nobody_is_elected_before_all_are_back_and_have_reported() {
    let (mut w, key, [a, b, c]) = on_interval();
    for t in [a, b] {
        lose_power(&mut w, t);
    }
    w.offline(c);
    let mut o = all_alive(&w);
    o.tablets.get_mut(&c).expect("seen").alive = false;
    for t in [a, b] {
        has(&w, &mut o, key, t, (1, 100));
    }
    assert_eq!(plan(&w.state, &o), []);
    assert_eq!(why(&w, &o), "waits for c:1");
    // Apply refuses it, too: a member may still come back whole.
    let early = Elect { unclean: Some(String::new()), ..w.elect(key, a) };
    w.refused(Command::Elect(early), Code::InvalidParameter);
    lose_power(&mut w, c);
    let mut o = Observed { replicas: o.replicas, ..all_alive(&w) };
    assert_eq!(plan(&w.state, &o), [], "it has not said what it has");
    assert_eq!(why(&w, &o), "waits for c:1");
    has(&w, &mut o, key, c, (1, 101));
    carry_out(&mut w, &o);
    assert_eq!(w.of(key).leader, c);
}

#[test]
fn r15_one_that_comes_back_whole_is_elected_as_ever() {
    let (mut w, key, [a, b, c]) = on_interval();
    for t in [a, b] {
        lose_power(&mut w, t);
    }
    w.restart(c);
    let mut o = all_alive(&w);
    for (t, n) in [(a, 100), (b, 100), (c, 50)] {
        has(&w, &mut o, key, t, (1, n));
    }
    carry_out(&mut w, &o);
    assert_eq!((w.of(key).leader, w.in_sync(key), w.of(key).uncleans), (c, vec![c], 0));
}

#[test]
fn r15_a_single_replica_that_lost_power_leads_again_by_itself() {
    let mut w = World::new();
    let a = w.register("a:1");
    let options = Options { sync: Sync::Interval(100), ..Options::default() };
    let tid = w.create_as(Table { options, ..table("t", 1, 1) }, &[&[a]]);
    let key = PartitionKey { tid, pid: 0.into() };
    lose_power(&mut w, a);
    let mut o = all_alive(&w);
    has(&w, &mut o, key, a, (1, 10));
    carry_out(&mut w, &o);
    assert_eq!((w.of(key).epoch, w.of(key).uncleans), (Epoch(2), 1));
}

/// A wiped or damaged member is an operator's affair, whatever the others have lost.
#[test]
fn r15_a_wiped_or_damaged_member_is_never_elected_without_an_operator() {
    for (damaged, what) in [(true, "its copy is damaged"), (false, "it is on another disk")] {
        let (mut w, key, t) = on_interval();
        let [a, b, _] = t;
        for t in [a, b] {
            lose_power(&mut w, t);
        }
        let registration = w.registration("c:1");
        w.register_as(if damaged {
            Register { damaged: vec![key], boot_id: "next".into(), ..registration }
        } else {
            Register { dir_uuid: "new".into(), boot_id: "next".into(), ..registration }
        });
        let mut o = all_alive(&w);
        for t in t {
            has(&w, &mut o, key, t, (1, 100));
        }
        assert_eq!(plan(&w.state, &o), []);
        let lost = "its last writes may be lost";
        assert_eq!(
            why(&w, &o),
            format!(
                "no copy is known to be whole (a:1: {lost}; b:1: {lost}; c:1: {what}): see stela ops elect --unclean"
            )
        );
        let elect = |w: &World, t| Elect { unclean: Some(String::new()), ..w.elect(key, t) };
        w.refused(Command::Elect(elect(&w, a)), Code::InvalidParameter);
        w.done(Command::Elect(Elect { auto: false, ..elect(&w, a) }));
    }
}

#[test]
fn r15_a_doubt_never_becomes_smaller_while_the_membership_lasts() {
    let (mut w, key, [a, ..]) = on_interval();
    let doubt = |w: &World| w.of(key).doubt(a);
    lose_power(&mut w, a);
    assert_eq!(doubt(&w), Some(Doubt::Tail));
    w.restart(a);
    assert_eq!(doubt(&w), Some(Doubt::Tail), "a clean restart finds nothing again");
    let damaged = Register { damaged: vec![key], ..w.registration("a:1") };
    w.register_as(damaged);
    assert_eq!(doubt(&w), Some(Doubt::Damage));
    lose_power(&mut w, a);
    assert_eq!(doubt(&w), Some(Doubt::Damage));
    // A mark of before reasons were kept may have any.
    let p = w.state.partitions.get_mut(&key).expect("there");
    p.replicas[0].doubt = None;
    assert_eq!(doubt(&w), Some(Doubt::Disk));
}

/// Whoever has less is not elected in place of one that is held, cannot be reached, or found damage since.
#[test]
fn r15_the_longest_is_waited_for() {
    let (w, key, [_, _, c], o) = all_back([(1, 90), (1, 90), (1, 100)]);
    let mut away = o.clone();
    away.tablets.get_mut(&c).expect("seen").alive = false;
    assert_eq!(plan(&w.state, &away), []);
    assert_eq!(why(&w, &away), "waits for c:1");
    let mut bad = o.clone();
    bad.replicas.get_mut(&(key, c)).expect("reported").quarantined = true;
    assert_eq!(plan(&w.state, &bad), []);
    let mut held = World { state: w.state.clone(), ..World::new() };
    held.state.partitions.get_mut(&key).expect("there").replicas[2].held = true;
    assert_eq!(plan(&held.state, &o), []);
    assert_eq!(why(&held, &o), "c:1 is held back: updatetablealive releases it");
    let elect = Elect { unclean: Some(String::new()), ..held.elect(key, c) };
    held.refused(Command::Elect(elect), Code::InvalidParameter);
}

#[test]
fn r21_with_auto_failover_off_the_longest_waits_for_the_switch() {
    let (mut w, key, t) = on_interval();
    w.auto_failover("false");
    for t in t {
        lose_power(&mut w, t);
    }
    let mut o = all_alive(&w);
    for t in t {
        has(&w, &mut o, key, t, (1, 100));
    }
    assert_eq!(plan(&w.state, &o), []);
    assert_eq!(why(&w, &o), "auto_failover is off: changeleader elects a leader");
    w.auto_failover("true");
    carry_out(&mut w, &o);
    assert_eq!(w.of(key).uncleans, 1);
}
