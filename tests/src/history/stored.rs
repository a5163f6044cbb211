//! Reading a history.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use stela_common::fs;

use super::event::{Answer, End, Event, Head, Line, Op, What};

/// A stored history.
#[derive(Debug)]
pub struct Stored {
    /// Which run it was.
    pub head: Head,
    /// Every operation, in the order in which they were asked for.
    pub done: Vec<Done>,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Done {
    /// What was asked.
    pub op: Op,
    /// When, ns since the run began.
    pub invoked: u64,
    /// When the end was known; `u64::MAX`: never.
    pub ended: u64,
    /// How it ended.
    pub end: End,
    /// What was answered.
    pub answer: Answer,
}

impl Stored {
    /// Reads it: `path` is the file, or the directory that it is in.
    ///
    /// A last line that is not whole was being written when the harness was killed, and is left out.
    ///
    /// # Errors
    /// It is not there, or is no history.
    pub fn read(path: &Path) -> Result<Self> {
        let path: PathBuf =
            if path.is_dir() { path.join("history.jsonl") } else { path.to_owned() };
        let context = || format!("cannot read {}", path.display());
        let mut lines = BufReader::new(fs::open_read(&path).with_context(context)?).lines();
        let head = lines.next().with_context(context)?.with_context(context)?;
        let head = serde_json::from_str(&head).with_context(context)?;
        let mut stored = Self { head, done: Vec::new() };
        let (mut open, mut broken) = (HashMap::new(), None);
        for (at, line) in lines.enumerate() {
            let line = line.with_context(context)?;
            if let Some(e) = broken {
                return Err(e).with_context(|| format!("{} line {}", path.display(), at + 1));
            }
            match serde_json::from_str(&line) {
                Ok(Line::Event(event)) => stored.add(event, &mut open)?,
                Ok(Line::Note { .. }) => {}
                Err(e) => broken = Some(e),
            }
        }
        Ok(stored)
    }

    fn add(&mut self, event: Event, open: &mut HashMap<u64, usize>) -> Result<()> {
        let Event { t, id, what, op, answer, .. } = event;
        match what {
            What::Invoke => {
                if open.insert(id, self.done.len()).is_some() {
                    bail!("operation {id} was asked for twice");
                }
                let (ended, end) = (u64::MAX, End::Info);
                self.done.push(Done { op, invoked: t, ended, end, answer });
            }
            What::End(end) => {
                let at = open.get(&id).with_context(|| format!("operation {id} never began"))?;
                let done = &mut self.done[*at];
                if done.ended != u64::MAX {
                    bail!("operation {id} ended twice");
                }
                (done.ended, done.end, done.answer) = (t, end, answer);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::History;
    use super::*;

    /// A history made by hand: times are given.
    #[derive(Default)]
    pub struct Script(pub Vec<Done>);

    impl Script {
        pub fn add(&mut self, invoked: u64, ended: u64, op: Op, end: End, answer: Answer) {
            self.0.push(Done { op, invoked, ended, end, answer });
        }

        pub fn stored(mut self) -> Stored {
            self.0.sort_by_key(|d| d.invoked);
            let head = Head { drill: String::new(), seed: 0, commit: String::new(), started: 0 };
            Stored { head, done: self.0 }
        }
    }

    fn write(key: &str) -> Op {
        Op::Write { key: key.into(), value: "1".into() }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::begin(dir.path(), "D0", 7).unwrap();
        let put = Op::Put { table: "t".into(), key: "k".into(), ts: 5, value: "v".into() };
        let first = history.invoke(1, put.clone());
        let second = history.invoke(2, write("a"));
        let third = history.invoke(3, write("b"));
        history.note("a fault");
        history.ok(first, Answer { pid: Some(3), epoch: Some(9), ..Answer::default() });
        history.fail(second, "no");
        history.info(third, "perhaps");
        let scan = Op::Scan { table: "t".into(), key: "k".into(), limit: 0, at: None };
        let fourth = history.invoke(1, scan.clone());
        let rows = Answer { rows: Some(vec![(5, "v".into())]), ..Answer::default() };
        history.ok(fourth, rows.clone());
        let open = history.invoke(2, Op::Read { key: "a".into() });
        history.finish().unwrap();
        drop(open);

        let stored = Stored::read(dir.path()).unwrap();
        assert_eq!((stored.head.drill.as_str(), stored.head.seed), ("D0", 7));
        let ends: Vec<End> = stored.done.iter().map(|d| d.end).collect();
        assert_eq!(ends, [End::Ok, End::Fail, End::Info, End::Ok, End::Info]);
        assert_eq!(stored.done[0].op, put);
        assert_eq!(stored.done[0].answer.epoch, Some(9));
        assert_eq!(stored.done[3].op, scan);
        assert_eq!(stored.done[3].answer, rows);
        assert_eq!(stored.done[4].ended, u64::MAX);
        assert!(stored.done.windows(2).all(|w| w[0].invoked <= w[1].invoked));
        assert!(stored.done.iter().all(|d| d.invoked <= d.ended));
    }

    #[test]
    fn a_line_that_was_being_written_is_left_out_and_damage_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::begin(dir.path(), "D0", 7).unwrap();
        history.ok(history.invoke(1, write("a")), Answer::default());
        let path = history.path().to_owned();
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{{\"t\":12,\"id\"")).unwrap();
        assert_eq!(Stored::read(&path).unwrap().done.len(), 1);
        fs::write(&path, format!("{whole}{{\"t\":12,\"id\"\n{whole}")).unwrap();
        Stored::read(&path).unwrap_err();
    }
}
