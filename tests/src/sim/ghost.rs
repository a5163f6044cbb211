//! What was promised so far, seen from outside: what nobody in the cluster knows, and everything is measured against.
//!
//! The first replica that shows an entry as committed fixes it for ever: the *agreed* log of the partition. From then
//! on, at every step:
//! * every trusted member of the in-sync set has all of it, synced (for `sync=interval`: written);
//! * nobody ever cuts what it has shown, and nobody shows another entry in its place;
//! * what is acknowledged is in it, by one run of one tablet in each epoch, and no request is in it twice (R32);
//! * a leader's read that is served shows all that was acknowledged or read before;
//! * two logs that have an entry of the same offset and epoch are equal up to there.

use std::collections::BTreeMap;
use std::fmt;

use stela_common::ids::{Epoch, Incarnation, Offset, PartitionKey};

use super::disk::{Entry, Id, Log};

/// Which run of which tablet.
type Run = (usize, Incarnation);

#[derive(Default)]
struct Promised {
    /// Each entry that was ever written: its value, and the epoch of the one before.
    written: BTreeMap<(Offset, Epoch), (Id, Epoch)>,
    agreed: Vec<(Epoch, Id)>,
    places: BTreeMap<Id, Offset>,
    acknowledged: Offset,
    read: Offset,
    leaders: BTreeMap<Epoch, Run>,
}

/// See the module.
#[derive(Default)]
pub struct Ghost {
    partitions: BTreeMap<PartitionKey, Promised>,
    acknowledged: BTreeMap<Id, Offset>,
    broken: Option<String>,
}

impl Ghost {
    /// A promise is broken; the first one counts.
    pub fn broken(&mut self, what: fmt::Arguments<'_>) {
        self.broken.get_or_insert_with(|| what.to_string());
    }

    /// The first promise that was broken.
    pub fn verdict(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// How many writes were acknowledged.
    pub fn count(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// A replica has written an entry.
    pub fn appended(
        &mut self,
        at: usize,
        key: PartitionKey,
        offset: Offset,
        entry: Entry,
        log: &Log,
    ) {
        let before = log.epoch_at(Offset(offset.0 - 1));
        let known = *self
            .partitions
            .entry(key)
            .or_default()
            .written
            .entry((offset, entry.epoch))
            .or_insert((entry.id, before));
        if known != (entry.id, before) {
            self.broken(format_args!(
                "{key}: log matching: entry {offset} of epoch {} is {:?} behind one of epoch {before} on {at}, and was {:?} behind one of epoch {}",
                entry.epoch, entry.id, known.0, known.1
            ));
        }
    }

    /// A replica shows entries as committed.
    pub fn committed(&mut self, at: usize, key: PartitionKey, from: Offset, to: Offset, log: &Log) {
        let promised = self.partitions.entry(key).or_default();
        let mut wrong = None;
        for (offset, entry) in log.from(from.next()).take_while(|(offset, _)| *offset <= to) {
            let place = usize::try_from(offset.0 - 1).unwrap_or(usize::MAX);
            match promised.agreed.get(place) {
                Some(known) if *known == (entry.epoch, entry.id) => {}
                Some(known) => {
                    let epoch = entry.epoch;
                    wrong = Some(format!(
                        "{at} shows an entry of epoch {epoch} at {offset}, agreed was one of epoch {}",
                        known.0
                    ));
                    break;
                }
                None => {
                    promised.agreed.push((entry.epoch, entry.id));
                    if let Some(first) = promised.places.insert(entry.id, offset) {
                        wrong =
                            Some(format!("{:?} is there twice, at {first} and {offset}", entry.id));
                        break;
                    }
                }
            }
        }
        if to > log.last() {
            wrong = Some(format!("{at} shows entries up to {to}, its log ends at {}", log.last()));
        }
        if let Some(what) = wrong {
            self.broken(format_args!("{key}: committed entries: {what}"));
        }
    }

    /// A replica is about to void its entries beyond `to`, and has shown those up to `shown` as committed. (What it has
    /// not shown it may cut though others have agreed on it by now: it follows one whose time is over, and is not in
    /// sync. In sync it may not, which [`Ghost::member`] sees.)
    pub fn truncated(&mut self, at: usize, key: PartitionKey, to: Offset, shown: Offset) {
        if to < shown {
            self.broken(format_args!(
                "{key}: {at} cuts its log to {to}, and has shown {shown} as committed"
            ));
        }
    }

    /// A leader has answered a write.
    pub fn acknowledged(
        &mut self,
        key: PartitionKey,
        epoch: Epoch,
        by: Run,
        offset: Offset,
        id: Id,
    ) {
        let promised = self.partitions.entry(key).or_default();
        promised.acknowledged = promised.acknowledged.max(offset);
        let leader = *promised.leaders.entry(epoch).or_insert(by);
        if leader != by {
            self.broken(format_args!(
                "{key}: two acknowledge in epoch {epoch}: run {} of {} and run {} of {}",
                leader.1, leader.0, by.1, by.0
            ));
        }
        self.repeated(key, epoch, by, offset, id);
    }

    /// A leader has answered a write that was committed before.
    pub fn repeated(&mut self, key: PartitionKey, epoch: Epoch, by: Run, offset: Offset, id: Id) {
        let promised = self.partitions.entry(key).or_default();
        let place = usize::try_from(offset.0 - 1).unwrap_or(usize::MAX);
        let agreed = promised.agreed.get(place).copied();
        if agreed.is_none_or(|(_, there)| there != id) {
            self.broken(format_args!(
                "{key}: {} acknowledges {id:?} at {offset} in epoch {epoch}, where {agreed:?} is committed",
                by.0
            ));
        }
        self.acknowledged.insert(id, offset);
    }

    /// A leader serves a read that shows its entries up to `shown`.
    pub fn served(&mut self, at: usize, key: PartitionKey, epoch: Epoch, shown: Offset) {
        let promised = self.partitions.entry(key).or_default();
        let floor = promised.acknowledged.max(promised.read);
        promised.read = promised.read.max(shown);
        if shown < floor {
            self.broken(format_args!(
                "{key}: a read at {at} in epoch {epoch} shows entries up to {shown}, and misses what was acknowledged or read up to {floor}"
            ));
        }
    }

    /// A trusted member of the in-sync set has that log, as durable as the table asks.
    pub fn member(&mut self, at: usize, key: PartitionKey, log: &Log) {
        let Some(promised) = self.partitions.get(&key) else { return };
        let agreed = Offset(promised.agreed.len() as u64);
        let Some((epoch, _)) = promised.agreed.last() else { return };
        if log.epoch_at(agreed) != *epoch {
            let (acknowledged, epoch) = (promised.acknowledged, *epoch);
            self.broken(format_args!(
                "{key}: {at} is in sync and trusted, and lacks committed entry {agreed} of epoch {epoch} (acknowledged: {acknowledged}); its log ends at {}",
                log.last()
            ));
        }
    }
}
