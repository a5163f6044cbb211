//! Operations whose work is a call to a tablet, and not a decision: `makesnapshot`, and filling an index.
//!
//! Invariant: level-triggered as the planner is: whatever goes on by the state and is not under way here is called (again);
//! a tablet that is asked twice makes another snapshot, or finds all rows in the index, which does no harm.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stela_common::ids::{OpId, PartitionKey};
use stela_common::{point, wire};
use stela_meta_state::command::Command;
use stela_meta_state::op::{OpKind, OpStatus};
use stela_meta_state::state::State;
use stela_proto::common::Status;
use stela_proto::tablet as pb;
use stela_proto::tablet::tablet_client::TabletClient;
use tonic::transport::{Channel, Endpoint};

use super::Control;
use super::steps::{self, When};

/// A tablet that is there accepts a connection in this time.
const CONNECT: Duration = Duration::from_millis(1500);
/// A large snapshot takes minutes; an operation is given up after ten.
const PATIENCE: Duration = Duration::from_secs(600);
/// To fill an index from a large partition takes hours at most; then it is begun again.
const FILLING: Duration = Duration::from_secs(86_400);
/// A tablet that answers no ping for so long is not there.
const ALIVE: Duration = Duration::from_secs(5);
/// A leader that cannot fill an index yet is asked again after this.
const PAUSE: Duration = Duration::from_millis(300);

/// The calls that are under way.
#[derive(Default)]
pub(super) struct Calls(Mutex<BTreeSet<OpId>>);

/// What a tablet is to do.
enum Call {
    MakeSnapshot,
    /// As of which version of the table.
    FillIndex(u32),
}

/// Calls the tablets that are to be called and are not yet.
pub(super) fn execute(control: &Arc<Control>) {
    for (op, key, endpoint, call) in control.group.store().read(wanted) {
        if !control.calls.0.lock().insert(op) {
            continue;
        }
        let control = control.clone();
        tokio::spawn(async move {
            let kind = match call {
                Call::MakeSnapshot => OpKind::MakeSnapshot,
                Call::FillIndex(_) => OpKind::AddIndex,
            };
            let place = |place: &str| point::pass(|| Some(format!("{}.{place}", kind.word())));
            place("call.before");
            let made = ask(&endpoint, key, &call).await;
            place("call.after");
            let (status, why) = match made {
                Ok(()) => (OpStatus::Done, String::new()),
                Err(why) if kind == OpKind::AddIndex => {
                    // Whoever leads then is asked again, until the operation is cancelled.
                    tracing::info!(%op, %key, %why, "an index is not filled yet");
                    tokio::time::sleep(PAUSE).await;
                    control.calls.0.lock().remove(&op);
                    control.signs.send_replace(());
                    return;
                }
                Err(why) => (OpStatus::Failed, why),
            };
            let ended = Command::EndOp { op, status, why };
            // Not proposed, or not known to be: the next pass calls again.
            let steps = steps::pass(&control.group, [&ended], When::Before);
            let ended = control.group.propose_batch(vec![ended]).await;
            steps::pass_again(&steps, When::After);
            if let Err(error) = ended {
                tracing::warn!(%op, %error, "the end of an operation was not put on record");
            }
            control.calls.0.lock().remove(&op);
        });
    }
}

fn wanted(state: &State) -> Vec<(OpId, PartitionKey, String, Call)> {
    let current = state.partitions.iter().filter_map(|(key, p)| {
        let (id, op) = state.current_op(p)?;
        let (call, tablet) = match op.kind {
            OpKind::MakeSnapshot => (Call::MakeSnapshot, op.tablet),
            OpKind::AddIndex => (Call::FillIndex(state.tables.get(&key.tid)?.version()), p.leader),
            _ => return None,
        };
        (op.status == OpStatus::Doing).then(|| (id, *key, state.endpoint(tablet), call))
    });
    current.collect()
}

async fn ask(endpoint: &str, key: PartitionKey, call: &Call) -> Result<(), String> {
    let address = Endpoint::from_shared(format!("http://{endpoint}")).map_err(|e| e.to_string())?;
    let patience = match call {
        Call::MakeSnapshot => PATIENCE,
        Call::FillIndex(_) => FILLING,
    };
    let address = address.connect_timeout(CONNECT).timeout(patience);
    // Whoever is not there any more is not waited for.
    let channel =
        address.http2_keep_alive_interval(ALIVE).keep_alive_timeout(ALIVE).connect().await;
    let tablet = TabletClient::new(channel.map_err(|_| format!("{endpoint} does not answer"))?);
    let status = status_of(tablet, key, call).await.map_err(|e| e.message().to_owned())?;
    wire::outcome(status.as_ref()).map_err(|refusal| refusal.text)
}

async fn status_of(
    mut tablet: TabletClient<Channel>,
    PartitionKey { tid, pid }: PartitionKey,
    call: &Call,
) -> Result<Option<Status>, tonic::Status> {
    let (tid, pid) = (tid.0, pid.0);
    Ok(match call {
        Call::MakeSnapshot => {
            tablet.make_snapshot(pb::MakeSnapshotRequest { tid, pid }).await?.into_inner().status
        }
        Call::FillIndex(version) => {
            let request = pb::FillIndexRequest { tid, pid, table_version: *version };
            tablet.fill_index(request).await?.into_inner().status
        }
    })
}
