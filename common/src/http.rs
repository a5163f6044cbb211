//! HTTP and JSON beside gRPC on one port: what the two servers' calls share.
//!
//! OpenMLDB's tools post JSON to the very ports that its servers advertise for everything else. Which protocol a connection
//! speaks is told by its first bytes, and a path says which service is meant, so both live in one router.
//!
//! **Invariants**
//! * Nothing from outside may panic or cost much: a body is bounded in size and in time, and read as JSON of bounded depth.
//! * A request that is understood is answered with status 200, whatever comes of it: the code in the body tells. Another
//!   status means that nothing was done, and why stands in a body of the same shape.
//! * A gRPC call of a method that is not there is answered as gRPC has it.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tonic::service::{Routes, RoutesBuilder};

use crate::code::{Code, Refusal};

/// The longest body, bytes.
const LONGEST: usize = 1 << 20;
/// The longest that a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request that is not answered: its status, and what its body says.
pub type Rejected = (StatusCode, Refusal);

/// Adds the calls of `own` to those of gRPC. What neither knows is answered here.
pub fn attach(routes: &mut RoutesBuilder, own: Router) {
    let grpc = std::mem::take(routes).routes().into_axum_router();
    // A router has one answer to what is not there, so that of `own` must be the default one.
    let all = grpc
        .merge(own)
        .fallback(not_found)
        .method_not_allowed_fallback(async |request: Request| wrong_method(&request));
    *routes = RoutesBuilder::from(Routes::from(all));
}

/// The body of a request, as JSON.
///
/// # Errors
/// It is too long, or does not arrive, or is not what it should be.
pub async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Rejected> {
    let reject = |status, code, text: String| Err((status, Refusal::new(code, text)));
    let long = || {
        let text = format!("the body is longer than {LONGEST} bytes, or was cut off");
        reject(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, text)
    };
    let body = request.into_body();
    // Who says that it will be too long need not send it.
    if body.size_hint().lower() > LONGEST as u64 {
        return long();
    }
    match tokio::time::timeout(PATIENCE, to_bytes(body, LONGEST)).await {
        Ok(Ok(bytes)) => parse(&bytes).map_err(|r| (StatusCode::BAD_REQUEST, r)),
        // The limit is the only error that is not the connection's; of one that is broken nobody reads the answer.
        Ok(Err(_)) => long(),
        Err(_) => {
            let text = format!("the body has not arrived within {} s", PATIENCE.as_secs());
            reject(StatusCode::REQUEST_TIMEOUT, Code::Malformed, text)
        }
    }
}

/// A JSON object as a value; keys that are not known are ignored.
///
/// # Errors
/// What is wrong, and where.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    // Of a list serde would take the fields by position, and none of an empty one.
    let object: serde_json::Result<Map<String, Value>> = serde_json::from_slice(bytes);
    object
        .and_then(|object| serde_json::from_value(Value::Object(object)))
        .map_err(|e| Refusal::new(Code::Malformed, format!("the body is not as expected: {e}")))
}

/// How an answer begins: `{"code":0,"msg":"ok"}`, or why not.
#[must_use]
pub fn outcome(outcome: Result<(), Refusal>) -> Map<String, Value> {
    let Refusal { code, text } = outcome.err().unwrap_or_else(|| Code::Ok.into());
    Map::from_iter([("code".into(), json!(code as i32)), ("msg".into(), json!(text))])
}

/// An error of a call, which is none of its answers.
#[must_use]
pub fn of(status: &tonic::Status) -> Refusal {
    Refusal::new(Code::RpcFailed, status.message())
}

/// The answer to a request that was understood.
pub fn answer(value: Map<String, Value>) -> Response {
    response(StatusCode::OK, &Value::Object(value))
}

/// The answer to one that was not.
pub fn rejected((status, refusal): Rejected) -> Response {
    response(status, &Value::Object(outcome(Err(refusal))))
}

fn response(status: StatusCode, value: &Value) -> Response {
    let mut response = (status, format!("{value}\n")).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn not_found(request: Request) -> Response {
    let kind = request.headers().get(CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        let status = tonic::Status::unimplemented("").into_http::<Body>();
        return status.map(|_| Body::empty());
    }
    let text = format!("there is no {}", request.uri().path());
    rejected((StatusCode::NOT_FOUND, Refusal::new(Code::InvalidParameter, text)))
}

fn wrong_method(request: &Request) -> Response {
    let text = format!("{} is not for {}", request.method(), request.uri().path());
    rejected((StatusCode::METHOD_NOT_ALLOWED, Refusal::new(Code::InvalidParameter, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_begins_with_its_code() {
        let text = |o: Map<String, Value>| Value::Object(o).to_string();
        assert_eq!(text(outcome(Ok(()))), r#"{"code":0,"msg":"ok"}"#);
        let refused = text(outcome(Err(Code::NotLeader.into())));
        assert_eq!(refused, r#"{"code":300,"msg":"nameserver is not leader"}"#);
    }

    #[test]
    fn what_is_not_json_is_told_with_its_place() {
        let deep = "[".repeat(100_000);
        for bad in ["", "{", "[1,", "\u{feff}{}", "{\"a\":}", "nul", deep.as_str()] {
            let refusal = parse::<Value>(bad.as_bytes()).unwrap_err();
            assert_eq!(refusal.code, Code::Malformed);
            assert!(refusal.text.contains("line 1 column"), "{}", refusal.text);
        }
        assert!(parse::<Value>(&[0xff, 0xfe, b'"']).is_err());
    }
}
