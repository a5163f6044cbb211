//! What completes a word of `ns_client`: commands, and the names that are in the cluster at that moment.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use stela_common::client::Client;

use super::commands::{COMMANDS, Place};
use crate::shell::Names;

/// Nobody waits longer than this for a completion.
const PATIENCE: Duration = Duration::from_millis(300);

/// Names as the cluster has them now.
pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) db: Arc<Mutex<String>>,
}

impl Names for Cluster {
    fn after(&self, words: &[&str]) -> Vec<String> {
        let Some((command, args)) = words.split_first() else {
            return COMMANDS.iter().map(|c| c.name.to_owned()).collect();
        };
        let places = COMMANDS.iter().find(|c| c.name == *command).map_or(&[][..], |c| c.places);
        match places.get(args.len()) {
            Some(Place::Command) => COMMANDS.iter().map(|c| c.name.to_owned()).collect(),
            Some(Place::Key) => vec!["auto_failover".into()],
            Some(Place::Truth) => vec!["true".into(), "false".into()],
            Some(place) => self.ask(*place),
            None => Vec::new(),
        }
    }
}

impl Cluster {
    /// Asks on the client's own thread, since the one that waits for keys must not wait for a nameserver.
    fn ask(&self, place: Place) -> Vec<String> {
        let (admin, db) = (self.client.admin(), self.db.lock().clone());
        let (found, names) = mpsc::channel();
        self.client.runtime().spawn(async move {
            let names = match place {
                Place::Database => admin.show_db().await.map(|r| r.names),
                Place::Endpoint => admin
                    .show_tablet()
                    .await
                    .map(|r| r.tablets.into_iter().map(|t| t.endpoint).collect()),
                _ => admin
                    .show_table(&db, "", false)
                    .await
                    .map(|r| r.tables.into_iter().filter_map(|t| Some(t.table?.name)).collect()),
            };
            let _ = found.send(names.unwrap_or_default());
        });
        names.recv_timeout(PATIENCE).unwrap_or_default()
    }
}
