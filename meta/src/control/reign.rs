//! From taking over to being deposed.
//!
//! **Invariants**
//! * A reign begins when the controller epoch is committed, with no soft state: nobody is judged by silence for a lease
//!   and a tenth (R17).
//! * Each pass that has something to do confirms first that this nameserver leads, and plans again on what it sees then
//!   (design: "each pass begins with a linearizable read").
//! * A reign ends when leadership moves, and also when a proposal's outcome is unknown: the command that begins the next
//!   one is in the log behind it, so that its fate is settled by then.

use std::sync::Arc;

use stela_common::clock::Millis;
use stela_common::ids::NodeId;
use stela_meta_state::command::{Command, Elect, Reply};
use stela_meta_state::object::Key;
use stela_meta_state::op::OpStatus;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::steps::{self, When};
use super::{Control, PULSE, Reign, execute};
use crate::group::{Leadership, ProposeError};

/// The most commands of one entry.
const BATCH: usize = 2_000;

/// Why a reign ends although the group still calls this nameserver its leader.
#[derive(Debug)]
struct Unsettled;

/// Reigns whenever this nameserver leads, until the process stops.
pub(super) async fn run(control: Arc<Control>) {
    let stop = control.group.stop();
    let mut leadership = control.group.leadership();
    loop {
        let led = tokio::select! {
            () = stop.cancelled() => return,
            led = leadership.wait_for(|l| l.here) => led.map(|l| l.term),
        };
        let Ok(term) = led else { return };
        tokio::select! {
            () = stop.cancelled() => {}
            () = deposed(&mut leadership, term) => {}
            Unsettled = reign(&control) => {}
        }
        control.reign.send_replace(None);
        control.forget();
    }
}

async fn deposed(leadership: &mut watch::Receiver<Leadership>, term: u64) {
    // An error means that the process stops.
    let _ = leadership.wait_for(|l| !l.here || l.term != term).await;
}

async fn reign(control: &Arc<Control>) -> Unsettled {
    let epoch = take_over(control).await;
    control.forget();
    control.reign.send_replace(Some(Reign { epoch }));
    tracing::info!(epoch, "controls the tablets");
    tokio::select! {
        () = pulse(control) => Unsettled,
        unsettled = passes(control) => unsettled,
    }
}

/// Commits a controller epoch: whatever earlier reigns proposed is applied by then, or never will be.
async fn take_over(control: &Control) -> u64 {
    loop {
        let node = control.group.node().unwrap_or(NodeId(0));
        match control.group.propose_batch(vec![Command::TakeOver { node }]).await {
            Ok((replies, _)) => match replies.first() {
                Some(Reply::Controller(epoch)) => return *epoch,
                other => tracing::error!(?other, "taking over was answered strangely"),
            },
            Err(e) => tracing::warn!(error = %e, "cannot take over yet"),
        }
        // Deposed or without a quorum, which the caller learns by itself.
        tokio::time::sleep(PULSE).await;
    }
}

/// Lets the time pass: silence grows, and suspects are looked at again. On its own, so that it goes on while a pass waits
/// for the group: a gap here means that the whole process stood still.
async fn pulse(control: &Arc<Control>) {
    let mut ticks = tokio::time::interval(PULSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Millis::now();
        let (suspects, missing, blocked) = {
            let mut soft = control.soft.lock();
            soft.tick(now);
            (soft.judge.suspects(), soft.guard.question(now), soft.complaints(now))
        };
        for (tablet, run) in suspects {
            control.suspect(tablet, run);
        }
        if let Some(missing) = missing {
            control.ask_another(missing);
        }
        for (why, partitions) in blocked {
            tracing::warn!(partitions, why, "partitions have no leader");
        }
        control.signs.send_replace(());
    }
}

/// Plans whenever there is a sign, the time has passed, or something was applied that decisions depend on.
async fn passes(control: &Arc<Control>) -> Unsettled {
    let (mut signs, mut applied) = (control.signs.subscribe(), control.group.store().watch());
    let mut looked = *applied.borrow_and_update();
    loop {
        if let Err(unsettled) = pass(control).await {
            return unsettled;
        }
        execute::execute(control);
        loop {
            tokio::select! {
                _ = signs.changed() => break,
                _ = applied.changed() => {}
            }
            let since = std::mem::replace(&mut looked, *applied.borrow_and_update());
            if matter(control, since) {
                break;
            }
        }
    }
}

/// Has anything changed since that index on which decisions depend? What is dropped is forgotten.
fn matter(control: &Control, since: u64) -> bool {
    let Some(keys) = control.group.store().changed_since(since) else {
        control.note(|soft, state| soft.prune(state));
        return true;
    };
    if keys.iter().any(|key| matches!(key, Key::Table(_) | Key::Tombstone(_) | Key::Removal(_))) {
        control.note(|soft, state| soft.prune(state));
    }
    keys.iter().any(|key| {
        matches!(
            key,
            Key::Partition(_)
                | Key::Tablet(_)
                | Key::Tombstone(_)
                | Key::Removal(_)
                | Key::Op(_)
                | Key::Job(_)
                | Key::Config(_)
        )
    })
}

/// One pass. Nothing to do costs a look at the state and no round.
async fn pass(control: &Arc<Control>) -> Result<(), Unsettled> {
    let (commands, orders) = control.note(|soft, state| {
        let commands = soft.plan(state, Millis::now());
        (commands, !soft.drains().is_empty())
    });
    if orders {
        control.orders.send_replace(());
    }
    if commands.is_empty() {
        return Ok(());
    }
    if control.group.confirm().await.is_err() {
        return Ok(());
    }
    let commands = control.note(|soft, state| {
        let commands = soft.plan(state, Millis::now());
        soft.bar(state, &commands);
        for (partition, leader) in soft.passed_over(state, &commands) {
            tracing::warn!(%partition, leader, "does not come to serve: another one is to lead");
        }
        commands
    });
    let carried_out = carry_out(control, &commands).await;
    if carried_out.is_ok() {
        control.soft.lock().unbar();
    }
    carried_out
}

/// Proposes them in order, in as few entries as they fit into. What was certainly not proposed is left to the next pass.
async fn carry_out(control: &Control, mut commands: &[Command]) -> Result<(), Unsettled> {
    let mut most = BATCH;
    while !commands.is_empty() {
        let (some, rest) = commands.split_at(most.min(commands.len()));
        let steps = steps::pass(&control.group, some, When::Before);
        match control.group.propose_batch(some.to_vec()).await {
            Ok((replies, index)) => {
                steps::pass_again(&steps, When::After);
                report(control, some, &replies, index);
                commands = rest;
            }
            Err(ProposeError::TooLarge { .. }) if some.len() > 1 => most = some.len() / 2,
            Err(ProposeError::Unknown) => {
                tracing::warn!(
                    commands = commands.len(),
                    "the outcome of a decision is unknown: takes over again"
                );
                return Err(Unsettled);
            }
            Err(e) => {
                tracing::warn!(error = %e, commands = commands.len(), "a decision was not proposed");
                return Ok(());
            }
        }
    }
    Ok(())
}

fn report(control: &Control, commands: &[Command], replies: &[Reply], index: u64) {
    for (command, reply) in commands.iter().zip(replies) {
        match (command, reply.refusal()) {
            (_, Some(refusal)) => tracing::debug!(index, ?command, %refusal, "moved on meanwhile"),
            (Command::Offline { tablet, .. }, None) => {
                tracing::warn!(index, %tablet, endpoint = control.endpoint_of(*tablet), "tablet is offline");
            }
            (Command::Online { tablet, .. }, None) => {
                tracing::info!(index, %tablet, endpoint = control.endpoint_of(*tablet), "tablet is online again");
            }
            (Command::Elect(Elect { key, leader, unclean: Some(shown), .. }), None) => {
                let leader = control.endpoint_of(*leader);
                tracing::warn!(index, partition = %key, leader, shown, "elected; its last writes may be lost");
            }
            (Command::Elect(e), None) => {
                tracing::info!(index, partition = %e.key, leader = control.endpoint_of(e.leader), "elected");
            }
            (Command::EndOp { op, status: OpStatus::Failed, why }, None) => {
                tracing::warn!(index, %op, why, "an operation has failed");
            }
            (Command::EndJob { job, status, why }, None) => {
                tracing::info!(index, %job, status = status.word(), why, "a job has ended");
            }
            (Command::EndSwitch { key, why, .. }, None) => {
                tracing::warn!(index, partition = %key, why, "a planned switch was given up");
            }
            _ => {}
        }
    }
}
