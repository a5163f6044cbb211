//! The drills at a length for every commit. One at a time: each is a cluster of six processes.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs a drill of the harness; a verdict other than PASS, or none, fails the test with what was printed. What it says about
/// times is not judged here.
fn drill(args: &[&str]) {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_stela-tests"))
        .args(["drill", "--untimed"])
        .args(args)
        .output();
    let output = output.unwrap_or_else(|e| panic!("the drill cannot be started: {e}"));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}{err}");
    // Too little work shows nothing, on a machine that is busy with something else: that is no failure of the code.
    assert!(matches!(output.status.code(), Some(0 | 2)), "{args:?} ended with {}", output.status);
    assert!(!out.contains("BROKEN"));
}

#[test]
fn an_acknowledged_row_outlives_its_leader() {
    drill(&["D1", "--rounds", "3"]);
}

#[test]
fn metadata_outlives_its_leader_and_data_goes_on() {
    drill(&["D2", "--rounds", "2"]);
}

#[test]
fn a_leader_that_stood_still_acknowledges_nothing_more() {
    drill(&["D4", "--rounds", "2", "--longest", "4"]);
}

#[test]
fn a_leader_that_is_cut_off_refuses() {
    drill(&["D5", "--rounds", "1", "--longest", "4"]);
}

#[test]
fn a_planned_switch_loses_nothing_and_nobody_sees_an_error() {
    drill(&["switch", "--rounds", "16"]);
}

#[test]
fn a_failing_disk_loses_nothing_and_says_so() {
    drill(&["D12", "--rounds", "3"]);
}

#[test]
fn rotten_bytes_are_noticed_and_made_good() {
    drill(&["D13", "--rounds", "3"]);
}

#[test]
fn the_switch_has_one_value_and_is_obeyed() {
    drill(&["D18", "--rounds", "3"]);
}

#[test]
fn two_replicas_go_on_with_one_and_one_comes_back_by_itself() {
    drill(&["two", "--rounds", "2"]);
    drill(&["one", "--rounds", "2"]);
}

#[test]
fn many_silent_tablets_are_waited_for() {
    drill(&["D21", "--rounds", "2"]);
}

#[test]
fn an_index_that_is_added_has_every_row() {
    drill(&["index"]);
}

#[test]
fn everything_outlives_everything() {
    drill(&["kill-all", "--rounds", "1"]);
}

#[test]
fn the_switch_outlives_all_nameservers() {
    drill(&["failover-switch", "--rounds", "2"]);
}

#[test]
fn the_document_is_a_session() {
    drill(&["transcript"]);
}

#[test]
fn every_command_answers_as_the_golden_sessions_have_it() {
    drill(&["golden"]);
}

#[test]
fn the_acceptance_tests_of_the_reference() {
    drill(&["appendix"]);
}

#[test]
fn an_operation_outlives_the_nameserver_at_any_step() {
    drill(&["D17", "--rounds", "12"]);
}

#[test]
fn operators_may_do_what_they_like() {
    drill(&["D19", "--seconds", "15"]);
}

#[test]
fn servers_restart_in_turn_and_nobody_notices() {
    drill(&["D16", "--rounds", "4"]);
}

#[test]
fn a_table_of_four_times_the_memory_is_written_read_and_started_again() {
    drill(&["larger", "--longest", "48"]);
}

#[test]
fn many_tables_and_a_dead_tablet() {
    drill(&["scale", "--rounds", "100"]);
}

#[test]
fn the_operations_tool_works_call_by_call() {
    drill(&["tool"]);
}
