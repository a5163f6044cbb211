//! `delete`.

use stela_common::client::Deletion;

use super::super::Session;
use super::{index_of, nobody_leads, open};
use crate::print::Answer;

pub(crate) async fn delete(session: &Session, args: &[&str]) -> Answer {
    let [name, key, rest @ ..] = args else {
        return Answer::failed(
            "delete format error. eg: delete table_name key | deletetable_name key idx_name",
        );
    };
    let table = match open(session, "delete", name, name).await {
        Ok(table) => table,
        Err(answer) => return answer,
    };
    let Ok(index) = index_of(&table, rest.first().copied()) else {
        return Answer::failed(format!("idx_name {} does not exist", rest[0]));
    };
    match session.client.delete(&table, index, key.as_bytes(), Deletion::default()).await {
        Ok(_) => Answer::done("delete ok"),
        Err(error) => match nobody_leads(&table, key.as_bytes()) {
            Some(pid) => Answer::failed(format!(
                "failed to delete. error msg: cannot find healthy endpoint. pid is {pid}"
            ))
            .because(error.to_string()),
            None => Answer::refused("delete failed. error msg: ", &error.refusal()),
        },
    }
}
