//! What was promised so far, seen from outside: what nobody in the cluster knows, and everything is measured against.
//!
//! The first replica that shows an entry as committed fixes it for ever: the *agreed* log of the partition. From then
//! on, at every step:
//! * every trusted member of the in-sync set has all of it, synced (for `sync=interval`: written);
//! * nobody ever cuts what it has shown, and nobody shows another entry in its place;
//! * what is acknowledged is in it, by one run of one tablet in each epoch, and no request is in it twice (R32);
//! * a leader's read that is served shows all that was acknowledged or read before; a follower's shows what its reader
//!   has seen to be done, and never less than that copy showed before (R35);
//! * two logs that have an entry of the same offset and epoch are equal up to there;
//! * no tablet speaks in an epoch below one that it has spoken in.
//!
//! Only where all is gone that a promise rests on is it taken back: an election that is recorded as unclean (R16) makes
//! what the elected copy has the agreed log, and what is said in earlier epochs counts no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use stela_common::ids::{Epoch, Incarnation, Offset, PartitionKey, TableId};

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
    /// Its table is, or was, on `ack=leader`: what is read may be lost (R34).
    weak: bool,
    /// The last epoch that began uncleanly: what is said in earlier ones is void.
    era: Epoch,
    uncleans: u64,
    /// What each copy has shown to its readers, in which era.
    shown: BTreeMap<Run, (u64, Offset)>,
    /// The highest epoch that each tablet has spoken in.
    spoke: BTreeMap<usize, Epoch>,
}

/// How much a reader has seen to be done: how many unclean epochs there were, and up to which entry.
pub type Token = (u64, Offset);

/// See the module.
#[derive(Default)]
pub struct Ghost {
    partitions: BTreeMap<PartitionKey, Promised>,
    acknowledged: BTreeMap<(PartitionKey, Id), Offset>,
    dropped: BTreeSet<TableId>,
    count: u64,
    broken: Option<String>,
}

impl Promised {
    fn at(&self, offset: Offset) -> Option<(Epoch, Id)> {
        let place = usize::try_from(offset.0.checked_sub(1)?).ok()?;
        self.agreed.get(place).copied()
    }
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
        self.count
    }

    /// What was promised of a partition that is there.
    fn of(&mut self, key: PartitionKey) -> Option<&mut Promised> {
        (!self.dropped.contains(&key.tid)).then(|| self.partitions.entry(key).or_default())
    }

    /// What was promised of a partition to whoever speaks in that epoch.
    fn of_epoch(&mut self, key: PartitionKey, epoch: Epoch) -> Option<&mut Promised> {
        self.of(key).filter(|p| epoch >= p.era)
    }

    /// A table is dropped: nothing is promised of it any more.
    pub fn dropped(&mut self, tid: TableId) {
        self.dropped.insert(tid);
        self.partitions.retain(|key, _| key.tid != tid);
        self.acknowledged.retain(|(key, _), _| key.tid != tid);
    }

    /// A table is on `ack=leader`.
    pub fn weaken(&mut self, key: PartitionKey) {
        if let Some(promised) = self.of(key) {
            promised.weak = true;
        }
    }

    /// A machine has another disk: what it said before it does not know.
    pub fn forgets(&mut self, at: usize) {
        for promised in self.partitions.values_mut() {
            promised.spoke.remove(&at);
        }
    }

    /// A tablet says something that counts in that epoch.
    pub fn speaks(&mut self, at: usize, key: PartitionKey, epoch: Epoch) {
        let Some(promised) = self.of(key) else { return };
        let before = promised.spoke.insert(at, epoch).unwrap_or_default();
        if before > epoch {
            self.broken(format_args!(
                "{key}: {at} speaks in epoch {epoch}, and has spoken in epoch {before}"
            ));
        }
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
        let Some(promised) = self.of(key) else { return };
        let new = (entry.id, before);
        let known = *promised.written.entry((offset, entry.epoch)).or_insert(new);
        if known != new {
            self.broken(format_args!(
                "{key}: log matching: entry {offset} of epoch {} is {:?} behind one of epoch {before} on {at}, and was {:?} behind one of epoch {}",
                entry.epoch, entry.id, known.0, known.1
            ));
        }
    }

    /// A replica that acts in that epoch shows entries as committed.
    pub fn committed(
        &mut self,
        at: usize,
        (key, epoch): (PartitionKey, Epoch),
        from: Offset,
        to: Offset,
        log: &Log,
    ) {
        let Some(promised) = self.of_epoch(key, epoch) else { return };
        let mut wrong = None;
        for (offset, entry) in log.from(from.next()).take_while(|(offset, _)| *offset <= to) {
            match promised.at(offset) {
                Some(known) if known == (entry.epoch, entry.id) => {}
                Some(known) => {
                    let epoch = entry.epoch;
                    wrong = Some(format!(
                        "{at} shows an entry of epoch {epoch} at {offset}, agreed was one of epoch {}",
                        known.0
                    ));
                    break;
                }
                // After an unclean election a copy may know more than is agreed again by now.
                None if offset.0 > promised.agreed.len() as u64 + 1 => break,
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
    pub fn truncated(
        &mut self,
        at: usize,
        key: PartitionKey,
        to: Offset,
        shown: Offset,
        log: &Log,
    ) {
        let Some(promised) = self.of(key) else { return };
        let mut cut = log.from(to.next()).take_while(|(offset, _)| *offset <= shown);
        if cut.any(|(offset, e)| promised.at(offset) == Some((e.epoch, e.id))) {
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
        self.speaks(by.0, key, epoch);
        let Some(promised) = self.of_epoch(key, epoch) else { return };
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
        let Some(promised) = self.of_epoch(key, epoch) else { return };
        let agreed = promised.at(offset);
        if agreed.is_none_or(|(_, there)| there != id) {
            self.broken(format_args!(
                "{key}: {} acknowledges {id:?} at {offset} in epoch {epoch}, where {agreed:?} is committed",
                by.0
            ));
        }
        self.count += u64::from(self.acknowledged.insert((key, id), offset).is_none());
    }

    /// A leader serves a read that shows its entries up to `shown`.
    pub fn served(&mut self, at: usize, key: PartitionKey, epoch: Epoch, shown: Offset) {
        let Some(promised) = self.of_epoch(key, epoch) else { return };
        if promised.weak {
            return;
        }
        let floor = promised.acknowledged.max(promised.read);
        promised.read = promised.read.max(shown);
        if shown < floor {
            self.broken(format_args!(
                "{key}: a read at {at} in epoch {epoch} shows entries up to {shown}, and misses what was acknowledged or read up to {floor}"
            ));
        }
    }

    /// A follower serves a read that shows its entries up to `shown` to somebody who has seen `seen` to be done (R35).
    pub fn followed(&mut self, key: PartitionKey, by: Run, shown: Token, seen: Token) {
        let Some(promised) = self.of(key) else { return };
        let before = promised.shown.insert(by, shown).unwrap_or_default();
        let at = by.0;
        if shown < before {
            self.broken(format_args!(
                "{key}: a read at follower {at} shows {shown:?}, and one before has shown {before:?}"
            ));
        } else if shown < seen {
            self.broken(format_args!(
                "{key}: a read at follower {at} shows {shown:?}, its reader has seen {seen:?} to be done"
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

    /// How much of what is agreed that log has.
    pub fn known_of(&self, key: PartitionKey, log: &Log) -> usize {
        let agreed = self.partitions.get(&key).map_or(&[][..], |p| &p.agreed);
        let both = agreed.iter().zip(log.from(Offset(1)));
        both.take_while(|(agreed, (_, e))| **agreed == (e.epoch, e.id)).count()
    }

    /// How many unclean epochs of a partition are known here.
    pub fn uncleans(&self, key: PartitionKey) -> u64 {
        self.partitions.get(&key).map_or(0, |p| p.uncleans)
    }

    /// An epoch began uncleanly, with that copy's log (R16). The acknowledged writes that are lost by it, perhaps for
    /// ever.
    pub fn unclean(
        &mut self,
        key: PartitionKey,
        (epoch, uncleans): (Epoch, u64),
        log: &Log,
    ) -> Vec<Id> {
        let Some(promised) = self.of(key) else { return Vec::new() };
        (promised.era, promised.uncleans) = (epoch, uncleans);
        let both = promised.agreed.iter().zip(log.from(Offset(1)));
        let kept = both.take_while(|(agreed, (_, e))| **agreed == (e.epoch, e.id)).count();
        let gone = promised.agreed.split_off(kept);
        for (_, id) in &gone {
            promised.places.remove(id);
        }
        let end = Offset(kept as u64);
        promised.acknowledged = promised.acknowledged.min(end);
        promised.read = promised.read.min(end);
        let lost = gone.into_iter().map(|(_, id)| id);
        lost.filter(|id| self.acknowledged.remove(&(key, *id)).is_some()).collect()
    }
}

#[cfg(test)]
mod tests {
    use stela_common::ids::PartitionId;

    use super::super::disk::{Disk, Record};
    use super::*;

    const KEY: PartitionKey = PartitionKey { tid: TableId(1), pid: PartitionId(0) };
    const RUN: Run = (0, Incarnation(7));

    fn entry(epoch: u64, seq: u64) -> Entry {
        Entry { epoch: Epoch(epoch), id: Id { session: 1, seq }, commit: Offset(0) }
    }

    /// A log with the writes of these numbers, in that epoch.
    fn log(epoch: u64, seqs: impl IntoIterator<Item = u64>) -> Log {
        let mut disk = Disk::default();
        for (at, seq) in seqs.into_iter().enumerate() {
            let record = Record::Entry(KEY, Offset(at as u64 + 1), entry(epoch, seq));
            disk.append(&[record]).unwrap();
        }
        disk.written(KEY).clone()
    }

    /// Three entries of epoch 1 are committed and two acknowledged.
    fn begun() -> Ghost {
        let mut ghost = Ghost::default();
        ghost.committed(0, (KEY, Epoch(1)), Offset(0), Offset(3), &log(1, 1..=3));
        for n in 1..=2 {
            ghost.acknowledged(KEY, Epoch(1), RUN, Offset(n), entry(1, n).id);
        }
        assert_eq!((ghost.verdict(), ghost.count()), (None, 2));
        ghost
    }

    #[track_caller]
    fn breaks(what: &str, step: impl FnOnce(&mut Ghost)) {
        let mut ghost = begun();
        step(&mut ghost);
        let verdict = ghost.verdict().unwrap_or("nothing is broken");
        assert!(verdict.contains(what), "{verdict}, and not: {what}");
    }

    #[test]
    fn each_promise_that_is_broken_is_noticed() {
        let (other, third) = ((1, Incarnation(8)), (0, Incarnation(9)));
        breaks("lacks committed entry 3", |g| g.member(1, KEY, &log(1, 1..=2)));
        breaks("lacks committed entry 3", |g| g.member(1, KEY, &log(2, 1..=3)));
        breaks("cuts its log to 2", |g| g.truncated(1, KEY, Offset(2), Offset(3), &log(1, 1..=4)));
        breaks("agreed was one of epoch 1", |g| {
            g.committed(1, (KEY, Epoch(2)), Offset(0), Offset(3), &log(2, 1..=3));
        });
        breaks("its log ends at 3", |g| {
            g.committed(1, (KEY, Epoch(1)), Offset(2), Offset(4), &log(1, 1..=3));
        });
        breaks("there twice", |g| {
            g.committed(0, (KEY, Epoch(1)), Offset(3), Offset(4), &log(1, [1, 2, 3, 1]));
        });
        breaks("two acknowledge in epoch 1", |g| {
            g.acknowledged(KEY, Epoch(1), other, Offset(3), entry(1, 3).id);
        });
        breaks("two acknowledge in epoch 1", |g| {
            g.acknowledged(KEY, Epoch(1), third, Offset(3), entry(1, 3).id);
        });
        breaks("where None is committed", |g| {
            g.acknowledged(KEY, Epoch(1), RUN, Offset(4), entry(1, 4).id);
        });
        breaks("misses what was acknowledged or read up to 2", |g| {
            g.served(1, KEY, Epoch(2), Offset(1));
        });
        breaks("misses what was acknowledged or read up to 3", |g| {
            g.served(0, KEY, Epoch(1), Offset(3));
            g.served(1, KEY, Epoch(2), Offset(2));
        });
        breaks("one before has shown", |g| {
            g.followed(KEY, RUN, (0, Offset(3)), (0, Offset(0)));
            g.followed(KEY, RUN, (0, Offset(2)), (0, Offset(0)));
        });
        breaks("its reader has seen", |g| {
            g.followed(KEY, RUN, (0, Offset(1)), (0, Offset(2)));
        });
        breaks("has spoken in epoch 1", |g| g.speaks(0, KEY, Epoch(0)));
        breaks("log matching", |g| {
            g.appended(0, KEY, Offset(2), entry(1, 2), &log(1, 1..=2));
            g.appended(1, KEY, Offset(2), entry(1, 9), &log(1, 1..=2));
        });
    }

    #[test]
    fn an_unclean_epoch_takes_back_what_its_leader_does_not_have_and_no_more() {
        let mut ghost = begun();
        let lost = ghost.unclean(KEY, (Epoch(5), 1), &log(1, 1..=1));
        assert_eq!(lost, [entry(1, 2).id], "of two acknowledged ones the second");
        // The old leader's word counts no more, the new one's does.
        ghost.acknowledged(KEY, Epoch(4), RUN, Offset(2), entry(1, 2).id);
        ghost.truncated(0, KEY, Offset(1), Offset(3), &log(1, 1..=3));
        ghost.served(1, KEY, Epoch(5), Offset(1));
        ghost.member(1, KEY, &log(1, 1..=1));
        assert_eq!(ghost.verdict(), None);
        ghost.truncated(0, KEY, Offset(0), Offset(3), &log(1, 1..=3));
        assert!(ghost.verdict().is_some_and(|v| v.contains("cuts its log to 0")));
    }

    #[test]
    fn nothing_is_promised_of_a_dropped_table() {
        let mut ghost = begun();
        ghost.dropped(KEY.tid);
        ghost.member(0, KEY, &log(1, []));
        ghost.served(0, KEY, Epoch(1), Offset(0));
        assert_eq!((ghost.verdict(), ghost.count()), (None, 2));
    }
}
