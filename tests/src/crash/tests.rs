use super::*;

#[test]
fn no_power_cut_loses_what_was_synced() {
    let report = run(7, 1000).unwrap();
    assert!(report.passed() && report.states >= 1000, "{report}");
}

#[test]
fn no_power_cut_leaves_half_a_file_or_an_old_one() {
    let report = run_files(7, 1000).unwrap();
    assert!(report.states >= 1000 && report.failures.is_empty(), "{report:?}");
}

/// A log with this mistake must fail.
fn is_caught(skip: Skip) {
    let report = run_without(7, 1000, Some(skip)).unwrap();
    assert!(report.lost > 0, "{skip:?} went unnoticed: {report}");
}

#[test]
fn a_report_before_the_sync_is_caught() {
    is_caught(Skip::Commit);
}

#[test]
fn a_full_segment_that_is_not_synced_is_caught() {
    is_caught(Skip::Roll);
}

#[test]
fn a_new_segment_whose_name_is_not_synced_is_caught() {
    is_caught(Skip::RollDir);
}

#[test]
fn a_recovered_tail_that_is_not_written_again_is_caught() {
    is_caught(Skip::WriteAgain);
}

#[test]
fn a_recovery_that_does_not_sync_is_caught() {
    is_caught(Skip::Recover);
}
