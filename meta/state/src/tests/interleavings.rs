//! Interleavings that other systems lose or stall by, as far as the group's decisions close them. Named as in
//! INTERLEAVINGS.md; those that a rule's own tests show are not repeated here.

use stela_common::code::Code;
use stela_common::ids::{PartitionKey, TabletId};
use stela_common::wire::Member;

use super::planning::{all_alive, carry_out, elected, refused, report};
use super::{World, three};
use crate::command::{ChangeInSync, Command, Elect, Register};
use crate::plan::plan;

/// Another directory under the same endpoint.
fn on_an_empty_disk(w: &mut World, endpoint: &str) {
    let registration = w.registration(endpoint);
    w.register_as(Register { dir_uuid: "empty".into(), ..registration });
}

/// H4b: the wiped follower is in the set under its old endpoint, the leader that still has everything dies.
#[test]
fn h4_a_wiped_member_is_not_elected_when_the_last_whole_one_dies() {
    let (mut w, key, [a, b, c]) = three();
    w.shrink(key, &[c]);
    on_an_empty_disk(&mut w, "b:1");
    let mut o = all_alive(&w);
    refused(&mut o, a);
    report(&w, &mut o, key, b, 0, 0);
    assert_eq!(elected(&carry_out(&mut w, &o)), []);
    let elect = w.elect(key, b);
    w.refused(Command::Elect(elect), Code::InvalidParameter);
    // The whole one is back: it leads, and the wiped one leaves the set by that.
    w.restart(a);
    let o = all_alive(&w);
    assert_eq!(elected(&carry_out(&mut w, &o)), [(key, a)]);
    assert_eq!(w.in_sync(key), [a]);
}

/// H15: two of three are more than half, and yet the third one has to take over by itself.
#[test]
fn h15_two_of_three_tablets_die_and_the_third_leads_everything() {
    let mut w = World::new();
    let [a, b, c] = ["a:1", "b:1", "c:1"].map(|e| w.register(e));
    let tid = w.create("t", &[&[a, b, c], &[b, c, a], &[c, a, b]]);
    let mut o = all_alive(&w);
    refused(&mut o, a);
    refused(&mut o, b);
    carry_out(&mut w, &o);
    for pid in 0..3 {
        let p = w.of(PartitionKey::new(tid.0, pid));
        assert_eq!(p.leader, c);
        assert!(p.member(c).is_some());
    }
    assert_eq!(plan(&w.state, &o), []);
}

/// H18: the set of a new epoch loses who is offline, so that the new leader can commit at once, and keeps who is only slow,
/// so that somebody is left when the new leader dies before it has begun.
#[test]
fn h18_the_next_set_drops_the_dead_and_keeps_the_slow() {
    let (mut w, key, [a, b, c]) = three();
    let mut o = all_alive(&w);
    refused(&mut o, a);
    o.tablets.get_mut(&c).unwrap().alive = false;
    assert_eq!(elected(&carry_out(&mut w, &o)), [(key, b)]);
    assert_eq!(w.in_sync(key), [b, c]);
    let mut o = all_alive(&w);
    refused(&mut o, a);
    refused(&mut o, b);
    assert_eq!(elected(&carry_out(&mut w, &o)), [(key, c)]);
}

/// H19: whatever is tried, a partition keeps somebody who has everything.
#[test]
fn h19_the_last_member_stays_whatever_happens_to_it() {
    let (mut w, key, [a, b, c]) = three();
    for t in [b, c] {
        w.offline(t);
    }
    w.shrink(key, &[b, c]);
    for t in [b, c] {
        w.online(t);
    }
    let nobody = |by: TabletId, w: &World| {
        let change = w.change(key, &[a], &[]);
        ChangeInSync { by, by_incarnation: w.incarnation(by), ..change }
    };
    let change = nobody(a, &w);
    w.refused(Command::ChangeInSync(change), Code::TableIsLeader);
    let change = nobody(b, &w);
    w.refused(Command::ChangeInSync(change), Code::TableIsLeader);
    // Nor does another one take its place.
    let mut change = nobody(b, &w);
    let incarnation = w.incarnation(b);
    change.in_sync.push(Member { tablet: b, incarnation, untrusted: false });
    w.refused(Command::ChangeInSync(change), Code::TableIsLeader);
    w.offline(a);
    let elect = w.elect(key, b);
    w.refused(Command::Elect(elect), Code::InvalidParameter);
    on_an_empty_disk(&mut w, "a:1");
    assert_eq!(w.in_sync(key), [a], "marked, and still there: an operator can see what is lost");
    let o = all_alive(&w);
    assert_eq!(elected(&carry_out(&mut w, &o)), []);
}

/// H20: with `auto_failover` off, removals by the leader and the return of the same run go on, or every hiccup of a follower
/// would stop all writes until somebody looks.
#[test]
fn h20_with_auto_failover_off_a_leader_still_removes_and_takes_back() {
    let (mut w, key, [a, b, c]) = three();
    w.auto_failover("false");
    w.shrink(key, &[c]);
    assert_eq!(w.in_sync(key), [a, b]);
    let back = w.change(key, &[], &[c]);
    w.done(Command::ChangeInSync(back));
    assert_eq!(w.in_sync(key), [a, b, c]);
    // Another run of it waits for an operator (R22).
    w.restart(c);
    w.shrink(key, &[c]);
    let back = w.change(key, &[], &[c]);
    w.refused(Command::ChangeInSync(back), Code::InvalidParameter);
}

/// H21: what the cluster decided by itself comes to be applied behind the operator's acknowledged `false`.
#[test]
fn h21_an_election_that_was_decided_before_the_switch_and_comes_behind_it_is_refused() {
    let (mut w, key, [a, b, _]) = three();
    let mut o = all_alive(&w);
    refused(&mut o, a);
    let decided = plan(&w.state, &o);
    assert_eq!(elected(&decided), [(key, b)]);
    w.auto_failover("false");
    let epoch = w.of(key).epoch;
    w.propose(decided);
    assert_eq!(w.of(key).epoch, epoch);
}

/// L5, L8: whoever is outside the set is not elected, however much it has and however alone it is; and nobody in the set can
/// lack what was acknowledged, so that what is dropped with the others was not.
#[test]
fn l8_the_longest_log_outside_the_set_leads_nothing() {
    let (mut w, key, [a, b, c]) = three();
    w.shrink(key, &[c]);
    let mut o = all_alive(&w);
    refused(&mut o, a);
    report(&w, &mut o, key, b, 1, 10);
    report(&w, &mut o, key, c, 1, 1_000_000);
    assert_eq!(elected(&carry_out(&mut w, &o)), [(key, b)]);
    let mut o = all_alive(&w);
    for t in [a, b] {
        refused(&mut o, t);
    }
    report(&w, &mut o, key, c, 1, 1_000_000);
    assert_eq!(elected(&carry_out(&mut w, &o)), []);
    let elect = Elect { auto: false, ..w.elect(key, c) };
    w.refused(Command::Elect(elect), Code::InvalidParameter);
}

/// L11: the disk of the only copy is not mounted, and the tablet starts on an empty directory.
#[test]
fn l11_the_only_copy_is_not_led_from_an_empty_directory() {
    let mut w = World::new();
    let a = w.register("a:1");
    let key = PartitionKey { tid: w.create("t", &[&[a]]), pid: 0.into() };
    on_an_empty_disk(&mut w, "a:1");
    let mut o = all_alive(&w);
    report(&w, &mut o, key, a, 0, 0);
    assert_eq!(elected(&carry_out(&mut w, &o)), []);
    // Mounted again, it is another directory than the one that was registered last: it proves nothing either, since this
    // one, too, might be of another time. An operator decides (R16).
    w.restart(a);
    let o = all_alive(&w);
    assert_eq!(elected(&carry_out(&mut w, &o)), []);
}
