//! R12: planned switches, from the wish to the election that fulfils it. R16: unclean elections.

use stela_common::code::Code;
use stela_common::ids::{Epoch, OpId, PartitionKey, TabletId};

use super::planning::{all_alive, carry_out};
use super::{World, three};
use crate::command::{Command, Elect};
use crate::op::OpStatus;
use crate::plan::{Drain, Observed, Report, drains, plan};

fn switch(key: PartitionKey, target: Option<TabletId>) -> Command {
    Command::Switch { key, target }
}

/// The leader reports.
fn leads(w: &World, o: &mut Observed, key: PartitionKey, surrendered: bool) {
    let p = w.of(key);
    let report = Report {
        incarnation: p.leader_incarnation,
        epoch: p.epoch,
        leading: true,
        serving: !surrendered,
        surrendered: if surrendered { p.epoch } else { Epoch(0) },
        ..Report::default()
    };
    o.replicas.insert((key, p.leader), report);
}

fn op(w: &World) -> (OpStatus, &str) {
    let op = w.state.ops.values().next_back().expect("an op");
    (op.status, if op.why.is_empty() { op.task.as_str() } else { op.why.as_str() })
}

#[test]
fn a_switch_drains_then_elects_the_target_and_is_an_op_until_then() {
    let (mut w, key, [a, _, c]) = three();
    w.auto_failover("false");
    w.done(switch(key, Some(c)));
    assert_eq!(op(&w), (OpStatus::Doing, "kSelectLeader"));
    let mut o = all_alive(&w);
    leads(&w, &mut o, key, false);
    assert_eq!(drains(&w.state, &o), [Drain { key, leader: a, epoch: Epoch(1) }]);
    assert_eq!(plan(&w.state, &o), [], "it leads until it has surrendered");
    leads(&w, &mut o, key, true);
    assert_eq!(drains(&w.state, &o), [], "it is drained");
    let commands = carry_out(&mut w, &o);
    assert!(
        matches!(&commands[..], [Command::Elect(e)] if e.leader == c && e.surrendered == Some(a) && !e.auto),
        "{commands:?}"
    );
    assert_eq!((w.of(key).leader, w.of(key).switch), (c, None));
    assert_eq!(op(&w), (OpStatus::Done, ""));
    assert_eq!(plan(&w.state, &all_alive(&w)), []);
}

/// H11: a controller that dies after the surrender leaves a leader that will never lead again in its epoch.
#[test]
fn h11_a_surrendered_leader_is_replaced_or_elected_again_without_any_wish() {
    let (mut w, key, [a, b, c]) = three();
    w.auto_failover("false");
    let mut o = all_alive(&w);
    leads(&w, &mut o, key, true);
    let commands = plan(&w.state, &o);
    assert!(matches!(&commands[..], [Command::Elect(e)] if e.surrendered == Some(a)));
    // Alone in its set, it is itself the one.
    for t in [b, c] {
        w.offline(t);
    }
    w.shrink(key, &[b, c]);
    let mut o = all_alive(&w);
    for t in [b, c] {
        o.tablets.get_mut(&t).expect("seen").alive = false;
    }
    leads(&w, &mut o, key, true);
    let commands = carry_out(&mut w, &o);
    assert!(matches!(&commands[..], [Command::Elect(e)] if e.leader == a), "{commands:?}");
}

#[test]
fn a_switch_that_takes_too_long_fails_and_one_that_was_overtaken_too() {
    let (mut w, key, [_, b, c]) = three();
    w.done(switch(key, Some(c)));
    let op_id = w.of(key).switch.expect("a wish").op;
    let mut o = all_alive(&w);
    leads(&w, &mut o, key, false);
    o.overdue.insert(op_id);
    let commands = carry_out(&mut w, &o);
    assert!(matches!(&commands[..], [Command::EndSwitch { .. }]));
    assert_eq!((op(&w).0, w.of(key).switch), (OpStatus::Failed, None));
    w.done(switch(key, Some(c)));
    let elect = w.elect(key, b);
    w.done(Command::Elect(elect));
    assert_eq!(op(&w), (OpStatus::Failed, "another replica was elected"));
    w.refused(Command::EndSwitch { key, op: OpId(1), why: String::new() }, Code::StaleEpoch);
}

#[test]
fn what_no_switch_can_be() {
    let (mut w, key, [a, b, c]) = three();
    w.refused(switch(key, Some(a)), Code::InvalidParameter);
    w.refused(switch(key, Some(TabletId(9))), Code::PidNotFound);
    w.offline(c);
    w.refused(switch(key, Some(c)), Code::TabletNotHealthy);
    w.done(switch(key, Some(b)));
    w.refused(switch(key, None), Code::InvalidParameter);
    w.offline(a);
    let (mut w, key, [a, ..]) = three();
    w.offline(a);
    w.refused(switch(key, None), Code::InvalidParameter);
}

/// A core that was made anew from its log leads no more in its epoch (R1), and its process goes on.
#[test]
fn a_leader_that_was_made_anew_gets_a_new_epoch() {
    let (mut w, key, [a, ..]) = three();
    let mut o = all_alive(&w);
    leads(&w, &mut o, key, false);
    o.replicas.get_mut(&(key, a)).expect("reported").leading = false;
    let commands = carry_out(&mut w, &o);
    assert!(matches!(&commands[..], [Command::Elect(_)]), "{commands:?}");
    assert_eq!(w.of(key).epoch, Epoch(2));
}

fn unclean(w: &World, key: PartitionKey, leader: TabletId) -> Elect {
    Elect { auto: false, unclean: Some("b 7 of epoch 1".into()), ..w.elect(key, leader) }
}

/// H31, L5, L6: a leader from outside the set is only ever an operator's decision, and only when nobody else is left.
#[test]
fn r16_an_unclean_election_needs_an_operator_and_a_partition_that_nobody_can_lead() {
    let (mut w, key, [a, b, c]) = three();
    for t in [b, c] {
        w.offline(t);
    }
    w.shrink(key, &[b, c]);
    for t in [b, c] {
        w.online(t);
    }
    let elect = unclean(&w, key, b);
    w.refused(Command::Elect(elect.clone()), Code::InvalidParameter);
    w.offline(a);
    w.refused(Command::Elect(Elect { auto: true, ..elect.clone() }), Code::InvalidParameter);
    w.refused(Command::Elect(Elect { unclean: None, ..elect.clone() }), Code::InvalidParameter);
    assert_eq!(plan(&w.state, &all_alive_but(&w, a)), [], "nobody is elected by himself");
    w.done(Command::Elect(unclean(&w, key, b)));
    let p = w.of(key);
    assert_eq!((p.leader, w.in_sync(key)), (b, vec![b]));
    assert_eq!((p.last_unclean, p.uncleans), (Epoch(2), 1));
    assert!(p.history.last().is_some_and(|l| l.unclean));
    assert_eq!(op(&w), (OpStatus::Done, "unclean: b 7 of epoch 1"));
    // The mark stays when other epochs follow.
    w.offline(b);
    w.online(b);
    let elect = w.elect(key, b);
    w.done(Command::Elect(elect));
    assert_eq!((w.of(key).last_unclean, w.of(key).uncleans), (Epoch(2), 1));
    assert_eq!(w.state.view(key).map(|v| v.last_unclean), Some(Epoch(2)));
}

#[test]
fn r16_an_unclean_election_is_refused_while_a_clean_one_can_be() {
    let (mut w, key, [a, b, _]) = three();
    w.offline(a);
    let elect = unclean(&w, key, b);
    w.refused(Command::Elect(elect), Code::InvalidParameter);
    let elect = w.elect(key, b);
    w.done(Command::Elect(elect));
}

fn all_alive_but(w: &World, gone: TabletId) -> Observed {
    let mut o = all_alive(w);
    let seen = o.tablets.get_mut(&gone).expect("seen");
    (seen.alive, seen.silent) = (false, true);
    o
}
