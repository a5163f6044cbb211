//! What clients from elsewhere need to know of the servers: `showcatalogversion`, `showsdkendpoint`, `setsdkendpoint`.

use super::Session;
use crate::print::{Answer, Cell, Table};

pub(super) async fn showcatalogversion(session: &Session) -> Answer {
    let mut tablets = match session.client.admin().show_tablet().await {
        Ok(reply) => reply.tablets,
        Err(e) => return Answer::refused("Fail to show catalog version. error msg: ", &e),
    };
    tablets.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    let mut table = Table::new(&["#", "endpoint", "version"]);
    for (at, tablet) in (1u64..).zip(tablets) {
        let version = Cell::known((tablet.known_index != 0).then_some(tablet.known_index));
        table.push(vec![Cell::number(at), Cell::text(tablet.endpoint), version]);
    }
    Answer::table(table)
}

pub(super) async fn showsdkendpoint(session: &Session) -> Answer {
    let mut tablets = match session.client.admin().show_tablet().await {
        Ok(reply) => reply.tablets,
        Err(e) => return Answer::refused("Fail to show sdkendpoint. error msg: ", &e),
    };
    tablets.retain(|t| !t.sdk_endpoint.is_empty());
    tablets.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    let mut table = Table::new(&["endpoint", "sdk_endpoint"]);
    for tablet in tablets {
        table.push(vec![Cell::text(tablet.endpoint), Cell::text(tablet.sdk_endpoint)]);
    }
    Answer::table(table)
}

pub(super) async fn setsdkendpoint(session: &Session, args: &[&str]) -> Answer {
    let [server, endpoint] = args else {
        return Answer::failed(
            "Bad format for setsdkendpoint!eg. setsdkendpoint server_name sdkendpoint",
        );
    };
    let endpoint = if *endpoint == "null" { "" } else { endpoint };
    match session.client.admin().set_sdk_endpoint(server, endpoint).await {
        Ok(_) => Answer::done("setsdkendpoint ok"),
        Err(e) => Answer::refused("setsdkendpoint failed. error msg: ", &e),
    }
}
