//! The rows of a table as a set: each is written once and never again.
//!
//! A row that was acknowledged must be found by every read at the leader that begins afterwards, and in the end on every
//! replica. So must one that an earlier read at the leader has shown. A read that misses one is *stale*; a row that the
//! last read of its key at some place misses is *lost*. A row is *doubled* when a read shows it twice, and a *phantom* when
//! nobody has asked for it by then, or with other bytes, or when its write was refused for good. No write that begins after
//! another one of its partition was acknowledged is acknowledged in an earlier epoch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::{Found, Outcome};
use crate::history::{Done, End, Op, Stored};

/// What one row is known to be.
struct Row<'a> {
    value: &'a str,
    invoked: u64,
    refused: bool,
    acked: bool,
    /// From then on every read must show it: acknowledged, or shown. `u64::MAX`: not yet.
    known: u64,
    /// A read that began then, last of all, missed it after it was known.
    missed: Option<u64>,
}

type Key<'a> = (&'a str, &'a str);
type Keys<'a> = HashMap<Key<'a>, BTreeMap<u64, Row<'a>>>;

#[derive(Default)]
struct Finds {
    acked: usize,
    unknown: usize,
    reads: usize,
    looked_for: usize,
    lost: Vec<String>,
    stale: Vec<String>,
    doubled: Vec<String>,
    phantom: Vec<String>,
    regressed: Vec<String>,
    unread: Vec<String>,
}

pub(super) fn check(history: &Stored) -> Found {
    let (mut keys, mut finds) = (Keys::new(), Finds::default());
    for done in &history.done {
        if let Op::Put { table, key, ts, value } = &done.op {
            let acked = done.end == End::Ok;
            finds.acked += usize::from(acked);
            finds.unknown += usize::from(done.end == End::Info);
            let known = if acked { done.ended } else { u64::MAX };
            let row = Row {
                value,
                invoked: done.invoked,
                refused: done.end == End::Fail,
                acked,
                known,
                missed: None,
            };
            let rows = keys.entry((table, key)).or_default();
            if rows.insert(*ts, row).is_some() {
                finds.phantom.push(format!("{key}@{ts} was written twice: the history is wrong"));
            }
        }
    }
    // In the order of their ends, so that what one has shown is known to whatever begins later; a later end cannot come
    // before an earlier beginning.
    let mut scans: Vec<&Done> = history
        .done
        .iter()
        .filter(|d| matches!(d.op, Op::Scan { .. }) && d.end == End::Ok)
        .collect();
    scans.sort_by_key(|d| d.ended);
    let last = last_whole_scans(&scans);
    for (number, scan) in scans.iter().enumerate() {
        look(scan, last.contains(&number), &mut keys, &mut finds);
    }
    let whole: BTreeSet<Key<'_>> = last.iter().map(|number| key_of(scans[*number])).collect();
    for (key, rows) in &keys {
        if rows.values().any(|r| r.acked) && !whole.contains(key) {
            finds.unread.push(format!("{} of {} was never read back", key.1, key.0));
        }
    }
    epochs(history, &mut finds);
    finds.conclude(worst_staleness(&keys))
}

fn key_of(done: &Done) -> Key<'_> {
    match &done.op {
        Op::Scan { table, key, .. } | Op::Put { table, key, .. } => (table, key),
        Op::Write { key, .. } | Op::Read { key } | Op::Cas { key, .. } => ("", key),
    }
}

/// Of each key at each place, the last scan of all its rows.
fn last_whole_scans(scans: &[&Done]) -> BTreeSet<usize> {
    let mut last = HashMap::new();
    for (number, scan) in scans.iter().enumerate() {
        if let Op::Scan { limit: 0, at, .. } = &scan.op {
            last.insert((key_of(scan), at.as_deref()), number);
        }
    }
    last.into_values().collect()
}

fn look<'a>(scan: &'a Done, last: bool, keys: &mut Keys<'a>, finds: &mut Finds) {
    let Op::Scan { table, key, limit, at } = &scan.op else { return };
    let place = at.as_deref().unwrap_or("the leader");
    let found = scan.answer.rows.as_deref().unwrap_or_default();
    let rows = keys.entry((table, key)).or_default();
    finds.reads += 1;
    let mut seen = BTreeSet::new();
    for (ts, value) in found {
        if !seen.insert(*ts) {
            finds.doubled.push(format!("{key}@{ts} at {place}"));
        }
        match rows.get_mut(ts) {
            None => finds.phantom.push(format!("{key}@{ts} at {place}: nobody wrote it")),
            Some(row) if row.value != value => {
                finds.phantom.push(format!("{key}@{ts} at {place} has another value"));
            }
            Some(row) if row.invoked > scan.ended => {
                finds.phantom.push(format!("{key}@{ts} at {place} before it was written"));
            }
            Some(row) if row.refused => {
                finds.phantom.push(format!("{key}@{ts} at {place}: its write was refused"));
            }
            Some(row) if at.is_none() => row.known = row.known.min(scan.ended),
            Some(_) => {}
        }
    }
    // A read of the newest few says nothing of what is older.
    let whole = *limit == 0 || found.len() < *limit;
    let from = if whole { 0 } else { found.iter().map(|(ts, _)| *ts).min().unwrap_or(0) };
    for (ts, row) in rows.range_mut(from..) {
        if row.known >= scan.invoked {
            continue;
        }
        finds.looked_for += 1;
        if seen.contains(ts) {
            continue;
        }
        if last {
            finds.lost.push(format!("{key}@{ts} at {place}"));
        } else if at.is_none() {
            row.missed = Some(scan.invoked.max(row.missed.unwrap_or(0)));
            let late = Duration::from_nanos(scan.invoked - row.known);
            finds.stale.push(format!("{key}@{ts}: a read {late:.3?} after it was known missed it"));
        }
    }
}

/// The longest time after which a row was still missed.
fn worst_staleness(keys: &Keys<'_>) -> Duration {
    let late = |row: &Row<'_>| row.missed.map(|missed| missed.saturating_sub(row.known));
    let worst = keys.values().flat_map(BTreeMap::values).filter_map(late).max();
    Duration::from_nanos(worst.unwrap_or(0))
}

/// No epoch acknowledges after a later one has.
fn epochs(history: &Stored, finds: &mut Finds) {
    let mut acked: Vec<(&Done, (&str, u32), u64)> = Vec::new();
    for done in &history.done {
        if let (Op::Put { table, .. }, End::Ok, Some(pid), Some(epoch)) =
            (&done.op, done.end, done.answer.pid, done.answer.epoch)
        {
            acked.push((done, (table, pid), epoch));
        }
    }
    let mut ended: Vec<usize> = (0..acked.len()).collect();
    ended.sort_by_key(|at| acked[*at].0.ended);
    let mut ended = ended.into_iter().peekable();
    let mut highest: HashMap<(&str, u32), u64> = HashMap::new();
    // `acked` is in the order of invocation.
    for (done, place, epoch) in &acked {
        while let Some(at) = ended.next_if(|at| acked[*at].0.ended < done.invoked) {
            let (_, place, epoch) = acked[at];
            let highest = highest.entry(place).or_default();
            *highest = epoch.max(*highest);
        }
        let before = highest.get(place).copied().unwrap_or(0);
        if *epoch < before {
            let (table, pid) = place;
            let what = format!("partition {pid} of {table} acknowledged in {epoch} after {before}");
            finds.regressed.push(what);
        }
    }
}

impl Finds {
    fn conclude(self, staleness: Duration) -> Found {
        let wrong = [&self.lost, &self.stale, &self.doubled, &self.phantom, &self.regressed];
        let outcome = if wrong.iter().any(|list| !list.is_empty()) {
            Outcome::Fail
        } else if !self.unread.is_empty() || self.acked == 0 {
            Outcome::Unknown
        } else {
            Outcome::Pass
        };
        let figures = format!(
            "set: {} rows acknowledged, {} of unknown outcome; {} reads looked for {} rows: {} lost, {} stale (worst \
             {staleness:.3?}), {} doubled, {} phantom, {} acknowledged in an epoch that was over, {} keys not read back",
            self.acked,
            self.unknown,
            self.reads,
            self.looked_for,
            self.lost.len(),
            self.stale.len(),
            self.doubled.len(),
            self.phantom.len(),
            self.regressed.len(),
            self.unread.len()
        );
        let named = |name: &'static str, list: Vec<String>| {
            list.into_iter().take(3).map(move |what| format!("{name}: {what}"))
        };
        let examples = named("lost", self.lost)
            .chain(named("stale", self.stale))
            .chain(named("doubled", self.doubled))
            .chain(named("phantom", self.phantom))
            .chain(named("epoch", self.regressed))
            .chain(named("unread", self.unread))
            .collect();
        Found::new(outcome, figures, examples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Script};

    fn put(script: &mut Script, (from, to): (u64, u64), ts: u64, end: End, epoch: u64) {
        let op = Op::Put { table: "t".into(), key: "k".into(), ts, value: format!("v{ts}") };
        let answer = Answer { pid: Some(0), epoch: Some(epoch), ..Answer::default() };
        script.add(from, to, op, end, if end == End::Ok { answer } else { Answer::default() });
    }

    fn scan(
        script: &mut Script,
        (from, to): (u64, u64),
        limit: usize,
        at: Option<&str>,
        ts: &[u64],
    ) {
        let at = at.map(Into::into);
        let op = Op::Scan { table: "t".into(), key: "k".into(), limit, at };
        let rows = Some(ts.iter().map(|ts| (*ts, format!("v{ts}"))).collect());
        script.add(from, to, op, End::Ok, Answer { rows, ..Answer::default() });
    }

    /// Rows 1 and 2 acknowledged, 3 unknown, 4 refused.
    fn written() -> Script {
        let mut script = Script::default();
        put(&mut script, (10, 20), 1, End::Ok, 1);
        put(&mut script, (30, 40), 2, End::Ok, 1);
        put(&mut script, (50, u64::MAX), 3, End::Info, 0);
        put(&mut script, (60, 70), 4, End::Fail, 0);
        script
    }

    /// The verdict, and what it is said to be about.
    fn verdict(script: Script) -> (Outcome, String) {
        let found = check(&script.stored());
        let about = found.examples.first().and_then(|e| e.split(':').next()).unwrap_or_default();
        (found.outcome, about.to_owned())
    }

    fn with(scans: impl FnOnce(&mut Script)) -> (Outcome, String) {
        let mut script = written();
        scans(&mut script);
        verdict(script)
    }

    #[test]
    fn what_is_there_is_found() {
        let pass = (Outcome::Pass, String::new());
        assert_eq!(with(|s| scan(s, (100, 110), 0, None, &[2, 1])), pass);
        // An unknown one may be there, and may come late.
        assert_eq!(with(|s| scan(s, (100, 110), 0, None, &[3, 2, 1])), pass);
        assert_eq!(
            with(|s| {
                scan(s, (100, 110), 0, None, &[2, 1]);
                scan(s, (120, 130), 0, None, &[3, 2, 1]);
                scan(s, (120, 130), 0, Some("a"), &[3, 2, 1]);
            }),
            pass
        );
        // What is being written may be there or not; a short read says nothing of what is older.
        assert_eq!(
            with(|s| {
                scan(s, (12, 18), 0, None, &[1]);
                scan(s, (25, 35), 0, None, &[1]);
                scan(s, (45, 48), 1, None, &[2]);
                scan(s, (100, 110), 0, None, &[2, 1]);
            }),
            pass
        );
    }

    #[test]
    fn each_violation_is_found() {
        let whole = |s: &mut Script| scan(s, (200, 210), 0, None, &[2, 1]);
        let fails = |about: &str| (Outcome::Fail, about.to_owned());
        assert_eq!(with(|s| scan(s, (100, 110), 0, None, &[1])), fails("lost"));
        let at_a_replica = with(|s| {
            whole(s);
            scan(s, (200, 220), 0, Some("b"), &[2]);
        });
        assert_eq!(at_a_replica, fails("lost"));
        let stale = with(|s| {
            scan(s, (41, 45), 1, None, &[1]);
            whole(s);
        });
        assert_eq!(stale, fails("stale"));
        let shown_and_gone = with(|s| {
            scan(s, (100, 110), 0, None, &[3, 2, 1]);
            whole(s);
        });
        assert_eq!(shown_and_gone, fails("lost"));
        assert_eq!(with(|s| scan(s, (100, 110), 0, None, &[2, 2, 1])), fails("doubled"));
        assert_eq!(with(|s| scan(s, (100, 110), 0, None, &[9, 2, 1])), fails("phantom"));
        assert_eq!(with(|s| scan(s, (100, 110), 0, None, &[4, 2, 1])), fails("phantom"));
        let too_early = with(|s| {
            scan(s, (22, 25), 0, None, &[2, 1]);
            whole(s);
        });
        assert_eq!(too_early, fails("phantom"));
        let other_bytes = with(|s| {
            whole(s);
            if let Some(rows) = s.0.last_mut().and_then(|d| d.answer.rows.as_mut()) {
                rows[0].1 = "x".into();
            }
        });
        assert_eq!(other_bytes, fails("phantom"));
    }

    #[test]
    fn an_epoch_that_is_over_acknowledges_nothing() {
        let run = |second: (u64, u64)| {
            let mut script = Script::default();
            put(&mut script, (10, 20), 1, End::Ok, 2);
            put(&mut script, second, 2, End::Ok, 1);
            scan(&mut script, (100, 110), 0, None, &[2, 1]);
            verdict(script)
        };
        assert_eq!(run((21, 30)), (Outcome::Fail, "epoch".into()));
        assert_eq!(run((19, 30)).0, Outcome::Pass);
    }

    #[test]
    fn what_was_never_read_back_is_no_pass() {
        assert_eq!(verdict(written()), (Outcome::Unknown, "unread".into()));
        assert_eq!(
            with(|s| scan(s, (100, 110), 2, None, &[2, 1])),
            (Outcome::Unknown, "unread".into())
        );
        assert_eq!(verdict(Script::default()).0, Outcome::Unknown);
    }
}
