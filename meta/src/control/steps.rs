//! The places between two steps of an operation, by name: before a step is proposed, and after it was applied. A drill
//! kills the nameserver at each of them (D17).

use stela_common::point;
use stela_meta_state::command::{ChangeInSync, Command};
use stela_meta_state::order::Order;
use stela_meta_state::state::State;

use crate::group::Group;

/// Before, or after.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// It is decided, and not proposed.
    Before,
    /// It is applied, and nobody knows.
    After,
}

/// Passes the places of these commands. What they are about is looked up in the state.
pub(crate) fn pass<'a>(
    group: &Group,
    commands: impl IntoIterator<Item = &'a Command>,
    when: When,
) -> Vec<String> {
    let mut names = Vec::new();
    for command in commands {
        point::pass(|| {
            let name = group.store().read(|state| step(state, command))?;
            names.push(name.clone());
            Some(format!("{name}.{}", word(when)))
        });
    }
    names
}

/// Passes places of which the names are known: what they were about may be gone.
pub(crate) fn pass_again(names: &[String], when: When) {
    for name in names {
        point::pass(|| Some(format!("{name}.{}", word(when))));
    }
}

fn word(when: When) -> &'static str {
    match when {
        When::Before => "before",
        When::After => "after",
    }
}

/// The step that a command is; `None`: it is not about an operation.
fn step(state: &State, command: &Command) -> Option<String> {
    let kind = |op| state.ops.get(op).map(|op| op.kind.word());
    Some(match command {
        Command::CreateTable { .. } => "CreateTable.create".into(),
        Command::DropTable { .. } => "DropTable.drop".into(),
        Command::ConfirmDropped { .. } => "DropTable.confirm".into(),
        Command::Order(order) => format!("{}.order", ordered(order)?),
        Command::StartOp { op } => format!("{}.start", kind(op)?),
        Command::TakeAway { op } => format!("{}.take-away", kind(op)?),
        Command::EndOp { op, .. } => format!("{}.end", kind(op)?),
        Command::UpdateOp { op, task, .. } => format!("{}.{task}", kind(op)?),
        Command::ConfirmRemoved { key, .. } => {
            let (_, op) = state.current_op(state.partitions.get(key)?)?;
            format!("{}.confirm-removed", op.kind.word())
        }
        Command::Elect(elect) => {
            let switch = state.partitions.get(&elect.key)?.switch?;
            format!("{}.elect", kind(&switch.op)?)
        }
        Command::ChangeInSync(ChangeInSync { key, in_sync, .. }) => {
            let partition = state.partitions.get(key)?;
            let (_, op) = state.current_op(partition)?;
            (in_sync.len() > partition.in_sync.len())
                .then(|| format!("{}.in-sync", op.kind.word()))?
        }
        _ => return None,
    })
}

fn ordered(order: &Order) -> Option<&'static str> {
    Some(match order {
        Order::AddReplica { .. } => "kAddReplicaOP",
        Order::DelReplica { .. } => "kDelReplicaOP",
        Order::Migrate { .. } => "kMigrateOP",
        Order::ChangeLeader { .. } => "kChangeLeaderOP",
        Order::OfflineEndpoint { .. } => "kOfflineReplicaOP",
        Order::RecoverEndpoint { .. } | Order::RecoverTable { .. } => "kRecoverTableOP",
        Order::MakeSnapshot { .. } => "kMakeSnapshotOP",
        _ => return None,
    })
}
