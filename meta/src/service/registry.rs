//! What tablets say to the nameserver that controls: registration (R14), heartbeats (R17), proposals of leaders (R7).
//!
//! Invariants: a registration is answered after it is committed and known here; of a proposal nothing is said but what
//! is certain ([`Verdict`](stela_meta_state::command::Verdict)).

use std::collections::BTreeSet;
use std::sync::Arc;

use stela_common::code::{Code, Refusal};
use stela_common::ids::{Epoch, Incarnation, PartitionKey, TableId, TabletId, Version};
use stela_common::wire;
use stela_meta_state::command::{ChangeInSync, Command, Register, Reply, Verdict};
use stela_proto::heartbeat as pb;
use stela_proto::heartbeat::registry_server::Registry;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::control::steps::{self, When};
use crate::control::{Control, attend};
use crate::group::Group;

/// Where tablets report.
pub struct Desk {
    group: Group,
    control: Arc<Control>,
}

impl Desk {
    pub(super) fn new(group: Group, control: Arc<Control>) -> Self {
        Self { group, control }
    }

    fn leader(&self) -> String {
        self.group.leadership().borrow().leader.clone().unwrap_or_default()
    }

    async fn admit(&self, request: pb::RegisterRequest) -> Result<(TabletId, u64), Refusal> {
        self.control.same_cluster(&request.cluster)?;
        if self.control.reign().borrow().is_none() {
            return Err(Code::NotLeader.into());
        }
        let key = |i: &pb::Inventory| PartitionKey::new(i.tid, i.pid);
        let starts: Vec<Incarnation> = request.starts.iter().map(|run| Incarnation(*run)).collect();
        let run = starts.last().copied().unwrap_or_default();
        let register = Register {
            endpoint: request.endpoint,
            starts,
            dir_uuid: request.dir_uuid,
            boot_id: request.boot_id,
            clean: request.clean,
            damaged: request.inventory.iter().filter(|i| i.damaged).map(key).collect(),
            highest: TableId(request.inventory.iter().map(|i| i.tid).max().unwrap_or(0)),
        };
        let (reply, index) = self.group.propose(Command::Register(register), None).await?;
        match reply {
            Reply::Registered(tablet) => {
                let inventory = request.inventory.iter().map(|i| attend::inventory(run, i));
                self.control.registered(tablet, run, inventory);
                Ok((tablet, index))
            }
            other => Err(other.refusal().unwrap_or_else(|| Code::UnknownOutcome.into())),
        }
    }

    /// Those that the proposal removes, as far as is known here.
    fn removed(&self, change: &ChangeInSync) -> Vec<TabletId> {
        let stay: BTreeSet<TabletId> = change.in_sync.iter().map(|m| m.tablet).collect();
        self.group.store().read(|state| {
            let partition = state.partitions.get(&change.key);
            let members = partition.into_iter().flat_map(|p| &p.in_sync).map(|m| m.tablet);
            members.filter(|t| !stay.contains(t)).collect()
        })
    }
}

#[tonic::async_trait]
impl Registry for Desk {
    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterReply>, Status> {
        let request = request.into_inner();
        let endpoint = request.endpoint.clone();
        Ok(Response::new(match self.admit(request).await {
            Ok((tablet, index)) => {
                tracing::info!(%tablet, endpoint, index, "registered");
                pb::RegisterReply {
                    status: wire::ok(),
                    tablet: tablet.0,
                    leader: String::new(),
                    index,
                }
            }
            Err(refusal) => {
                tracing::debug!(endpoint, %refusal, "registration refused");
                pb::RegisterReply {
                    status: wire::refused(&refusal),
                    leader: self.leader(),
                    ..Default::default()
                }
            }
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<pb::HeartbeatUp>>,
    ) -> Result<Response<tonic::codegen::BoxStream<pb::HeartbeatDown>>, Status> {
        let (answers, stream) = mpsc::channel(attend::UNREAD);
        tokio::spawn(attend::attend(self.control.clone(), request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn change_in_sync(
        &self,
        request: Request<pb::ChangeInSyncRequest>,
    ) -> Result<Response<pb::ChangeInSyncReply>, Status> {
        let request = request.into_inner();
        let unknown = |refusal: &Refusal| pb::ChangeInSyncReply {
            verdict: pb::Verdict::Unknown as i32,
            version: 0,
            hint: self.leader(),
            msg: refusal.text.clone(),
        };
        if let Err(refusal) = self.control.same_cluster(&request.cluster) {
            return Ok(Response::new(unknown(&refusal)));
        }
        let change = ChangeInSync {
            key: PartitionKey::new(request.tid, request.pid),
            epoch: Epoch(request.epoch),
            expected: Version(request.expected_version),
            in_sync: request.in_sync.iter().map(Into::into).collect(),
            by: TabletId(request.tablet),
            by_incarnation: Incarnation(request.incarnation),
        };
        let removed = self.removed(&change);
        if !removed.is_empty() {
            self.control.settle(&removed).await;
        }
        let change = Command::ChangeInSync(change);
        let steps = steps::pass(&self.group, [&change], When::Before);
        let proposed = self.group.propose(change, None).await;
        steps::pass_again(&steps, When::After);
        let reply = match proposed {
            Ok((reply, _)) => reply,
            Err(e) => return Ok(Response::new(unknown(&e.into()))),
        };
        let msg = reply.refusal().map(|r| r.text).unwrap_or_default();
        let (verdict, version) = match reply.verdict() {
            Verdict::Applied(version) => (pb::Verdict::Applied, version.0),
            Verdict::Rejected => (pb::Verdict::Rejected, 0),
            Verdict::Unknown => (pb::Verdict::Unknown, 0),
        };
        Ok(Response::new(pb::ChangeInSyncReply {
            verdict: verdict as i32,
            version,
            hint: String::new(),
            msg,
        }))
    }
}
