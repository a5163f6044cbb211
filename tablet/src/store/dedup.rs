//! Request ids that a partition remembers (R32): a function of its log, and of nothing else.
//!
//! **Invariants**
//! * Of a session the numbers above its highest minus [`WINDOW`] are remembered, with their offsets; of the partition
//!   the [`SESSIONS`] sessions that appended last, in log order and never by time.
//! * Truncation takes back all that the cut entries did, the forgetting included: what an entry displaced is kept until
//!   the entry is committed, since nothing committed is ever cut.
//! * So leader, follower, and either after a restart have the same state for the same log.
//! * A session that is not known may be new, or forgotten: its first number is new unless its sender says that it sent it
//!   before and sessions have been forgotten.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use serde::{Deserialize, Serialize};
use stela_common::ids::Offset;

/// Numbers of one session that are remembered.
pub const WINDOW: u64 = 64;
/// Sessions of a partition that are remembered.
pub const SESSIONS: usize = 256;

/// What is known of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It was not seen: to be applied.
    New,
    /// It may have been seen and forgotten: not to be applied.
    Unknown,
    /// It is in the log at that offset, and not committed.
    Pending(Offset),
    /// It is committed at that offset.
    Committed(Offset),
}

/// The request ids of one partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dedup {
    sessions: HashMap<u64, Session, BuildHasherDefault<Mixed>>,
    /// Sessions by their last entry.
    order: BTreeMap<Offset, u64>,
    /// What uncommitted entries changed, in log order.
    undo: VecDeque<Undo>,
    /// How many sessions had to go.
    forgotten: u64,
    committed: Offset,
}

/// Hashes session numbers, which clients draw at random: of those that are alike on purpose a partition knows no more than
/// [`SESSIONS`].
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// The request ids of one partition at a committed offset, as a snapshot keeps them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Remembered {
    /// Each session, in the order of the numbers that clients gave them.
    sessions: BTreeMap<u64, Session>,
    /// How many sessions had to go.
    forgotten: u64,
    /// Up to where all is committed.
    committed: Offset,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Session {
    /// The entry that made it known.
    since: Offset,
    /// Its last entry.
    last: Offset,
    /// Its highest number.
    highest: u64,
    /// Numbers and their offsets, ascending. Those that fell out of the window go when that is committed.
    seen: VecDeque<(u64, Offset)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Undo {
    at: Offset,
    session: u64,
    seq: u64,
    /// The session's last entry and highest number before; `None`: it was not known.
    before: Option<(Offset, u64)>,
    /// The session that had to go.
    evicted: Option<Box<(u64, Session)>>,
}

impl Session {
    fn position(&self, seq: u64, at: Offset) -> usize {
        match self.seen.back() {
            Some(back) if *back >= (seq, at) => self.seen.partition_point(|s| *s < (seq, at)),
            _ => self.seen.len(),
        }
    }

    fn find(&self, seq: u64) -> Option<Offset> {
        if seq > self.highest {
            return None;
        }
        let behind = self.seen.partition_point(|(s, _)| *s <= seq);
        self.seen.get(behind.checked_sub(1)?).filter(|(s, _)| *s == seq).map(|(_, at)| *at)
    }
}

impl Remembered {
    /// Whether it can be what a partition remembers at that offset.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, at: Offset) -> Result<(), &'static str> {
        let mut lasts: Vec<Offset> = self.sessions.values().map(|s| s.last).collect();
        lasts.sort_unstable();
        let known = |s: &Session| {
            s.since <= s.last && s.last <= at && s.seen.iter().is_sorted_by(|a, b| a < b)
        };
        if self.committed != at || self.sessions.len() > SESSIONS {
            return Err("the request ids are not those of the last entry");
        }
        if !lasts.is_sorted_by(|a, b| a < b) || !self.sessions.values().all(known) {
            return Err("the request ids are not in order");
        }
        Ok(())
    }
}

impl From<&Remembered> for Dedup {
    fn from(remembered: &Remembered) -> Self {
        let Remembered { sessions, forgotten, committed } = remembered;
        Self {
            sessions: sessions.clone().into_iter().collect(),
            order: sessions.iter().map(|(session, known)| (known.last, *session)).collect(),
            undo: VecDeque::new(),
            forgotten: *forgotten,
            committed: *committed,
        }
    }
}

impl Dedup {
    /// What is to be kept of it when all that it has seen is committed.
    #[must_use]
    pub fn remembered(&self) -> Remembered {
        debug_assert!(self.undo.is_empty(), "all is committed");
        Remembered {
            sessions: self.sessions.iter().map(|(s, known)| (*s, known.clone())).collect(),
            forgotten: self.forgotten,
            committed: self.committed,
        }
    }

    /// What to do with a request, which its sender may have sent before (`again`). Session 0 is "no id": always new.
    #[must_use]
    pub fn look(&self, session: u64, seq: u64, again: bool) -> Verdict {
        if session == 0 {
            return Verdict::New;
        }
        let Some(known) = self.sessions.get(&session) else {
            let new = seq == 1 && !(again && self.forgotten > 0);
            return if new { Verdict::New } else { Verdict::Unknown };
        };
        if seq.saturating_add(WINDOW) <= known.highest || seq == 0 {
            return Verdict::Unknown;
        }
        match known.find(seq) {
            None => Verdict::New,
            Some(at) if at <= self.committed => Verdict::Committed(at),
            Some(at) => Verdict::Pending(at),
        }
    }

    /// An entry with that id was appended at that offset, which is above all before.
    pub fn appended(&mut self, at: Offset, session: u64, seq: u64) {
        if session == 0 {
            return;
        }
        let known = self.sessions.get(&session).map(|s| (s.last, s.highest));
        let evicted =
            if known.is_none() && self.sessions.len() >= SESSIONS { self.evict() } else { None };
        if let Some((last, _)) = known {
            self.order.remove(&last);
        }
        self.order.insert(at, session);
        let entry = self.sessions.entry(session).or_insert_with(|| Session {
            since: at,
            last: at,
            highest: 0,
            seen: VecDeque::new(),
        });
        entry.last = at;
        entry.highest = entry.highest.max(seq);
        let position = entry.position(seq, at);
        entry.seen.insert(position, (seq, at));
        self.undo.push_back(Undo { at, session, seq, before: known, evicted });
    }

    fn evict(&mut self) -> Option<Box<(u64, Session)>> {
        let (_, session) = self.order.pop_first()?;
        self.forgotten += 1;
        self.sessions.remove(&session).map(|known| Box::new((session, known)))
    }

    /// Entries above `to` are void.
    pub fn truncated(&mut self, to: Offset) {
        while self.undo.back().is_some_and(|u| u.at > to) {
            let Some(undo) = self.undo.pop_back() else { break };
            self.order.remove(&undo.at);
            match undo.before {
                None => drop(self.sessions.remove(&undo.session)),
                Some((last, highest)) => {
                    self.order.insert(last, undo.session);
                    if let Some(known) = self.sessions.get_mut(&undo.session) {
                        known.last = last;
                        known.highest = highest;
                        known.seen.retain(|seen| *seen != (undo.seq, undo.at));
                    }
                }
            }
            if let Some((session, known)) = undo.evicted.map(|e| *e) {
                self.forgotten -= 1;
                self.order.insert(known.last, session);
                self.sessions.insert(session, known);
            }
        }
        self.committed = self.committed.min(to);
    }

    /// Entries up to `to` are committed.
    pub fn committed(&mut self, to: Offset) {
        self.committed = self.committed.max(to);
        while self.undo.front().is_some_and(|u| u.at <= to) {
            let Some(undo) = self.undo.pop_front() else { break };
            // A session that was forgotten and came back since is another one.
            let Some(known) = self.sessions.get_mut(&undo.session).filter(|s| s.since <= undo.at)
            else {
                continue;
            };
            let highest = undo.before.map_or(undo.seq, |(_, highest)| highest.max(undo.seq));
            while known.seen.front().is_some_and(|(seq, _)| seq.saturating_add(WINDOW) <= highest) {
                known.seen.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: state is what a walk over the log gives.
    #[derive(Default)]
    struct Naive {
        log: Vec<(u64, u64)>,
        committed: usize,
    }

    impl Naive {
        fn look(&self, session: u64, seq: u64, again: bool) -> Verdict {
            if session == 0 {
                return Verdict::New;
            }
            // Session -> (last entry, numbers).
            let mut known: BTreeMap<u64, (usize, BTreeMap<u64, usize>)> = BTreeMap::new();
            let mut forgotten = false;
            for (i, (session, seq)) in self.log.iter().enumerate().filter(|(_, (s, _))| *s != 0) {
                if !known.contains_key(session) && known.len() == SESSIONS {
                    forgotten = true;
                    let oldest =
                        known.iter().min_by_key(|(_, (last, _))| *last).map(|(s, _)| *s).unwrap();
                    known.remove(&oldest);
                }
                let entry = known.entry(*session).or_default();
                entry.0 = i + 1;
                entry.1.insert(*seq, i + 1);
            }
            let Some((_, seqs)) = known.get(&session) else {
                let new = seq == 1 && !(again && forgotten);
                return if new { Verdict::New } else { Verdict::Unknown };
            };
            if seq + WINDOW <= *seqs.last_key_value().unwrap().0 {
                return Verdict::Unknown;
            }
            match seqs.get(&seq) {
                None => Verdict::New,
                Some(at) if *at <= self.committed => Verdict::Committed(Offset(*at as u64)),
                Some(at) => Verdict::Pending(Offset(*at as u64)),
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Do {
        Append(u64, u64),
        Many(u64, u64),
        Truncate(usize),
        Commit(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Do>> {
        let step = prop_oneof![
            12 => (0u64..4, 1u64..200).prop_map(|(session, seq)| Do::Append(session, seq)),
            // A crowd of other sessions, so that some are forgotten.
            2 => (100u64..500, 1u64..150).prop_map(|(from, count)| Do::Many(from, count)),
            3 => (0usize..120).prop_map(Do::Truncate),
            3 => (0usize..200).prop_map(Do::Commit),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn is_a_function_of_the_log(steps in steps(), asked in prop::collection::vec((0u64..6, 1u64..200), 20)) {
            let (mut dedup, mut naive) = (Dedup::default(), Naive::default());
            let append = |dedup: &mut Dedup, naive: &mut Naive, session, seq| {
                naive.log.push((session, seq));
                dedup.appended(Offset(naive.log.len() as u64), session, seq);
            };
            for step in steps {
                match step {
                    Do::Append(session, seq) => {
                        if dedup.look(session, seq, false) == Verdict::New {
                            append(&mut dedup, &mut naive, session, seq);
                        }
                    }
                    Do::Many(from, count) => {
                        (from..from + count).for_each(|session| append(&mut dedup, &mut naive, session, 1));
                    }
                    Do::Truncate(back) => {
                        let to = (naive.log.len() - back.min(naive.log.len())).max(naive.committed);
                        naive.log.truncate(to);
                        dedup.truncated(Offset(to as u64));
                    }
                    Do::Commit(ahead) => {
                        naive.committed = (naive.committed + ahead).min(naive.log.len());
                        dedup.committed(Offset(naive.committed as u64));
                    }
                }
                for (session, seq) in asked.iter().copied().chain([(120, 1), (300, 1), (300, 2)]) {
                    for again in [false, true] {
                        let (found, expected) = (dedup.look(session, seq, again), naive.look(session, seq, again));
                        prop_assert_eq!(found, expected, "{} {} {}", session, seq, again);
                    }
                }
            }
            // A replay of the same log comes to the same.
            let mut replayed = Dedup::default();
            for (i, (session, seq)) in naive.log.iter().enumerate() {
                replayed.appended(Offset(i as u64 + 1), *session, *seq);
            }
            replayed.committed(Offset(naive.committed as u64));
            for (session, seq) in &asked {
                prop_assert_eq!(replayed.look(*session, *seq, true), dedup.look(*session, *seq, true));
            }
            // So does one that goes on behind a snapshot of it.
            let mut early = Dedup::default();
            let (before, behind) = naive.log.split_at(naive.committed);
            for (i, (session, seq)) in before.iter().enumerate() {
                early.appended(Offset(i as u64 + 1), *session, *seq);
            }
            early.committed(Offset(naive.committed as u64));
            let kept = serde_json::to_vec(&early.remembered()).unwrap();
            let kept: Remembered = serde_json::from_slice(&kept).unwrap();
            prop_assert_eq!(kept.check(Offset(naive.committed as u64)), Ok(()));
            let mut later = Dedup::from(&kept);
            for (i, (session, seq)) in behind.iter().enumerate() {
                later.appended(Offset((before.len() + i) as u64 + 1), *session, *seq);
            }
            for (session, seq) in asked {
                prop_assert_eq!(later.look(session, seq, true), dedup.look(session, seq, true));
            }
        }
    }

    #[test]
    fn a_session_is_known_from_its_first_number_on() {
        let mut dedup = Dedup::default();
        assert_eq!(dedup.look(5, 2, false), Verdict::Unknown);
        assert_eq!(dedup.look(5, 1, false), Verdict::New);
        dedup.appended(Offset(1), 5, 1);
        assert_eq!(dedup.look(5, 1, false), Verdict::Pending(Offset(1)));
        assert_eq!(dedup.look(5, 2, false), Verdict::New);
        dedup.committed(Offset(1));
        assert_eq!(dedup.look(5, 1, false), Verdict::Committed(Offset(1)));
        assert_eq!(dedup.look(0, 1, false), Verdict::New);
    }

    #[test]
    fn a_repeated_first_request_of_a_forgotten_session_is_not_applied_again() {
        let mut dedup = Dedup::default();
        dedup.appended(Offset(1), 7, 1);
        for n in 2..=1 + SESSIONS as u64 {
            assert_eq!(
                dedup.look(9, 1, true),
                Verdict::New,
                "nothing was forgotten: it never came"
            );
            dedup.appended(Offset(n), 1000 + n, 1);
        }
        assert_eq!(dedup.look(7, 1, true), Verdict::Unknown);
        assert_eq!(dedup.look(9, 1, false), Verdict::New, "a new session says that it is new");
        dedup.truncated(Offset(SESSIONS as u64));
        assert_eq!(dedup.look(7, 1, true), Verdict::Pending(Offset(1)));
    }

    #[test]
    fn what_is_committed_takes_no_more_room_than_the_window() {
        let mut dedup = Dedup::default();
        for n in 1..=1000 {
            dedup.appended(Offset(n), 1 + n % 3, 1 + n / 3);
            dedup.committed(Offset(n));
        }
        for n in 1001..=2000 {
            dedup.appended(Offset(n), n, 1);
            dedup.committed(Offset(n));
        }
        assert!(dedup.undo.is_empty());
        assert_eq!((dedup.sessions.len(), dedup.order.len()), (SESSIONS, SESSIONS));
        assert!(dedup.sessions.values().all(|s| s.seen.len() <= 64));
    }
}
