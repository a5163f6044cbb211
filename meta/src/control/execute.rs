//! Operations whose work is a call to a tablet, and not a decision: `makesnapshot`.
//!
//! Invariant: level-triggered as the planner is: whatever goes on by the state and is not under way here is called (again);
//! a tablet that is asked twice makes another snapshot, which does no harm.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stela_common::ids::{OpId, PartitionKey};
use stela_common::{point, wire};
use stela_meta_state::command::Command;
use stela_meta_state::op::{OpKind, OpStatus};
use stela_meta_state::state::State;
use stela_proto::tablet as pb;
use stela_proto::tablet::tablet_client::TabletClient;
use tonic::transport::Endpoint;

use super::Control;
use super::steps::{self, When};

/// A tablet that is there accepts a connection in this time.
const CONNECT: Duration = Duration::from_millis(1500);
/// A large snapshot takes minutes; an operation is given up after ten.
const PATIENCE: Duration = Duration::from_secs(600);

/// The calls that are under way.
#[derive(Default)]
pub(super) struct Calls(Mutex<BTreeSet<OpId>>);

/// Calls the tablets that are to be called and are not yet.
pub(super) fn execute(control: &Arc<Control>) {
    for (op, key, endpoint) in control.group.store().read(wanted) {
        if !control.calls.0.lock().insert(op) {
            continue;
        }
        let control = control.clone();
        tokio::spawn(async move {
            let place = |place: &str| point::pass(|| Some(format!("kMakeSnapshotOP.{place}")));
            place("call.before");
            let made = make_snapshot(&endpoint, key).await;
            place("call.after");
            let (status, why) = match made {
                Ok(()) => (OpStatus::Done, String::new()),
                Err(why) => (OpStatus::Failed, why),
            };
            let ended = Command::EndOp { op, status, why };
            // Not proposed, or not known to be: the next pass calls again.
            let steps = steps::pass(&control.group, [&ended], When::Before);
            let ended = control.group.propose_batch(vec![ended]).await;
            steps::pass_again(&steps, When::After);
            if let Err(error) = ended {
                tracing::warn!(%op, %error, "the end of a snapshot was not put on record");
            }
            control.calls.0.lock().remove(&op);
        });
    }
}

fn wanted(state: &State) -> Vec<(OpId, PartitionKey, String)> {
    let current = state.partitions.iter().filter_map(|(key, p)| {
        let (id, op) = state.current_op(p)?;
        let goes_on = op.kind == OpKind::MakeSnapshot && op.status == OpStatus::Doing;
        goes_on.then(|| (id, *key, state.endpoint(op.tablet)))
    });
    current.collect()
}

async fn make_snapshot(endpoint: &str, key: PartitionKey) -> Result<(), String> {
    let address = Endpoint::from_shared(format!("http://{endpoint}")).map_err(|e| e.to_string())?;
    let channel = address.connect_timeout(CONNECT).timeout(PATIENCE).connect().await;
    let mut tablet = TabletClient::new(channel.map_err(|_| format!("{endpoint} does not answer"))?);
    let request = pb::MakeSnapshotRequest { tid: key.tid.0, pid: key.pid.0 };
    let reply = tablet.make_snapshot(request).await.map_err(|e| e.message().to_owned())?;
    wire::outcome(reply.into_inner().status.as_ref()).map_err(|refusal| refusal.text)
}
