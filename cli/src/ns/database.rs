//! Databases: `showdb`, `use`, `createdb`, `dropdb`.

use super::Session;
use crate::print::{Answer, Cell, Table};
use crate::shell::Ask;

/// OpenMLDB's own databases: tools select them, and must find nothing there.
const INTERNAL: [&str; 3] = ["__INTERNAL_DB", "__PRE_AGG_DB", "INFORMATION_SCHEMA"];

/// Is it one of OpenMLDB's own?
pub(super) fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

pub(super) async fn showdb(session: &Session) -> Answer {
    match session.client.admin().show_db().await {
        Ok(reply) => {
            let mut names: Vec<String> =
                reply.names.into_iter().filter(|n| !is_internal(n)).collect();
            names.sort_unstable();
            let mut table = Table::new(&["#", "name"]);
            for (at, name) in (1u64..).zip(names) {
                table.push(vec![Cell::number(at), Cell::text(name)]);
            }
            Answer::table(table)
        }
        Err(e) => Answer::refused("Fail to show databases. error msg: ", &e),
    }
}

pub(super) async fn use_db(session: &mut Session, args: &[&str]) -> Answer {
    let Some(name) = args.first() else {
        session.db.lock().clear();
        return Answer::done("Use default database");
    };
    let there = if is_internal(name) {
        Ok(())
    } else {
        session.client.admin().use_db(name).await.map(drop)
    };
    if let Err(e) = there {
        return Answer::refused("Use database failed. error msg: ", &e);
    }
    *session.db.lock() = (*name).to_owned();
    Answer::done(format!("Use database: {name}"))
}

pub(super) async fn createdb(session: &Session, args: &[&str]) -> Answer {
    let Some(name) = args.first() else {
        return Answer::failed("createdb format error. eg: createdb database_name");
    };
    match session.client.admin().create_db(name).await {
        Ok(_) => Answer::done(format!("Create database {name} ok")),
        Err(e) => Answer::refused("Create database failed. error msg: ", &e),
    }
}

pub(super) async fn dropdb(session: &Session, args: &[&str], ask: &mut dyn Ask) -> Answer {
    let Some(name) = args.first() else {
        return Answer::failed("dropdb format error. eg: dropdb database_name");
    };
    if !ask.yes(&format!("Dropdb will drop all tables in the database {name}? yes/no")) {
        return Answer::failed(format!("'dropdb {name}' cmd is canceled!"));
    }
    match session.client.admin().drop_db(name).await {
        Ok(_) => Answer::done(format!("Drop database {name} ok")),
        Err(e) => Answer::refused("Drop database failed. error msg: ", &e),
    }
}
