//! `lost+found`: entries that were set aside, for people: Stela never deletes a file there and takes none back by itself.
//! They are tails that were cut because another leader had gone on without them (R4), and what a damaged copy had.
//!
//! ```text
//! <tid>_<pid>_<epoch>_<first>-<last>[.<n>]     raw records in the order of the log, the first and last of these offsets
//! ```
//!
//! **Invariants**: nothing outside the directory is named by a [`Name`]; a file is read in pieces, so none is too long;
//! no bytes whatever make a function here panic. It blocks on the disk: not for a thread that serves.

use std::fmt;
use std::io;
use std::path::Path;

use stela_common::fs::{Disk, File};
use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::log::{self, Kind};

use crate::store::entry::{Content, Entry};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// The longest record, bytes, and more: a request has a limit (`limits::REQUEST`).
const LONGEST: usize = 32 << 20;

/// The name of a file in `lost+found`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name {
    /// The partition.
    pub key: PartitionKey,
    /// In which the replica was when it cut the tail; or of the last entry.
    pub epoch: Epoch,
    /// The first entry's offset.
    pub first: Offset,
    /// The last entry's offset.
    pub last: Offset,
    /// How many of that name there were before.
    pub again: u32,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{}-{}", self.key, self.epoch, self.first, self.last)?;
        if self.again > 0 { write!(f, ".{}", self.again) } else { Ok(()) }
    }
}

impl Name {
    /// The name that a text is; `None` if it is none of ours. It then holds nothing but digits and what stands between.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, again) = match text.split_once('.') {
            Some((rest, again)) => (rest, again.parse().ok()?),
            None => (text, 0),
        };
        let mut parts = rest.split('_');
        let mut number = || parts.next()?.parse::<u32>().ok();
        let key = PartitionKey::new(number()?, number()?);
        let epoch = Epoch(parts.next()?.parse().ok()?);
        let (first, last) = parts.next()?.split_once('-')?;
        let (first, last) = (Offset(first.parse().ok()?), Offset(last.parse().ok()?));
        let name = Self { key, epoch, first, last, again };
        // One way to write it: no signs, no zeros in front, nothing behind.
        (name.to_string() == text).then_some(name)
    }
}

/// What was found behind a place in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// There is more, from this place on.
    More(u64),
    /// That was all.
    Whole,
    /// What follows cannot be read: why.
    Damaged(String),
}

/// Why a record is not shown.
enum Fault {
    /// It is damaged, or goes on behind what was read.
    Unread(String),
    /// It is whole, and not what should be there.
    Foreign(String),
}

/// A file of `lost+found`.
pub struct Tail {
    name: Name,
    file: File,
    len: u64,
}

/// An entry's offset and epoch, and what it is.
pub type Found<'a> = (Offset, Epoch, Entry<'a>);

impl Tail {
    /// Opens the file of that name in `dir`.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn open(disk: &Disk, dir: &Path, name: Name) -> io::Result<Self> {
        let file = disk.open(&dir.join(name.to_string()))?;
        let len = file.len()?;
        Ok(Self { name, file, len })
    }

    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// When it was set aside, ms since 1970; 0 where that is not known.
    #[must_use]
    pub fn saved(&self) -> u64 {
        self.file.modified_ms().unwrap_or(0)
    }

    /// Shows the entries from the place `at` on, about a MiB of them.
    pub fn read(&self, at: u64, mut show: impl FnMut(Found<'_>)) -> Ended {
        let mut last = None;
        let mut found = self.piece(at, PIECE, &mut last, &mut show);
        if let Ok((0, Some(Fault::Unread(_)))) = found {
            // The first record is longer, or cannot be read.
            found = self.piece(at, LONGEST, &mut last, &mut show);
        }
        let (done, fault) = match found {
            Ok(found) => found,
            Err(e) => return Ended::Damaged(e.to_string()),
        };
        let end = at + done as u64;
        match fault {
            // It may only be cut off by the end of the piece.
            Some(Fault::Unread(_)) if done > 0 => Ended::More(end),
            Some(Fault::Unread(why) | Fault::Foreign(why)) => {
                Ended::Damaged(format!("at byte {end}: {why}"))
            }
            None if end < self.len => Ended::More(end),
            None if last.is_some_and(|offset| offset != self.name.last) || self.len == 0 => {
                Ended::Damaged(format!("it ends before entry {}", self.name.last))
            }
            None => Ended::Whole,
        }
    }

    /// The whole records of a piece, up to the first that cannot be taken: their bytes, and what is wrong with that one.
    fn piece(
        &self,
        at: u64,
        most: usize,
        last: &mut Option<Offset>,
        show: &mut impl FnMut(Found<'_>),
    ) -> io::Result<(usize, Option<Fault>)> {
        let left = self.len.saturating_sub(at);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(most)];
        self.file.read_at(&mut bytes, at)?;
        let mut done = 0;
        for record in log::parse(&bytes) {
            let record = match record {
                Ok(record) => record,
                Err(e) => return Ok((done, Some(Fault::Unread(e.to_string())))),
            };
            if record.kind != Kind::Entry || record.partition != self.name.key {
                let why = "a record that does not belong there".to_owned();
                return Ok((done, Some(Fault::Foreign(why))));
            }
            match Entry::parse(record.body) {
                Ok(entry) => show((record.offset, record.epoch, entry)),
                Err(e) => return Ok((done, Some(Fault::Foreign(e.to_string())))),
            }
            *last = Some(record.offset);
            done += record.raw.len();
            if done >= PIECE {
                break;
            }
        }
        Ok((done, None))
    }

    /// How many entries, rows, and keys to delete can be read, and how that ended.
    #[must_use]
    pub fn count(&self) -> (Count, Ended) {
        let mut count = Count::default();
        let mut at = 0;
        loop {
            let ended = self.read(at, |(_, _, entry)| {
                count.entries += 1;
                match entry.content() {
                    Content::Rows(rows) => count.rows += rows.count() as u64,
                    Content::Deletes(deletes) => count.deletes += deletes.count() as u64,
                }
            });
            match ended {
                Ended::More(next) => at = next,
                ended => return (count, ended),
            }
        }
    }
}

/// What is in a file.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    /// Entries.
    pub entries: u64,
    /// Rows in them.
    pub rows: u64,
    /// Keys in them whose rows were to be deleted.
    pub deletes: u64,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use stela_common::table::Ttl;
    use stela_common::{fs, log};

    use super::*;
    use crate::store::entry::Writer;

    const NAME: Name = Name {
        key: PartitionKey {
            tid: stela_common::ids::TableId(7),
            pid: stela_common::ids::PartitionId(1),
        },
        epoch: Epoch(3),
        first: Offset(11),
        last: Offset(14),
        again: 0,
    };

    fn entry(seq: u64, value: &[u8]) -> bytes::Bytes {
        let mut writer = Writer::put(5, seq, value.len());
        writer.row(1, &Ttl::default());
        writer.dimension(0, seq, b"k");
        writer.value(value);
        writer.finish()
    }

    /// The records of these entries of a partition, from offset 11 on.
    fn records(pid: u32, bodies: &[bytes::Bytes]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let options = log::Options { segment_bytes: 32 << 20, spares: 0, mark_idle: false };
        let (log, _) =
            log::Log::open(Disk::real(), dir.path(), options, |e| panic!("{e}")).unwrap();
        let mut raw = Vec::new();
        for (offset, body) in (11..).zip(bodies) {
            let record = log::NewRecord {
                kind: Kind::Entry,
                partition: PartitionKey::new(7, pid),
                offset: Offset(offset),
                epoch: Epoch(2),
                commit_lag: 0,
                body: &[body],
            };
            let at = log.append(&[record]).unwrap().positions[0];
            raw.extend_from_slice(log.read(at).unwrap().raw());
        }
        raw
    }

    struct Saved(tempfile::TempDir);

    fn save(raw: &[u8]) -> Saved {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME.to_string()), raw).unwrap();
        Saved(dir)
    }

    impl Saved {
        /// Offsets and lengths of the values, and how it ended, page after page.
        fn read(&self) -> (Vec<(u64, usize)>, usize, Ended) {
            let tail = Tail::open(&Disk::real(), self.0.path(), NAME).unwrap();
            let (mut found, mut pages, mut at) = (Vec::new(), 0, 0);
            loop {
                pages += 1;
                let ended = tail.read(at, |(offset, _, entry)| {
                    let Content::Rows(mut rows) = entry.content() else { panic!("not a put") };
                    found.push((offset.0, rows.next().unwrap().value.len()));
                });
                match ended {
                    Ended::More(next) if next > at => at = next,
                    Ended::More(next) => panic!("{next} is not behind {at}"),
                    ended => return (found, pages, ended),
                }
            }
        }
    }

    #[test]
    fn only_what_stela_writes_is_a_name() {
        assert_eq!(Name::parse("7_1_3_11-14"), Some(NAME));
        assert_eq!(Name::parse("7_1_3_11-14.2"), Some(Name { again: 2, ..NAME }));
        for text in [
            "",
            "..",
            "/etc/passwd",
            "../log/7_1_3_11-14",
            "7_1_3_11-14/../x",
            "7_1_3_11-14.tmp",
            "7_1_3_11-14.0",
            "07_1_3_11-14",
            "+7_1_3_11-14",
            "7_1_3_11-14_2",
            "7_1_3_11",
            "7_1_3",
            "7_4294967296_3_11-14",
            "7_1_3_11-14\0",
        ] {
            assert_eq!(Name::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn pages_are_short_however_long_an_entry_is() {
        let bodies = [100, 9 << 20, 600 << 10, 600 << 10].map(|len| entry(1, &vec![7; len]));
        let (found, pages, ended) = save(&records(1, &bodies)).read();
        assert_eq!(found, [(11, 100), (12, 9 << 20), (13, 600 << 10), (14, 600 << 10)]);
        assert_eq!((pages, ended), (4, Ended::Whole));
    }

    #[test]
    fn what_can_be_read_is_shown_and_the_damage_said() {
        let bodies: Vec<_> = (1..=4).map(|seq| entry(seq, b"value")).collect();
        let raw = records(1, &bodies);
        let one = raw.len() / 4;
        let (found, _, ended) = save(&raw).read();
        assert_eq!((found.len(), ended), (4, Ended::Whole));

        let rotten = |at: usize| {
            let mut raw = raw.clone();
            raw[at] ^= 1;
            save(&raw).read()
        };
        let offsets = |found: Vec<(u64, usize)>| found.into_iter().map(|f| f.0).collect::<Vec<_>>();
        let (found, _, ended) = rotten(2 * one + 50);
        assert_eq!(offsets(found), [11, 12]);
        assert!(matches!(&ended, Ended::Damaged(why) if why.contains("checksum")), "{ended:?}");
        // A length that leads beyond the end.
        let (found, _, ended) = rotten(3);
        assert!(found.is_empty() && matches!(ended, Ended::Damaged(_)), "{ended:?}");

        // Cut at a record's end, and within one.
        let (found, _, ended) = save(&raw[..3 * one]).read();
        assert_eq!(offsets(found), [11, 12, 13]);
        assert_eq!(ended, Ended::Damaged("it ends before entry 14".into()));
        let (found, _, ended) = save(&raw[..3 * one + 9]).read();
        assert!(found.len() == 3 && matches!(ended, Ended::Damaged(_)), "{ended:?}");
        let (found, _, ended) = save(&[]).read();
        assert!(found.is_empty() && matches!(ended, Ended::Damaged(_)), "{ended:?}");

        // Whole records of another partition, and such as are no entry.
        for foreign in [records(2, &bodies), records(1, &[bytes::Bytes::from_static(b"?")])] {
            let (found, _, ended) = save(&foreign).read();
            assert!(found.is_empty() && matches!(ended, Ended::Damaged(_)), "{ended:?}");
        }
        // What a damaged copy had may have holes, and entries that others have replaced.
        let moved = [&raw[..2 * one], &raw[..one], &raw[3 * one..]].concat();
        assert_eq!(save(&moved).read().2, Ended::Whole);
    }

    #[test]
    fn tails_of_the_same_name_are_kept_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let files = crate::disk::Files::new(Disk::real(), dir.path().to_owned());
        assert_eq!(files.tails().unwrap(), []);
        let paths: BTreeSet<_> = (0..3u8)
            .map(|n| files.save_tail(NAME.key, NAME.epoch, NAME.first, NAME.last, &[n]).unwrap())
            .collect();
        assert_eq!(paths.len(), 3);
        fs::write(dir.path().join("lost+found/notes.txt"), "of a person").unwrap();
        let again = |again| Name { again, ..NAME };
        assert_eq!(files.tails().unwrap(), [again(0), again(1), again(2)]);
    }

    proptest! {
        #[test]
        fn no_bytes_and_no_place_panic(raw in prop::collection::vec(any::<u8>(), 0..200), at in 0u64..300) {
            let saved = save(&raw);
            let tail = Tail::open(&Disk::real(), saved.0.path(), NAME).unwrap();
            let mut shown = 0;
            tail.read(at, |_| shown += 1);
            prop_assert_eq!(shown, 0);
            let (count, ended) = tail.count();
            prop_assert_eq!(count, Count::default());
            prop_assert!(matches!(ended, Ended::Damaged(_)));
        }

        #[test]
        fn no_text_is_a_name_beside_its_own(text in "[0-9_.+/-]{0,20}") {
            if let Some(name) = Name::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
