//! The nameserver.

use std::pin::Pin;

use stela_common::code::Code;
use stela_common::wire;
use stela_proto::nameserver as ns;
use stela_proto::nameserver::nameserver_server::Nameserver;
use tonic::{Request, Response, Status};

use super::{Model, Service};

impl Service {
    /// Ok, or what the test wants.
    fn status(&self, refusal: Option<Code>) -> Option<stela_proto::common::Status> {
        let wanted = self.model.lock().refuse.clone();
        match wanted.or(refusal.map(Into::into)) {
            Some(refusal) => wire::refused(&refusal),
            None => wire::ok(),
        }
    }

    fn wrote(
        &self,
        refusal: Option<Code>,
        change: impl FnOnce(&mut Model),
    ) -> Result<Response<ns::WriteReply>, Status> {
        let status = self.status(refusal);
        if wire::outcome(status.as_ref()).is_ok() {
            change(&mut self.model.lock());
        }
        Ok(Response::new(ns::WriteReply { status, ..Default::default() }))
    }
}

fn unless<T>(good: bool, code: T) -> Option<T> {
    (!good).then_some(code)
}

/// Orders are carried out by nobody: they are granted, or refused as the test wants.
macro_rules! orders {
    ($($name:ident($request:ident);)*) => {
        $(fn $name<'a, 'b>(
            &'a self,
            _: Request<ns::$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<ns::WriteReply>, Status>> + Send + 'b>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { self.wrote(None, |_| {}) })
        })*
    };
}

#[tonic::async_trait]
impl Nameserver for Service {
    async fn cluster(
        &self,
        _: Request<ns::ClusterRequest>,
    ) -> Result<Response<ns::ClusterReply>, Status> {
        let row = |id, endpoint: &str, leader| ns::NameserverRow {
            id,
            endpoint: endpoint.into(),
            leader,
            voter: true,
        };
        // One that is away, one that answers, the leader, and one that only follows.
        let port = self.endpoint.rsplit(':').next().unwrap_or_default();
        let standby = format!("0.0.0.0:{port}");
        let learner = ns::NameserverRow { voter: false, ..row(4, &standby, false) };
        let nameservers = vec![
            row(1, "0.0.0.0:1", false),
            row(2, &standby, false),
            row(3, &self.endpoint, true),
            learner,
        ];
        let leader = self.endpoint.clone();
        Ok(Response::new(ns::ClusterReply {
            cluster: "test".into(),
            leader,
            nameservers,
            version: String::new(),
        }))
    }

    async fn show_tablet(
        &self,
        _: Request<ns::ShowTabletRequest>,
    ) -> Result<Response<ns::ShowTabletReply>, Status> {
        let (status, tablets) = (self.status(None), self.model.lock().tablets.clone());
        Ok(Response::new(ns::ShowTabletReply { status, tablets }))
    }

    async fn show_table(
        &self,
        r: Request<ns::ShowTableRequest>,
    ) -> Result<Response<ns::ShowTableReply>, Status> {
        let (status, r) = (self.status(None), r.into_inner());
        let mut tables = self.model.lock().tables.clone();
        tables.retain(|row| {
            let table = row.table.as_ref().unwrap();
            table.db == r.db && (r.name.is_empty() || table.name == r.name)
        });
        Ok(Response::new(ns::ShowTableReply { status, tables, index: 1 }))
    }

    async fn show_op_status(
        &self,
        r: Request<ns::ShowOpStatusRequest>,
    ) -> Result<Response<ns::ShowOpStatusReply>, Status> {
        let (status, r) = (self.status(None), r.into_inner());
        let mut ops = self.model.lock().ops.clone();
        ops.retain(|op| {
            (r.name.is_empty() || op.name == r.name) && (r.pid.is_none() || op.pid == r.pid)
        });
        Ok(Response::new(ns::ShowOpStatusReply { status, ops }))
    }

    async fn conf_get(
        &self,
        r: Request<ns::ConfGetRequest>,
    ) -> Result<Response<ns::ConfGetReply>, Status> {
        let known = ["", "auto_failover"].contains(&r.into_inner().key.as_str());
        let status = self.status(unless(known, Code::InvalidParameter));
        let value = self.model.lock().auto_failover.to_string();
        Ok(Response::new(ns::ConfGetReply {
            status,
            rows: vec![ns::ConfRow { key: "auto_failover".into(), value }],
        }))
    }

    async fn conf_set(
        &self,
        r: Request<ns::ConfSetRequest>,
    ) -> Result<Response<ns::WriteReply>, Status> {
        let r = r.into_inner();
        let value = r.value.parse::<bool>();
        let good = r.key == "auto_failover" && value.is_ok();
        self.wrote(unless(good, Code::InvalidParameter), |m| m.auto_failover = value.unwrap())
    }

    async fn show_db(
        &self,
        _: Request<ns::ShowDbRequest>,
    ) -> Result<Response<ns::ShowDbReply>, Status> {
        let (status, names) = (self.status(None), self.model.lock().databases.clone());
        Ok(Response::new(ns::ShowDbReply { status, names }))
    }

    async fn create_db(
        &self,
        r: Request<ns::DbRequest>,
    ) -> Result<Response<ns::WriteReply>, Status> {
        let name = r.into_inner().name;
        let known = self.model.lock().databases.contains(&name);
        self.wrote(unless(!known, Code::DatabaseExists), |m| m.databases.push(name))
    }

    async fn drop_db(&self, r: Request<ns::DbRequest>) -> Result<Response<ns::WriteReply>, Status> {
        let name = r.into_inner().name;
        let full = self.model.lock().tables.iter().any(|t| t.table.as_ref().unwrap().db == name);
        self.wrote(unless(!full, Code::DatabaseNotEmpty), |m| m.databases.retain(|n| *n != name))
    }

    async fn use_db(&self, r: Request<ns::DbRequest>) -> Result<Response<ns::WriteReply>, Status> {
        let known = self.model.lock().databases.contains(&r.into_inner().name);
        self.wrote(unless(known, Code::DatabaseNotFound), |_| {})
    }

    async fn create_table(
        &self,
        r: Request<ns::CreateTableRequest>,
    ) -> Result<Response<ns::WriteReply>, Status> {
        let mut table = r.into_inner().table.unwrap();
        let (known, tid) = {
            let model = self.model.lock();
            let same = |t: &ns::TableRow| {
                t.table.as_ref().is_some_and(|t| t.db == table.db && t.name == table.name)
            };
            (model.tables.iter().any(same), u32::try_from(model.tables.len() + 1).unwrap())
        };
        table.tid = tid;
        let replica = |leader, endpoint: &str| ns::ReplicaRow {
            endpoint: endpoint.into(),
            leader,
            alive: true,
            known: true,
            offset: 8,
            record_cnt: 4,
            memory: 498,
            disk: 9347,
            ..Default::default()
        };
        let replicas: Vec<_> = (0..table.replica_num)
            .map(|n| {
                if n == 0 {
                    replica(true, &self.tablet)
                } else {
                    replica(false, &format!("0.0.0.{n}:1"))
                }
            })
            .collect();
        let partitions = (0..table.partition_num)
            .map(|pid| ns::PartitionRow {
                pid,
                epoch: 1,
                replicas: replicas.clone(),
                serving: true,
                ..Default::default()
            })
            .collect();
        let row = ns::TableRow { table: Some(table), partitions };
        self.wrote(unless(!known, Code::TableExists), |m| m.tables.push(row))
    }

    async fn drop_table(
        &self,
        r: Request<ns::DropTableRequest>,
    ) -> Result<Response<ns::WriteReply>, Status> {
        let r = r.into_inner();
        let is =
            |t: &ns::TableRow| t.table.as_ref().is_some_and(|t| t.db == r.db && t.name == r.name);
        let known = self.model.lock().tables.iter().any(is);
        self.wrote(unless(known, Code::TableNotFound), |m| m.tables.retain(|t| !is(t)))
    }

    orders! {
        change_leader(ChangeLeaderRequest);
        add_replica(ReplicasRequest);
        del_replica(ReplicasRequest);
        migrate(MigrateRequest);
        offline_endpoint(EndpointRequest);
        recover_endpoint(EndpointRequest);
        recover_table(ReplicaRequest);
        update_table_alive(AliveRequest);
        set_table_partition(SetTablePartitionRequest);
        make_snapshot(PartitionRequest);
        cancel_op(OpRequest);
        delete_op(DeleteOpRequest);
        alter_table(AlterTableRequest);
        set_sdk_endpoint(SetSdkEndpointRequest);
    }
}
