//! The log against a list: whatever is done, it holds what was appended and nothing else.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Bodies' lengths and partitions.
    Append(Vec<(usize, u8)>),
    /// Records that are there, again, as bytes; and a new one.
    Mixed(Vec<prop::sample::Index>),
    Read(prop::sample::Index),
    Walk(prop::sample::Index),
    Purge(prop::sample::Index),
    Reopen {
        clean: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![5 => 0..300usize, 2 => 300..9_000usize, 1 => 20_000..50_000usize];
    let step = prop_oneof![
        8 => prop::collection::vec((length, 0..3u8), 1..4).prop_map(Step::Append),
        2 => prop::collection::vec(any::<prop::sample::Index>(), 0..3).prop_map(Step::Mixed),
        2 => any::<prop::sample::Index>().prop_map(Step::Read),
        2 => any::<prop::sample::Index>().prop_map(Step::Walk),
        2 => any::<prop::sample::Index>().prop_map(Step::Purge),
        1 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
    ];
    prop::collection::vec(step, 1..60)
}

struct Model {
    place: Place,
    log: Option<Log>,
    /// Where each record is, and its bytes.
    records: Vec<(Position, Vec<u8>)>,
    ends: std::collections::BTreeMap<PartitionKey, (Offset, Epoch)>,
    purged: Position,
}

impl Model {
    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    fn added(&mut self, appended: Appended) {
        let log = self.log();
        let mut read = Vec::new();
        for at in &appended.positions {
            let found = log.read(*at).unwrap();
            assert_eq!(found.position(), *at);
            read.push((*at, found.raw().to_vec()));
        }
        assert_eq!(log.end(), appended.end);
        for (at, raw) in read {
            let entry = parse(&raw).next().unwrap().unwrap();
            self.ends.insert(entry.partition, (entry.offset, entry.epoch));
            assert!(self.records.last().is_none_or(|(last, _)| *last < at), "places grow");
            self.records.push((at, raw));
        }
    }

    fn append(&mut self, pieces: &[Piece<'_>]) {
        match self.log().append_mixed(pieces) {
            Ok(appended) => {
                assert_eq!(appended.positions.len(), pieces.len());
                self.added(appended);
            }
            Err(error) => assert!(
                matches!(error, AppendError::TooLarge { bytes, .. } if bytes > 60_000),
                "{error}"
            ),
        }
    }

    fn walked(&self, from: Position) {
        let mut walk = self.log().walk(from);
        let start = self.log().start();
        for (at, raw) in self.records.iter().filter(|(at, _)| *at >= from && *at >= start) {
            assert_eq!(walk.position(), *at);
            assert_eq!(walk.next().unwrap().raw, raw);
        }
        assert_eq!(walk.position(), self.log().end());
        assert!(walk.next().is_none());
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(records) => {
                let bodies: Vec<Vec<u8>> =
                    records.iter().map(|(len, pid)| vec![*pid; *len]).collect();
                let parts: Vec<[&[u8]; 1]> = bodies.iter().map(|body| [body.as_slice()]).collect();
                let mut offsets = self.ends.clone();
                let new = records.iter().zip(&parts).map(|((_, pid), body)| {
                    let last = offsets.entry(key((*pid).into())).or_default();
                    last.0 = last.0.next();
                    Piece::New(record(Kind::Entry, (*pid).into(), last.0.0, 1, body))
                });
                let pieces: Vec<Piece<'_>> = new.collect();
                self.append(&pieces);
            }
            Step::Mixed(again) => {
                let raw: Vec<Vec<u8>> = again
                    .iter()
                    .filter(|_| !self.records.is_empty())
                    .map(|i| i.get(&self.records).1.clone())
                    .collect();
                let mut pieces: Vec<Piece<'_>> = raw.iter().map(|raw| Piece::Raw(raw)).collect();
                pieces.push(Piece::New(record(Kind::Entry, 7, 1, 2, &[b"new", b"", b"one"])));
                self.append(&pieces);
            }
            Step::Read(index) if !self.records.is_empty() => {
                let (at, raw) = index.get(&self.records);
                match self.log().read(*at) {
                    Ok(found) => assert_eq!(found.raw(), raw),
                    Err(error) => {
                        assert!(
                            matches!(error, ReadError::Purged { .. }) && *at < self.purged,
                            "{error}"
                        );
                    }
                }
            }
            Step::Walk(index) if !self.records.is_empty() => {
                self.walked(index.get(&self.records).0)
            }
            Step::Purge(index) if !self.records.is_empty() => {
                let upto = index.get(&self.records).0;
                self.log().purge(upto).unwrap();
                self.purged = self.purged.max(upto);
                assert!(self.log().start() <= self.purged.max(Position(SEGMENT)));
            }
            Step::Reopen { clean } => {
                let log = self.log.take().unwrap();
                if clean {
                    log.close().unwrap();
                }
                drop(log);
                let (log, recovery) = self.place.open();
                self.log = Some(log);
                assert_eq!((recovery.clean, recovery.torn, recovery.damage), (clean, None, vec![]));
                let ends =
                    recovery.ends.into_iter().map(|(key, end)| (key, (end.offset, end.epoch)));
                assert_eq!(ends.collect::<BTreeMap<_, _>>(), self.ends);
                self.walked(Position(0));
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn a_log_holds_what_was_appended(steps in steps()) {
        let place = Place::new();
        let log = Some(place.open().0);
        let mut model = Model { place, log, records: vec![], ends: Default::default(), purged: Position(0) };
        for step in steps {
            model.step(step);
        }
        model.step(Step::Reopen { clean: false });
        prop_assert_eq!(model.place.fatal.load(Ordering::SeqCst), 0);
    }
}
