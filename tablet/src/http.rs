//! What OpenMLDB's operations tool posts to a tablet, and a sign of life for supervisors.
//!
//! `POST /TabletServer/LoadTable` takes `{"table_meta": {"name": .., "tid": .., "pid": ..}}`; times to live, segments and the
//! like are those of the table, whatever is said here. `GET /health` answers while the process serves at all.
//!
//! Invariant: it is the gRPC call in another spelling (R22: it opens a copy that is here, makes none, and gives no role).

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Map, json};
use stela_common::http::{self, answer, outcome, rejected};
use stela_common::wire;
use stela_proto::tablet as pb;
use stela_proto::tablet::tablet_server::Tablet as _;

use crate::service::Service;

/// The calls.
pub fn router(service: Service) -> Router {
    Router::new()
        .route("/TabletServer/LoadTable", post(load_table))
        .route("/health", get(health))
        .with_state(service)
}

/// The replica that is meant.
#[derive(Deserialize)]
struct Asked {
    table_meta: Meta,
}

#[derive(Deserialize)]
struct Meta {
    name: String,
    tid: u32,
    pid: u32,
}

impl From<Asked> for pb::LoadTableRequest {
    fn from(Asked { table_meta: Meta { name, tid, pid } }: Asked) -> Self {
        Self { tid, pid, name, leader: false }
    }
}

async fn load_table(State(service): State<Service>, request: Request) -> Response {
    let asked: Asked = match http::read(request).await {
        Ok(asked) => asked,
        Err(why) => return rejected(why),
    };
    answer(outcome(match service.load_table(tonic::Request::new(asked.into())).await {
        Ok(reply) => wire::outcome(reply.into_inner().status.as_ref()),
        Err(status) => Err(http::of(&status)),
    }))
}

async fn health(State(service): State<Service>) -> Response {
    let known = service.identity(tonic::Request::new(pb::IdentityRequest {})).await;
    let known = known.map(tonic::Response::into_inner).unwrap_or_default();
    answer(Map::from_iter([
        ("status".into(), json!("ok")),
        ("role".into(), json!("tablet")),
        ("endpoint".into(), json!(known.endpoint)),
        ("cluster".into(), json!(known.cluster)),
        ("registered".into(), json!(known.tablet != 0)),
        ("version".into(), json!(env!("CARGO_PKG_VERSION"))),
    ]))
}

#[cfg(test)]
mod tests {
    use stela_common::code::Code;

    use super::*;

    #[test]
    fn the_tool_s_request_and_others() {
        let asked =
            |text: &str| http::parse::<Asked>(text.as_bytes()).map(pb::LoadTableRequest::from);
        let text = r#"{"table_meta": {"name": "t1", "tid": 6, "pid": 0, "ttl": 0, "seg_cnt": 8, "storage_mode": "kMemory"}}"#;
        let want = pb::LoadTableRequest { tid: 6, pid: 0, name: "t1".into(), leader: false };
        assert_eq!(asked(text), Ok(want));
        for bad in [
            "{}",
            r#"{"table_meta":[]}"#,
            r#"{"table_meta":{"name":"t","tid":-1,"pid":0}}"#,
            r#"{"table_meta":{"name":"t","tid":4294967296,"pid":0}}"#,
            r#"{"table_meta":{"name":"t","tid":1}}"#,
        ] {
            assert_eq!(asked(bad).unwrap_err().code, Code::Malformed, "{bad}");
        }
    }
}
