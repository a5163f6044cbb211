//! A batch of seeds keeps every promise, and each planted mistake is noticed.

use std::time::Duration;

use super::command::{hunt, run};
use super::mistake;
use super::profile;
use super::report::batch;

/// Virtual time is free, real time is not: as many seeds as fit.
const SOUND: Duration = Duration::from_secs(100);

#[test]
fn sound_code_keeps_its_promises_whatever_happens() {
    let report = batch(1, 2000, Some(SOUND), profile::of_seed);
    println!("{report}");
    assert!(report.broken.is_empty(), "{report}");
    assert!(
        report.seeds() == 2000 && report.lacking().is_empty(),
        "too little was tried:\n{report}"
    );
}

#[test]
fn a_seed_is_a_run() {
    let (one, two) = (run(7, profile::MIXED, None, false), run(7, profile::MIXED, None, false));
    assert_eq!(format!("{one:?}"), format!("{two:?}"));
    assert!(one.coverage.steps > 1000, "{one:?}");
}

fn is_noticed(name: &str, seeds: u64) {
    let mistake = mistake::ALL.iter().find(|m| m.name == name).unwrap();
    let noticed = hunt(mistake, 1, seeds);
    let broken = noticed
        .unwrap_or_else(|| panic!("{name} ({}) is not noticed in {seeds} seeds", mistake.what));
    println!("{name} is noticed after {} seeds: {broken}", broken.seed);
}

macro_rules! noticed {
    ($($test:ident: $name:literal within $seeds:literal;)*) => {
        $(#[test] fn $test() { is_noticed($name, $seeds); })*

        #[test]
        fn no_mistake_is_left_out() {
            let tested = [$($name),*];
            assert!(mistake::ALL.iter().all(|m| tested.contains(&m.name)));
        }
    };
}

noticed! {
    b1_ack_before_removal: "B1" within 2000;
    b2_elect_outside_the_set: "B2" within 2000;
    b3_no_epoch_check: "B3" within 2000;
    b4a_serve_log_end: "B4a" within 2000;
    b4b_serve_old_commit: "B4b" within 2000;
    b5a_forget_candidate: "B5a" within 2000;
    b5b_add_any_incarnation: "B5b" within 2000;
    b5c_add_before_barrier: "B5c" within 2000;
    b6_resume_epoch: "B6" within 2000;
    b7_repeat_truncate: "B7" within 2000;
    b8_skip_grant_wait: "B8" within 2000;
    b9_old_acks: "B9" within 2000;
    b10_trust_all: "B10" within 2000;
    b11_ack_before_sync: "B11" within 2000;
    b12_resume_after_surrender: "B12" within 2000;
    b13_read_without_permit: "B13" within 2000;
}
