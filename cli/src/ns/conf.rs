//! `confget` and `confset`.

use stela_common::code::Code;

use super::Session;
use crate::print::{Answer, Cell, Table};

pub(super) async fn confget(session: &Session, args: &[&str]) -> Answer {
    let key = args.first().copied().unwrap_or("");
    // That it says "set" is so in the original, and scripts may look for it.
    let failed = format!("failed to set {key}. error msg: ");
    match session.client.admin().conf_get(key).await {
        Ok(reply) if !key.is_empty() && reply.rows.iter().all(|r| r.key != key) => {
            Answer::failed(format!("{failed}cannot found key {key}"))
        }
        Ok(reply) => {
            let mut table = Table::new(&["key", "value"]);
            for row in reply.rows.into_iter().filter(|r| key.is_empty() || r.key == key) {
                table.push(vec![Cell::text(row.key), Cell::text(row.value)]);
            }
            Answer::table(table)
        }
        Err(e) if e.code == Code::InvalidParameter => {
            Answer::failed(format!("{failed}cannot found key {key}"))
        }
        Err(e) if key.is_empty() => Answer::refused("failed to get conf. error msg: ", &e),
        Err(e) => Answer::refused(&failed, &e),
    }
}

pub(super) async fn confset(session: &Session, args: &[&str]) -> Answer {
    let [key, value, ..] = args else { return Answer::failed("Bad format") };
    match session.client.admin().conf_set(key, value).await {
        Ok(_) => Answer::done(format!("set {key} ok")),
        Err(e) => Answer::refused(&format!("failed to set {key}. error msg: "), &e),
    }
}
