//! The acceptance tests that OpenMLDB's own tests stand for, and those that it lacks: appendix D of the nameserver's
//! description, each item by its number, on real processes.
//!
//! An item passes when its conditions come true, each within half a minute, and every acknowledged row can be read
//! afterwards. Items share a cluster of three nameservers and four tablets with a proxy on every link; each leaves it as
//! it found it.

mod bench;
mod by_hand;
mod failures;
mod returns;

use std::time::Instant;

use anyhow::{Context as _, Result};

use self::bench::Bench;
use super::{Outcome, Plan};

macro_rules! items {
    ($($number:literal $name:ident in $file:ident;)*) => {
        /// Every item: its number, its name.
        const ITEMS: &[(u32, &str)] = &[$(($number, stringify!($name))),*];

        async fn item(bench: &mut Bench, name: &str) -> Result<String> {
            match name {
                $(stringify!($name) => $file::$name(bench).await,)*
                _ => anyhow::bail!("no item is called {name}"),
            }
        }
    };
}

items! {
    1 a_killed_leader_is_replaced in failures;
    1 a_leader_that_is_cut_off_is_replaced in failures;
    2 a_killed_follower_disturbs_nobody in failures;
    3 a_leader_that_flaps_twice_comes_to_rest in failures;
    4 whoever_has_all_wins_although_it_led_before in failures;
    5 manual_commands_are_refused_while_the_switch_is_on in by_hand;
    6 a_restarted_follower_catches_up in returns;
    7 a_nameserver_and_a_tablet_die_together in failures;
    8 one_member_is_left_whoever_is_cut_off in failures;
    9 the_same_tablet_restarts_twice in returns;
    10 a_return_costs_what_was_missed_and_no_more in returns;
    11 a_single_replica_leads_again in returns;
    12 nameservers_fail_over_and_forget_nothing in failures;
    13 everything_dies_and_serves_again_by_itself in returns;
    14 changeleader_in_all_its_forms in by_hand;
    15 recoverendpoint_and_leadership_back in by_hand;
    16 offlineendpoint_of_leader_follower_and_live_tablet in by_hand;
    17 a_failover_wins_over_a_migration in by_hand;
    18 replicas_are_added_and_taken_away in by_hand;
    19 confset_takes_true_and_false in by_hand;
    20 every_tablet_restarts_in_turn in returns;
    21 a_nameserver_restarts_and_nobody_notices in failures;
    22 two_of_three_are_gone_and_then_all in failures;
    25 a_leader_is_cut_off_from_each_kind_of_party in failures;
    26 the_same_name_is_created_and_dropped_at_once in failures;
    29 a_missing_directory_is_never_loaded_as_empty in returns;
}

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    // Item 23 is D17, which kills a nameserver at every step.
    let mut bench = Bench::start().await?;
    let chosen = |number: u32| plan.rounds.is_none_or(|only| only as u32 == number);
    let (mut passed, mut failed) = (0, Vec::new());
    for (number, name) in ITEMS.iter().filter(|(number, _)| chosen(*number)) {
        let begun = Instant::now();
        let outcome = async {
            let said = item(&mut bench, name).await?;
            bench.back_to_normal().await.context("afterwards")?;
            bench.verify().await.context("afterwards")?;
            anyhow::Ok(said)
        };
        match outcome.await {
            Ok(said) => {
                passed += 1;
                println!("PASS {number:2} {name} ({:.1?}) {said}", begun.elapsed());
            }
            Err(e) => {
                println!("FAIL {number:2} {name}: {e:#}");
                failed.push(*number);
                // The next one is not to suffer for it.
                bench = Bench::start().await?;
            }
        }
    }
    println!(
        "{passed} passed, {} failed {failed:?}; {} rows acknowledged and read back",
        failed.len(),
        bench.acknowledged()
    );
    Ok(match (passed, failed.is_empty()) {
        (0, _) => Outcome::Unknown,
        (_, true) => Outcome::Pass,
        (_, false) => Outcome::Fail,
    })
}
