//! R14: which run is registered, and what it proves.

use stela_common::code::Code;
use stela_common::table::{Options, Sync};

use super::{World, table, three};
use crate::command::{Command, Register};

#[test]
fn a_restart_after_a_kill_keeps_its_place_as_the_new_run() {
    let (mut w, key, [a, b, _]) = three();
    let before = w.of(key).version;
    w.restart(b);
    let p = w.of(key);
    assert_eq!(p.member(b).map(|m| (m.incarnation, m.untrusted)), Some((w.incarnation(b), false)));
    assert!(p.version > before);
    assert_eq!(p.leader, a);
}

#[test]
fn a_run_that_was_tried_and_never_answered_counts_as_known() {
    let (mut w, key, [_, b, _]) = three();
    // Two starts in a row whose registrations were lost, then one that arrives: the list names them all.
    let (known, lost) = (w.incarnation(b), [w.run(), w.run()]);
    let mut registration = w.registration("b:1");
    registration.starts.splice(1..1, lost);
    assert_eq!(registration.starts[0], known);
    w.register_as(registration.clone());
    assert!(!w.of(key).member(b).unwrap().untrusted);
    // The lost ones arrive after all.
    for n in 1..=2 {
        let late = Register { starts: registration.starts[..=n].to_vec(), ..registration.clone() };
        w.refused(Command::Register(late), Code::StaleEpoch);
    }
    // Its own registration, repeated.
    w.done(Command::Register(registration));
}

#[test]
fn a_late_registration_of_a_run_that_was_superseded_long_ago_is_refused() {
    let (mut w, _, [_, b, _]) = three();
    let old = w.registration("b:1");
    w.register_as(old.clone());
    for _ in 0..5 {
        w.restart(b);
    }
    w.refused(Command::Register(old), Code::StaleEpoch);
}

#[test]
fn a_disk_that_does_not_know_the_last_run_is_not_trusted() {
    let (mut w, key, [_, b, _]) = three();
    let image = w.registration("b:1");
    w.restart(b);
    // The disk is rolled back to what it was before that run (H4d).
    let own = w.run();
    w.register_as(Register { starts: vec![image.starts[0], own], ..image });
    let member = *w.of(key).member(b).unwrap();
    assert!(member.untrusted && member.incarnation != own);
    // Registering once more does not help it.
    w.restart(b);
    assert!(w.of(key).member(b).unwrap().untrusted);
}

#[test]
fn another_directory_or_damage_is_not_trusted_and_stays_in_the_set() {
    let (mut w, key, [_, b, c]) = three();
    let mut registration = w.registration("b:1");
    registration.dir_uuid = "wiped".into();
    w.register_as(registration);
    let mut registration = w.registration("c:1");
    registration.damaged = vec![key];
    w.register_as(registration);
    for tablet in [b, c] {
        assert!(w.of(key).member(tablet).unwrap().untrusted);
        assert!(!w.state.is_electable(w.of(key), tablet));
    }
    assert_eq!(w.in_sync(key).len(), 3);
}

#[test]
fn a_lost_power_costs_trust_only_where_syncs_are_at_intervals() {
    let mut w = World::new();
    let t = ["a:1", "b:1"].map(|e| w.register(e));
    let commit = w.create("commit", &[&t]);
    let options = Options { sync: Sync::Interval(100), ..Options::default() };
    let interval =
        w.create_as(stela_common::table::Table { options, ..table("interval", 1, 2) }, &[&t]);
    let untrusted = |w: &World, tid| {
        let (_, p) = w.state.partitions_of(tid).next().unwrap();
        p.member(t[1]).unwrap().untrusted
    };
    w.restart(t[1]);
    assert!(!untrusted(&w, interval), "a kill -9 on the same boot loses nothing that was written");
    let clean = Register { boot_id: "next boot".into(), clean: true, ..w.registration("b:1") };
    w.register_as(clean);
    assert!(!untrusted(&w, interval));
    let power_cut = Register { boot_id: "third boot".into(), ..w.registration("b:1") };
    w.register_as(power_cut);
    assert!(untrusted(&w, interval) && !untrusted(&w, commit));
}

#[test]
fn what_is_no_registration_is_refused() {
    let (mut w, _, _) = three();
    let good = w.registration("d:1");
    let zero = stela_common::ids::Incarnation(0);
    for bad in [
        Register { starts: Vec::new(), ..good.clone() },
        Register { starts: vec![zero], ..good.clone() },
        Register { starts: vec![good.starts[0], good.starts[0]], ..good.clone() },
        Register { endpoint: String::new(), ..good.clone() },
        Register { endpoint: "d: 1".into(), ..good.clone() },
    ] {
        w.refused(Command::Register(bad), Code::InvalidParameter);
    }
    w.register_as(good);
}

#[test]
fn an_offline_tablet_that_repeats_its_registration_is_healthy() {
    let (mut w, key, [_, b, _]) = three();
    let registration = w.registration("b:1");
    w.register_as(registration.clone());
    w.shrink(key, &[b]);
    w.offline(b);
    let before = w.of(key).version;
    w.register_as(registration);
    assert!(w.state.is_healthy(b) && w.of(key).version > before);
}

/// H26: a catalog that was founded anew gives out no number of which a copy exists.
#[test]
fn h26_no_number_is_given_out_of_which_a_tablet_has_a_copy() {
    let mut w = World::new();
    let registration = Register { highest: 7.into(), ..w.registration("a:1") };
    let a = w.register_as(registration);
    assert_eq!(w.create("t", &[&[a]]).0, 8);
    let registration = Register { highest: 3.into(), ..w.registration("b:1") };
    let b = w.register_as(registration);
    assert_eq!(w.create("u", &[&[b]]).0, 9, "it never goes back");
    let registration = Register { highest: u32::MAX.into(), ..w.registration("b:1") };
    w.register_as(registration);
    assert_eq!(w.create("v", &[&[b]]).0, 10, "what no catalog has given out is not heeded");
}
