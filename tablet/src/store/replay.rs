//! Committed entries that are applied once more, from the log: to a store that a snapshot is made of, or of which
//! entries were taken back.

use stela_common::ids::{Offset, PartitionKey};
use stela_common::log::{self, Log};

use super::dedup::Dedup;
use super::entry::Entry;
use super::places::{self, Places};
use super::{Applied, Store};

/// Bytes that are read at a time.
const BUDGET: usize = 1 << 20;

/// Where the entries of one partition are.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The log that has them.
    pub log: &'a Log,
    /// Their places.
    pub places: &'a Places,
    /// The partition.
    pub key: PartitionKey,
}

impl Source<'_> {
    /// Applies the entries `from..=to`, checksums looked at again, and notes their request ids, for as long as it may go
    /// on. Returns the last that was applied.
    ///
    /// # Errors
    /// One cannot be read, or names an index that the table of the store does not have.
    pub fn replay(
        self,
        from: Offset,
        to: Offset,
        store: &mut Store,
        mut dedup: Option<&mut Dedup>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Offset, String> {
        let mut next = from;
        while next <= to && go_on() {
            let records = places::read_entries(self.log, self.places, self.key, next, to, BUDGET)
                .map_err(|e| e.to_string())?;
            for record in records {
                let failed = |e: &dyn std::fmt::Display| format!("entry {next}: {e}");
                match log::parse(record.raw()).next() {
                    Some(Ok(_)) => {}
                    Some(Err(e)) => return Err(failed(&e)),
                    None => return Err(failed(&"it is not there")),
                }
                let applied = store.apply(self.log, record.position(), record.body());
                if applied.map_err(|e| failed(&e))? == Applied::NotYet {
                    return Err(failed(&"the table does not have its index"));
                }
                if let Some(dedup) = dedup.as_deref_mut() {
                    let entry = Entry::parse(record.body()).map_err(|e| failed(&e))?;
                    dedup.appended(next, entry.session(), entry.seq());
                    dedup.committed(next);
                }
                next = next.next();
            }
        }
        Ok(Offset(next.0.saturating_sub(1)))
    }
}
