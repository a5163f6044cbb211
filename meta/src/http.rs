//! What OpenMLDB's operations tool posts to a nameserver, and a sign of life for supervisors.
//!
//! `POST /NameServer/ShowTable` takes `{"db": .., "name": ..}` and tells where a table's replicas are: an empty name asks for
//! all of the database, `"show_all": true` for all there are. `GET /health` answers while the process serves at all.
//!
//! **Invariants**
//! * What is told is what the gRPC call tells, whoever is asked: a nameserver that does not lead asks the one that does.
//! * Every replica has an offset, as the tool counts on it: of one that has reported none it is 0, and the tool never
//!   chooses by it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stela_common::http::{self, answer, outcome, rejected};
use stela_common::wire;
use stela_proto::nameserver as pb;
use stela_proto::nameserver::nameserver_server::Nameserver as _;

use crate::service::Answers;

/// The calls.
pub fn router(answers: Arc<Answers>, endpoint: String) -> Router {
    Router::new()
        .route("/NameServer/ShowTable", post(show_table))
        .route("/health", get(async move |answers| health(answers, &endpoint).await))
        .with_state(answers)
}

/// The tables that are asked for.
#[derive(Deserialize, PartialEq, Eq, Debug, Default)]
#[serde(default)]
struct Asked {
    db: String,
    name: String,
    show_all: bool,
}

impl From<Asked> for pb::ShowTableRequest {
    fn from(asked: Asked) -> Self {
        Self { db: asked.db, name: asked.name, all_databases: asked.show_all }
    }
}

async fn show_table(State(answers): State<Arc<Answers>>, request: Request) -> Response {
    let asked: Asked = match http::read(request).await {
        Ok(asked) => asked,
        Err(why) => return rejected(why),
    };
    answer(match answers.show_table(tonic::Request::new(asked.into())).await {
        Ok(reply) => tables(&reply.into_inner()),
        Err(status) => outcome(Err(http::of(&status))),
    })
}

async fn health(State(answers): State<Arc<Answers>>, endpoint: &str) -> Response {
    let known = answers.cluster(tonic::Request::new(pb::ClusterRequest {})).await;
    let known = known.map(tonic::Response::into_inner).unwrap_or_default();
    answer(Map::from_iter([
        ("status".into(), json!("ok")),
        ("role".into(), json!("nameserver")),
        ("endpoint".into(), json!(endpoint)),
        ("cluster".into(), json!(known.cluster)),
        ("leader".into(), json!(known.leader)),
        ("version".into(), json!(known.version)),
    ]))
}

fn tables(reply: &pb::ShowTableReply) -> Map<String, Value> {
    let told = wire::outcome(reply.status.as_ref());
    let tables = told.is_ok().then(|| reply.tables.iter().map(table).collect::<Value>());
    let mut answer = outcome(told);
    answer.extend(tables.map(|tables| ("table_info".to_owned(), tables)));
    answer
}

fn table(row: &pb::TableRow) -> Value {
    let table = row.table.clone().unwrap_or_default();
    json!({
        "name": table.name,
        "tid": table.tid,
        "db": table.db,
        "storage_mode": "kMemory",
        "table_partition": row.partitions.iter().map(partition).collect::<Value>(),
    })
}

fn partition(row: &pb::PartitionRow) -> Value {
    let replica = |r: &pb::ReplicaRow| {
        json!({
            "endpoint": r.endpoint,
            "is_leader": r.leader,
            "is_alive": r.alive,
            "offset": r.offset,
        })
    };
    json!({ "pid": row.pid, "partition_meta": row.replicas.iter().map(replica).collect::<Value>() })
}

#[cfg(test)]
mod tests {
    use stela_common::code::{Code, Refusal};
    use stela_proto::common;

    use super::*;

    #[test]
    fn the_tool_s_request_and_others() {
        let asked = |text: &str| http::parse::<Asked>(text.as_bytes());
        let want = Asked { db: "db1".into(), name: "t1".into(), show_all: false };
        assert_eq!(asked(r#"{"db": "db1", "name": "t1"}"#), Ok(want));
        let all = Asked { show_all: true, ..Asked::default() };
        assert_eq!(asked(r#"{"show_all":true,"need_replica_info":{"a":[1]}}"#), Ok(all));
        assert_eq!(asked("{}"), Ok(Asked::default()));
        for bad in [r#"{"db":1}"#, r#"{"name":null}"#, "7", r#"["a","b"]"#] {
            assert_eq!(asked(bad).unwrap_err().code, Code::Malformed, "{bad}");
        }
    }

    #[test]
    fn an_answer_has_the_shape_that_the_tool_reads() {
        let replica = |endpoint: &str, leader, alive, known, offset| pb::ReplicaRow {
            endpoint: endpoint.into(),
            leader,
            alive,
            known,
            offset,
            ..Default::default()
        };
        let replicas =
            vec![replica("a:1", true, false, true, 8), replica("b:1", false, true, false, 0)];
        let partitions = vec![pb::PartitionRow { pid: 3, replicas, ..Default::default() }];
        let table = common::Table {
            tid: 6,
            db: "db1".into(),
            name: "t1".into(),
            ..common::Table::default()
        };
        let reply = pb::ShowTableReply {
            status: wire::ok(),
            tables: vec![pb::TableRow { table: Some(table), partitions }],
            index: 1,
        };
        let want = json!({
            "code": 0,
            "msg": "ok",
            "table_info": [{
                "name": "t1",
                "tid": 6,
                "db": "db1",
                "storage_mode": "kMemory",
                "table_partition": [{
                    "pid": 3,
                    "partition_meta": [
                        {"endpoint": "a:1", "is_leader": true, "is_alive": false, "offset": 8},
                        {"endpoint": "b:1", "is_leader": false, "is_alive": true, "offset": 0},
                    ],
                }],
            }],
        });
        assert_eq!(Value::Object(tables(&reply)), want);
    }

    #[test]
    fn a_refusal_is_a_code_and_has_no_tables() {
        let refused = wire::refused(&Refusal::from(Code::NotLeader));
        let reply = pb::ShowTableReply { status: refused, ..Default::default() };
        let want = json!({"code": 300, "msg": "nameserver is not leader"});
        assert_eq!(Value::Object(tables(&reply)), want);
    }
}
