//! What clients ask of a nameserver, of whichever they reach.
//!
//! **Invariants**
//! * What is read is linearizable: it shows everything that was acknowledged before the question (design: promise 2).
//!   Only [`cluster`](Nameserver::cluster) answers at once with what is known here.
//! * A write goes to the group with its request id, and nothing is refused here that a first copy of the same request
//!   may have been granted: what depends on the state is said by applying it, so that all copies get one answer.
//! * A refusal is a status of the reply; only what cannot be understood is an error of the call.

use std::sync::Arc;

use stela_common::clock::{Millis, wall_ms};
use stela_common::code::{Code, Refusal};
use stela_common::table::Table;
use stela_common::wire;
use stela_meta_state::command::{Command, Reply, RequestId};
use stela_meta_state::op::OpStatus;
use stela_meta_state::order::Order;
use stela_meta_state::placement;
use stela_meta_state::state::State;
use stela_proto::nameserver as pb;
use stela_proto::nameserver::nameserver_client::NameserverClient;
use stela_proto::nameserver::nameserver_server::Nameserver;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::forward::Forward;
use super::orders::Ordered;
use super::{manual, orders, show};
use crate::control::Control;
use crate::control::steps::{self, When};
use crate::group::Group;

/// Databases that OpenMLDB's tools name: they can be used and are never listed.
const INTERNAL: [&str; 3] = ["__INTERNAL_DB", "__PRE_AGG_DB", "INFORMATION_SCHEMA"];

/// The calls that are orders.
macro_rules! orders {
    ($($name:ident($request:ident) = $order:expr;)*) => {
        $(
            fn $name<'s, 'a>(
                &'s self,
                request: Request<pb::$request>,
            ) -> std::pin::Pin<
                Box<dyn Future<Output = Result<Response<pb::WriteReply>, Status>> + Send + 'a>,
            >
            where
                's: 'a,
                Self: 'a,
            {
                Box::pin(async move {
                    let request = request.into_inner();
                    let id = request.request;
                    let order: Result<Order, Refusal> = ($order)(request);
                    Ok(Response::new(match order {
                        Ok(order) => self.write(Command::Order(order), id).await,
                        Err(refusal) => written(Err(refusal)),
                    }))
                })
            }
        )*
    };
}

/// A client's answers.
pub struct Answers {
    group: Group,
    control: Arc<Control>,
    forward: Forward,
}

impl Answers {
    pub(super) fn new(group: Group, control: Arc<Control>) -> Self {
        Self { group, control, forward: Forward::default() }
    }

    /// Looks at a state that shows everything acknowledged before.
    pub(super) async fn read<T>(&self, look: impl FnOnce(&State) -> T) -> Result<T, Refusal> {
        self.group.linearizable().await?;
        Ok(self.group.store().read(look))
    }

    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    pub(super) async fn write(
        &self,
        command: Command,
        request: Option<pb::RequestId>,
    ) -> pb::WriteReply {
        let request =
            request.filter(|r| r.client != 0).map(|r| RequestId { client: r.client, seq: r.seq });
        let steps = steps::pass(&self.group, [&command], When::Before);
        let outcome = self.group.propose(command, request).await.map_err(Refusal::from);
        steps::pass_again(&steps, When::After);
        written(outcome.and_then(|(reply, index)| match reply.refusal() {
            Some(refusal) => Err(refusal),
            None => Ok((reply, index)),
        }))
    }

    /// Rows that are there are brought into a new index by what their columns say. Without a schema they say nothing: then
    /// an index comes to an empty table only.
    async fn may_add_index(
        &self,
        table: Option<pb::TableName>,
        index: &str,
    ) -> Result<(), Refusal> {
        let pb::TableName { db, name, tid } = table.unwrap_or_default();
        let all_databases = name.is_empty();
        let request = pb::ShowTableRequest { db, name: name.clone(), all_databases };
        let shown = self.tables(Request::new(request)).await?.tables;
        let meant = |t: &&pb::TableRow| {
            let table = t.table.as_ref();
            !name.is_empty() || table.is_some_and(|t| t.tid == tid)
        };
        let indexes = shown.iter().filter(meant).filter_map(|t| t.table.as_ref());
        if indexes.clone().flat_map(|t| &t.indexes).any(|i| i.name == index && !i.deleted) {
            return Err(Code::IndexExists.into());
        }
        if indexes.clone().any(|t| !t.columns.is_empty()) {
            return Ok(());
        }
        let mut replicas = shown
            .iter()
            .filter(meant)
            .flat_map(|t| &t.partitions)
            .flat_map(|p| p.replicas.iter().filter(|r| r.leader && r.alive || r.offset > 0));
        match replicas.find(|r| !r.known || r.offset > 0) {
            None => Ok(()),
            Some(_) => Err(Refusal::new(
                Code::AddIndexFailed,
                "add index failed. msg the table has rows, which it would not find: make a table with the index, and write them there",
            )),
        }
    }

    async fn tablets(&self) -> Result<pb::ShowTabletReply, Refusal> {
        self.group.linearizable().await?;
        let now = wall_ms();
        Ok(self.control.look(|soft, state| {
            let mut tablets: Vec<pb::TabletRow> = state
                .tablets
                .iter()
                .map(|(id, t)| pb::TabletRow {
                    endpoint: t.endpoint.clone(),
                    healthy: t.healthy,
                    age_ms: now.saturating_sub(t.since),
                    id: id.0,
                    known_index: soft.known(*id),
                    sdk_endpoint: t.sdk_endpoint.clone(),
                })
                .collect();
            tablets.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
            pb::ShowTabletReply { status: wire::ok(), tablets }
        }))
    }

    async fn tables(
        &self,
        request: Request<pb::ShowTableRequest>,
    ) -> Result<pb::ShowTableReply, Refusal> {
        let ask = |mut there: Peer, r| async move { there.show_table(r).await };
        let request = match self.controller(request, ask).await? {
            Asked::Here(request) => request,
            Asked::There(reply) => return Ok(reply),
        };
        self.group.linearizable().await?;
        Ok(self.control.look(|soft, state| pb::ShowTableReply {
            status: wire::ok(),
            tables: show::tables(soft, state, &request, Millis::now()),
            index: state.applied,
        }))
    }

    /// Lets the nameserver that controls answer, if it is another one: only it knows what tablets report.
    async fn controller<T, R, A>(
        &self,
        request: Request<T>,
        ask: impl FnOnce(Peer, Request<T>) -> A,
    ) -> Result<Asked<T, R>, Refusal>
    where
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let forwarded = Forward::is_forwarded(&request);
        let request = request.into_inner();
        match self.elsewhere().await? {
            None => Ok(Asked::Here(request)),
            Some(_) if forwarded => Err(Code::NotLeader.into()),
            Some(leader) => Ok(Asked::There(self.forward.ask(&leader, request, ask).await?)),
        }
    }

    /// The nameserver that has the soft state, if it is another one; waits until there is one at all.
    async fn elsewhere(&self) -> Result<Option<String>, Refusal> {
        let mut leadership = self.group.leadership();
        let known = leadership.wait_for(|l| l.here || l.leader.is_some());
        match tokio::time::timeout(crate::group::DEADLINE, known).await {
            Ok(Ok(known)) if known.here => Ok(None),
            Ok(Ok(known)) => Ok(known.leader.clone()),
            _ => Err(Code::NotLeader.into()),
        }
    }
}

/// Another nameserver.
type Peer = NameserverClient<Channel>;

/// Who answers a request.
enum Asked<T, R> {
    /// This nameserver.
    Here(T),
    /// Another one, and this is its answer.
    There(R),
}

pub(super) fn written(outcome: Result<(Reply, u64), Refusal>) -> pb::WriteReply {
    match outcome {
        Ok((reply, index)) => {
            let tid = if let Reply::Created(tid) = reply { tid.0 } else { 0 };
            let job = if let Reply::Job(job) = reply { job.0 } else { 0 };
            pb::WriteReply { status: wire::ok(), index, tid, job }
        }
        Err(refusal) => pb::WriteReply { status: wire::refused(&refusal), ..Default::default() },
    }
}

/// The reply of a read: the one that was made, or an empty one that says why there is none.
fn told<T: Default>(
    outcome: Result<T, Refusal>,
    status: impl FnOnce(&mut T) -> &mut Option<stela_proto::common::Status>,
) -> Response<T> {
    Response::new(outcome.unwrap_or_else(|refusal| {
        let mut reply = T::default();
        *status(&mut reply) = wire::refused(&refusal);
        reply
    }))
}

#[tonic::async_trait]
impl Nameserver for Answers {
    async fn cluster(
        &self,
        _: Request<pb::ClusterRequest>,
    ) -> Result<Response<pb::ClusterReply>, Status> {
        let leader = self.group.leadership().borrow().leader.clone().unwrap_or_default();
        let voters = self.group.voters();
        let row = |(id, endpoint): (stela_common::ids::NodeId, String)| pb::NameserverRow {
            id: id.0,
            voter: voters.contains(&id.0),
            leader: endpoint == leader,
            endpoint,
        };
        Ok(Response::new(pb::ClusterReply {
            cluster: self.group.cluster().to_owned(),
            nameservers: self.group.members().into_iter().map(row).collect(),
            leader: leader.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn show_tablet(
        &self,
        request: Request<pb::ShowTabletRequest>,
    ) -> Result<Response<pb::ShowTabletReply>, Status> {
        let ask = |mut there: Peer, r| async move { there.show_tablet(r).await };
        let tablets = match self.controller(request, ask).await {
            Ok(Asked::Here(_)) => self.tablets().await,
            Ok(Asked::There(reply)) => Ok(reply),
            Err(refusal) => Err(refusal),
        };
        Ok(told(tablets, |r| &mut r.status))
    }

    async fn show_table(
        &self,
        request: Request<pb::ShowTableRequest>,
    ) -> Result<Response<pb::ShowTableReply>, Status> {
        Ok(told(self.tables(request).await, |r| &mut r.status))
    }

    async fn show_op_status(
        &self,
        request: Request<pb::ShowOpStatusRequest>,
    ) -> Result<Response<pb::ShowOpStatusReply>, Status> {
        let request = request.into_inner();
        let ops = self.read(|state| {
            let asked = state.ops.iter().filter(|(_, op)| {
                (request.db.is_empty() || op.db == request.db)
                    && (request.name.is_empty() || op.name == request.name)
                    && request.pid.is_none_or(|pid| op.key.pid.0 == pid)
            });
            let ops = asked.map(|(id, op)| pb::OpRow {
                id: id.0,
                r#type: op.kind.word().to_owned(),
                db: op.db.clone(),
                name: op.name.clone(),
                pid: Some(op.key.pid.0),
                status: op.status.word().to_owned(),
                start_time: if op.status == OpStatus::Inited { 0 } else { op.start },
                end_time: op.end,
                cur_task: op.task.clone(),
                why: op.why.clone(),
            });
            pb::ShowOpStatusReply { status: wire::ok(), ops: ops.collect() }
        });
        Ok(told(ops.await, |r| &mut r.status))
    }

    async fn conf_get(
        &self,
        request: Request<pb::ConfGetRequest>,
    ) -> Result<Response<pb::ConfGetReply>, Status> {
        let key = request.into_inner().key;
        let rows = if key.is_empty() || key == "auto_failover" {
            self.read(State::auto_failover).await.map(|on| pb::ConfGetReply {
                status: wire::ok(),
                rows: vec![pb::ConfRow { key: "auto_failover".into(), value: on.to_string() }],
            })
        } else {
            Err(Refusal::new(Code::InvalidParameter, format!("cannot found key {key}")))
        };
        Ok(told(rows, |r| &mut r.status))
    }

    async fn conf_set(
        &self,
        request: Request<pb::ConfSetRequest>,
    ) -> Result<Response<pb::WriteReply>, Status> {
        let by = request.remote_addr().map(|a| a.to_string()).unwrap_or_default();
        let pb::ConfSetRequest { key, value, request } = request.into_inner();
        Ok(Response::new(self.write(Command::SetConfig { key, value, by }, request).await))
    }

    async fn show_db(
        &self,
        _: Request<pb::ShowDbRequest>,
    ) -> Result<Response<pb::ShowDbReply>, Status> {
        let names = self.read(|state| {
            let names = state.databases.keys().filter(|name| !INTERNAL.contains(&name.as_str()));
            pb::ShowDbReply { status: wire::ok(), names: names.cloned().collect() }
        });
        Ok(told(names.await, |r| &mut r.status))
    }

    async fn create_db(
        &self,
        request: Request<pb::DbRequest>,
    ) -> Result<Response<pb::WriteReply>, Status> {
        let pb::DbRequest { name, request } = request.into_inner();
        if INTERNAL.contains(&name.as_str()) {
            return Ok(Response::new(written(Err(Code::DatabaseExists.into()))));
        }
        Ok(Response::new(self.write(Command::CreateDatabase { name }, request).await))
    }

    async fn drop_db(
        &self,
        request: Request<pb::DbRequest>,
    ) -> Result<Response<pb::WriteReply>, Status> {
        let pb::DbRequest { name, request } = request.into_inner();
        Ok(Response::new(self.write(Command::DropDatabase { name }, request).await))
    }

    async fn use_db(
        &self,
        request: Request<pb::DbRequest>,
    ) -> Result<Response<pb::WriteReply>, Status> {
        let name = request.into_inner().name;
        let known = self.read(|state| {
            let there = INTERNAL.contains(&name.as_str()) || state.databases.contains_key(&name);
            if there {
                Ok((Reply::Done, state.applied))
            } else {
                Err(Refusal::from(Code::DatabaseNotFound))
            }
        });
        Ok(Response::new(written(known.await.and_then(|known| known))))
    }

    async fn create_table(
        &self,
        request: Request<pb::CreateTableRequest>,
    ) -> Result<Response<pb::WriteReply>, Status> {
        let pb::CreateTableRequest { table, request } = request.into_inner();
        let table = Table::try_from(&table.ok_or(wire::Malformed("table"))?)?;
        // A definition that is wrong is wrong for every copy of the request.
        if let Err(what) = table.check() {
            let refusal =
                Refusal::new(Code::InvalidParameter, format!("check TableMeta failed! {what}"));
            return Ok(Response::new(written(Err(refusal))));
        }
        let place = |state: &State| {
            placement::place(state, table.partition_num, table.replica_num).unwrap_or_default()
        };
        let placement = match self.read(place).await {
            Ok(placement) => placement,
            Err(refusal) => return Ok(Response::new(written(Err(refusal)))),
        };
        Ok(Response::new(self.write(Command::CreateTable { table, placement }, request).await))
    }

    async fn drop_table(
        &self,
        request: Request<pb::DropTableRequest>,
    ) -> Result<Response<pb::WriteReply>, Status> {
        let pb::DropTableRequest { db, name, request } = request.into_inner();
        Ok(Response::new(self.write(Command::DropTable { db, name }, request).await))
    }

    async fn set_table(
        &self,
        request: Request<pb::SetTableRequest>,
    ) -> Result<Response<pb::WriteReply>, Status> {
        let changed = self.change_options(request.into_inner()).await;
        Ok(Response::new(manual::answered(changed)))
    }

    orders! {
        change_leader(ChangeLeaderRequest) = Ordered::order;
        add_replica(ReplicasRequest) = orders::add_replica;
        del_replica(ReplicasRequest) = orders::del_replica;
        migrate(MigrateRequest) = Ordered::order;
        offline_endpoint(EndpointRequest) = |r| Ok(orders::offline(r));
        recover_endpoint(EndpointRequest) = |r| Ok(orders::recover(r));
        recover_table(ReplicaRequest) = Ordered::order;
        update_table_alive(AliveRequest) = Ordered::order;
        set_table_partition(SetTablePartitionRequest) = Ordered::order;
        make_snapshot(PartitionRequest) = Ordered::order;
        cancel_op(OpRequest) = Ordered::order;
        delete_op(DeleteOpRequest) = Ordered::order;
        set_sdk_endpoint(SetSdkEndpointRequest) = Ordered::order;
        start_job(StartJobRequest) = Ordered::order;
        cancel_job(JobRequest) = Ordered::order;
    }

    async fn alter_table(
        &self,
        request: Request<pb::AlterTableRequest>,
    ) -> Result<Response<pb::WriteReply>, Status> {
        let request = request.into_inner();
        if let Some(pb::alter_table_request::Change::AddIndex(index)) = &request.change
            && let Err(refusal) = self.may_add_index(request.table.clone(), &index.name).await
        {
            return Ok(Response::new(written(Err(refusal))));
        }
        let id = request.request;
        Ok(Response::new(match request.order() {
            Ok(order) => self.write(Command::Order(order), id).await,
            Err(refusal) => written(Err(refusal)),
        }))
    }

    async fn show_jobs(
        &self,
        request: Request<pb::JobRequest>,
    ) -> Result<Response<pb::ShowJobsReply>, Status> {
        let ask = |mut there: Peer, r| async move { there.show_jobs(r).await };
        let jobs = match self.controller(request, ask).await {
            Ok(Asked::Here(request)) => self.jobs(request.id).await,
            Ok(Asked::There(reply)) => Ok(reply),
            Err(refusal) => Err(refusal),
        };
        Ok(told(jobs, |r| &mut r.status))
    }

    async fn candidates(
        &self,
        request: Request<pb::CandidatesRequest>,
    ) -> Result<Response<pb::CandidatesReply>, Status> {
        let ask = |mut there: Peer, r| async move { there.candidates(r).await };
        let known = match self.controller(request, ask).await {
            Ok(Asked::Here(request)) => self.candidates_of(&request).await,
            Ok(Asked::There(reply)) => Ok(reply),
            Err(refusal) => Err(refusal),
        };
        Ok(told(known, |r| &mut r.status))
    }

    async fn elect(
        &self,
        request: Request<pb::ElectRequest>,
    ) -> Result<Response<pb::WriteReply>, Status> {
        let ask = |mut there: Peer, r| async move { there.elect(r).await };
        let elected = match self.controller(request, ask).await {
            Ok(Asked::Here(request)) => self.elect_unclean(request).await,
            Ok(Asked::There(reply)) => Ok(reply),
            Err(refusal) => Err(refusal),
        };
        Ok(Response::new(manual::answered(elected)))
    }
}
