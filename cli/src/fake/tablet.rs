//! The tablet.

use futures::StreamExt as _;
use stela_common::code::Code;
use stela_common::wire;
use stela_proto::tablet as pb;
use stela_proto::tablet::answer::Kind as Said;
use stela_proto::tablet::call::Kind as Asked;
use stela_proto::tablet::tablet_server::Tablet;
use tonic::{Request, Response, Status};

use super::{Model, Service, Stored};

impl Model {
    fn newest_first(&self, tid: u32, index: u32, key: &[u8]) -> Vec<Stored> {
        let mut found: Vec<_> = self
            .rows
            .iter()
            .rev()
            .filter(|r| r.tid == tid && r.index == index && r.key == key)
            .cloned()
            .collect();
        found.sort_by_key(|r| std::cmp::Reverse(r.ts));
        found
    }

    fn say(&mut self, asked: Asked) -> Said {
        let tid = |target: Option<pb::Target>| target.unwrap().tid;
        match asked {
            Asked::Put(r) => {
                let status = match &self.refuse_put {
                    Some(refusal) => wire::refused(refusal),
                    None => wire::ok(),
                };
                if self.refuse_put.is_none() {
                    for row in r.rows {
                        for d in row.dimensions {
                            let (tid, key) = (tid(r.target), d.key.to_vec());
                            self.rows.push(Stored {
                                tid,
                                index: d.index,
                                key,
                                ts: row.time,
                                value: row.value.clone(),
                            });
                        }
                    }
                }
                Said::Put(pb::PutReply {
                    status,
                    offset: 1,
                    leader: String::new(),
                    epoch: 1,
                    ..Default::default()
                })
            }
            Asked::Delete(r) => {
                let tid = tid(r.target);
                self.rows.retain(|s| {
                    !(s.tid == tid
                        && r.dimensions.iter().any(|d| d.index == s.index && d.key == s.key))
                });
                Said::Put(pb::PutReply {
                    status: wire::ok(),
                    offset: 1,
                    leader: String::new(),
                    epoch: 1,
                    ..Default::default()
                })
            }
            Asked::Get(r) => {
                let found = self.newest_first(tid(r.target), r.index, &r.key);
                Said::Get(match found.iter().find(|s| r.ts == 0 || s.ts == r.ts) {
                    Some(s) => pb::GetReply {
                        status: wire::ok(),
                        ts: s.ts,
                        value: s.value.clone(),
                        ..Default::default()
                    },
                    None => pb::GetReply {
                        status: wire::refused(&Code::KeyNotFound.into()),
                        ..Default::default()
                    },
                })
            }
            Asked::Scan(r) => Said::Scan(self.scan(tid(r.target), &r)),
            Asked::Traverse(r) => Said::Traverse(self.traverse(&r)),
            Asked::Count(r) => {
                let count = self.newest_first(tid(r.target), r.index, &r.key).len() as u64;
                Said::Count(pb::CountReply { status: wire::ok(), count, ..Default::default() })
            }
        }
    }

    /// By key; the cursor is how many rows came before.
    fn traverse(&self, r: &pb::TraverseRequest) -> pb::TraverseReply {
        let target = r.target.unwrap();
        let table =
            self.tables.iter().find_map(|t| t.table.as_ref().filter(|t| t.tid == target.tid));
        let count = table.map_or(1, |t| t.partition_num);
        let here = |s: &&Stored| {
            let pid = stela_common::route::partition_of(&s.key, count).0;
            (s.tid, s.index, pid) == (target.tid, r.index, target.pid)
        };
        let mut found: Vec<_> = self.rows.iter().rev().filter(here).cloned().collect();
        found.sort_by_key(|s| (s.key.clone(), std::cmp::Reverse(s.ts)));
        let from = r.cursor.first().map_or(0, |n| usize::from(*n));
        let most = [r.limit as usize, self.page].into_iter().filter(|n| *n > 0).min();
        let upto = most.map_or(found.len(), |most| (from + most).min(found.len()));
        let row = |s: &Stored| pb::TraverseRow {
            key: s.key.clone().into(),
            ts: s.ts,
            value: s.value.clone(),
        };
        pb::TraverseReply {
            status: wire::ok(),
            rows: found[from..upto].iter().map(row).collect(),
            finished: upto == found.len(),
            cursor: vec![u8::try_from(upto).unwrap()].into(),
            ..Default::default()
        }
    }

    fn scan(&self, tid: u32, r: &pb::ScanRequest) -> pb::ScanReply {
        if r.st != 0 && r.st < r.et {
            return pb::ScanReply {
                status: wire::refused(&Code::StartBeforeEnd.into()),
                ..Default::default()
            };
        }
        let mut found = self.newest_first(tid, r.index, &r.key);
        found.retain(|s| (r.st == 0 || s.ts <= r.st) && s.ts > r.et);
        let most = [r.limit as usize, self.page]
            .into_iter()
            .filter(|n| *n > 0)
            .min()
            .unwrap_or(usize::MAX);
        let finished = found.len() <= most;
        let rows = found
            .into_iter()
            .take(most)
            .map(|s| pb::ScanRow { ts: s.ts, value: s.value })
            .collect();
        pb::ScanReply { status: wire::ok(), rows, finished, ..Default::default() }
    }
}

impl Service {
    /// Ok, or what the test wants; notes what was asked.
    fn by_hand(
        &self,
        word: &str,
        request: &impl std::fmt::Debug,
    ) -> Option<stela_proto::common::Status> {
        let mut model = self.model.lock();
        model.asked.push(format!("{word} {request:?}"));
        model.refuse_manual.as_ref().map_or_else(wire::ok, wire::refused)
    }
}

macro_rules! unary {
    ([$($name:ident($request:ident) -> $reply:ident;)*] [$($hand:ident($asked:ident) = $word:literal;)*]) => {
        #[tonic::async_trait]
        impl Tablet for Service {
            async fn identity(&self, _: Request<pb::IdentityRequest>) -> Result<Response<pb::IdentityReply>, Status> {
                Ok(Response::new(pb::IdentityReply {
                    cluster: "test".into(),
                    nameservers: vec![self.endpoint.clone()],
                    ..Default::default()
                }))
            }

            async fn session(
                &self,
                request: Request<tonic::Streaming<pb::SessionFrame>>,
            ) -> Result<Response<tonic::codegen::BoxStream<pb::SessionAnswer>>, Status> {
                let model = self.model.clone();
                let answers = request.into_inner().map(move |frame| {
                    let answer = |call: pb::Call| {
                        pb::Answer { id: call.id, kind: Some(model.lock().say(call.kind.unwrap())) }
                    };
                    Ok(pb::SessionAnswer { answers: frame?.calls.into_iter().map(answer).collect() })
                });
                Ok(Response::new(Box::pin(answers)))
            }

            async fn get_table_status(
                &self,
                r: Request<pb::GetTableStatusRequest>,
            ) -> Result<Response<pb::GetTableStatusReply>, Status> {
                let r = r.into_inner();
                let mut rows = self.model.lock().status.clone();
                rows.retain(|row| r.tid.is_none_or(|t| t == row.tid) && r.pid.is_none_or(|p| p == row.pid));
                Ok(Response::new(pb::GetTableStatusReply { status: wire::ok(), rows }))
            }

            async fn make_snapshot(
                &self,
                r: Request<pb::MakeSnapshotRequest>,
            ) -> Result<Response<pb::MakeSnapshotReply>, Status> {
                let status = self.by_hand("make", &r.into_inner());
                Ok(Response::new(pb::MakeSnapshotReply { status, offset: 1 }))
            }

            async fn fill_index(
                &self,
                _: Request<pb::FillIndexRequest>,
            ) -> Result<Response<pb::ReplicaReply>, Status> {
                Err(Status::unimplemented("nobody asks the fake"))
            }

            async fn table_schema(
                &self,
                r: Request<pb::TableSchemaRequest>,
            ) -> Result<Response<pb::TableSchemaReply>, Status> {
                let tid = r.into_inner().tid;
                let tables = &self.model.lock().tables;
                let table = tables.iter().filter_map(|t| t.table.clone()).find(|t| t.tid == tid);
                let status = match &table {
                    Some(_) => wire::ok(),
                    None => wire::refused(&Code::TableNotFound.into()),
                };
                Ok(Response::new(pb::TableSchemaReply { status, table }))
            }

            async fn count(&self, r: Request<pb::CountRequest>) -> Result<Response<pb::CountReply>, Status> {
                let r = r.into_inner();
                let status = self.by_hand("count", &r);
                let Said::Count(reply) = self.model.lock().say(Asked::Count(r)) else { unreachable!() };
                Ok(Response::new(pb::CountReply { status, ..reply }))
            }

            async fn delete(&self, r: Request<pb::DeleteRequest>) -> Result<Response<pb::PutReply>, Status> {
                let r = r.into_inner();
                let status = self.by_hand("delete", &r);
                let Said::Put(reply) = self.model.lock().say(Asked::Delete(r)) else { unreachable!() };
                Ok(Response::new(pb::PutReply { status, ..reply }))
            }

            async fn get_follower(
                &self,
                _: Request<pb::GetFollowerRequest>,
            ) -> Result<Response<pb::GetFollowerReply>, Status> {
                let followers = self.model.lock().followers.clone();
                let status = match followers.is_empty() {
                    true => wire::refused(&Code::HasNoFollower.into()),
                    false => wire::ok(),
                };
                Ok(Response::new(pb::GetFollowerReply { status, leader_offset: 5_923_724, followers }))
            }

            $(async fn $hand(&self, r: Request<pb::$asked>) -> Result<Response<pb::ReplicaReply>, Status> {
                Ok(Response::new(pb::ReplicaReply { status: self.by_hand($word, &r.into_inner()) }))
            })*

            $(async fn $name(&self, _: Request<pb::$request>) -> Result<Response<pb::$reply>, Status> {
                Err(Status::unimplemented("the clients use the session"))
            })*
        }
    };
}

unary! {
    [
    put(PutRequest) -> PutReply;
    get(GetRequest) -> GetReply;
    scan(ScanRequest) -> ScanReply;
    traverse(TraverseRequest) -> TraverseReply;
    lost_list(LostListRequest) -> LostListReply;
    lost_read(LostReadRequest) -> LostReadReply;
    ]
    [
    load_table(LoadTableRequest) = "load";
    drop_replica(ReplicaRequest) = "drop";
    pause_snapshot(ReplicaRequest) = "pause";
    recover_snapshot(ReplicaRequest) = "recover";
    send_snapshot(SendSnapshotRequest) = "send";
    set_expire(SetExpireRequest) = "expire";
    ]
}
