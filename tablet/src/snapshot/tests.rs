//! The format: what is written comes back, and nothing else is taken for a snapshot.

use proptest::prelude::*;
use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::log::Position;

use super::keys::Section;
use super::write::Writer;
use super::*;
use crate::sealed::{CHUNK, FOOT, foot_crc};
use crate::store::dedup::Dedup;
use crate::store::list::Point;
use crate::store::values::{IN_SNAPSHOT, checked};

type Index = Vec<(Vec<u8>, Vec<(u64, usize)>)>;

/// What a snapshot is made of: values, and indexes of rows that name them.
#[derive(Clone, Debug)]
struct Made {
    values: Vec<Vec<u8>>,
    indexes: Vec<Index>,
}

fn made() -> impl Strategy<Value = Made> {
    let values = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..60);
    let rows = prop::collection::vec((any::<u64>(), any::<prop::sample::Index>()), 1..6);
    let keys = prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..40), rows, 0..40);
    (values, prop::collection::vec(keys, 1..4)).prop_map(|(values, indexes)| {
        let rows = |rows: Vec<(u64, prop::sample::Index)>| {
            rows.into_iter().map(|(ts, at)| (ts, at.index(values.len()))).collect()
        };
        let index = |keys: std::collections::BTreeMap<_, _>| {
            keys.into_iter().map(|(key, r)| (key, rows(r))).collect()
        };
        let indexes = indexes.into_iter().map(index).collect();
        Made { values, indexes }
    })
}

fn header() -> Header {
    let mut dedup = Dedup::default();
    dedup.appended(Offset(9), 5, 1);
    dedup.committed(Offset(9));
    Header {
        id: u64::MAX - 1,
        key: PartitionKey::new(7, 1),
        created_index: 3,
        offset: Offset(9),
        last_epoch: Epoch(4),
        epoch: Epoch(6),
        epochs: [(Epoch(2), Offset(1)), (Epoch(4), Offset(8))].into_iter().collect(),
        dedup: dedup.remembered(),
        replay_from: Position(1 << 40),
        uncleans: 1,
        damaged: None,
        values_end: 0,
        indexes: vec![],
    }
}

fn write(made: &Made, path: &Path) -> Vec<u64> {
    let mut writer = Writer::create(&Disk::real(), path, crate::config::Format::Summed).unwrap();
    let places: Vec<u64> = made.values.iter().map(|v| writer.value(v).unwrap()).collect();
    for index in &made.indexes {
        writer.index();
        for (key, rows) in index {
            let rows = rows.iter().map(|(ts, at)| Point { ts: *ts, place: places[*at] });
            writer.key(key, rows.len(), rows).unwrap();
        }
    }
    writer.finish(header()).unwrap();
    places
}

fn path() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("1_9.snap");
    (dir, path)
}

/// What is wrong with these bytes as a file.
fn refused(path: &Path, bytes: &[u8]) -> String {
    stela_common::fs::write(path, bytes).unwrap();
    let refused = Snapshot::open(&Disk::real(), path).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    let text = refused.to_string();
    assert!(text.starts_with(&format!("{} is not a whole snapshot: ", path.display())), "{text}");
    text
}

/// The value at a place.
fn value(snapshot: &Snapshot, place: u64) -> Option<&[u8]> {
    checked(snapshot.from(place), place | IN_SNAPSHOT).ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_written_comes_back(made in made()) {
        let (_dir, path) = path();
        let places = write(&made, &path);
        let snapshot = Snapshot::open(&Disk::real(), &path).unwrap();
        let found = Header { values_end: 0, indexes: vec![], ..snapshot.header().clone() };
        prop_assert_eq!(found, header());
        for (value, place) in made.values.iter().zip(&places) {
            prop_assert_eq!(self::value(&snapshot, *place), Some(&value[..]));
        }
        for (at, index) in made.indexes.iter().enumerate() {
            let keys: Index = snapshot.keys(at).map(|key| {
                let (key, rows) = key.unwrap();
                let at = |place| places.iter().position(|p| *p == place).unwrap();
                (key.to_vec(), rows.iter().map(|p| (p.ts, at(p.place))).collect())
            }).collect();
            prop_assert_eq!(&keys, index);
        }
        prop_assert_eq!(snapshot.keys(made.indexes.len()).count(), 0);
        snapshot.verify().unwrap();
    }

    /// Wherever a bit is flipped, a page zeroed, or the file cut.
    #[test]
    fn what_is_damaged_is_refused_with_its_place(
        made in made(), at in any::<prop::sample::Index>(), bit in 0u8..8, more in prop::collection::vec(any::<u8>(), 1..50),
    ) {
        let (_dir, path) = path();
        write(&made, &path);
        let good = stela_common::fs::read(&path).unwrap();
        let at = at.index(good.len());
        let mut flipped = good.clone();
        flipped[at] ^= 1 << bit;
        let text = refused(&path, &flipped);
        prop_assert!(text.contains("byte") || text.contains("format"), "{}", text);
        refused(&path, &good[..at]);
        let mut zeroed = good.clone();
        let page = at / 4096 * 4096;
        let end = (page + 4096).min(good.len());
        zeroed[page..end].fill(0);
        if zeroed != good {
            refused(&path, &zeroed);
        }
        refused(&path, &[&good[..], &more].concat());
        refused(&path, &more);
        // A hole in the middle, and a piece of it twice.
        refused(&path, &[&good[..at], &good[(at + 1).min(good.len())..]].concat());
        refused(&path, &[&good[..at], &good[at / 2..]].concat());
    }

    /// Bytes that nobody has written, under checksums that fit, are no reason to panic.
    #[test]
    fn sealed_nonsense_does_not_panic(
        body in prop::collection::vec(any::<u8>(), 0..600), values_end in 0u64..700, sections in prop::collection::vec((0u64..700, 0u64..700, any::<u8>(), any::<u8>()), 0..4),
    ) {
        let (_dir, path) = path();
        let indexes = sections.iter().map(|(from, to, keys, rows)| Section {
            from: *from, to: *to, keys: u64::from(*keys), rows: u64::from(*rows),
        }).collect();
        let header = Header { values_end, indexes, ..header() };
        let sealed = seal(&body, &header);
        stela_common::fs::write(&path, &sealed).unwrap();
        if let Ok(snapshot) = Snapshot::open(&Disk::real(), &path) {
            for at in 0..4 {
                for key in snapshot.keys(at) {
                    let _ = key.map(|(_, rows)| rows.iter().filter_map(|p| value(&snapshot, p.place)).count());
                }
            }
            for place in 0..sealed.len() as u64 + 20 {
                let _ = value(&snapshot, place);
            }
            let _ = value(&snapshot, u64::MAX);
            let table = crate::store::tests::plain();
            let _ = crate::store::Store::load(std::sync::Arc::new(table), std::sync::Arc::new(snapshot));
        }
    }
}

/// A file of which every checksum fits.
fn seal(body: &[u8], header: &Header) -> Vec<u8> {
    seal_as(FORMAT, body, header)
}

fn seal_as(format: u32, body: &[u8], header: &Header) -> Vec<u8> {
    let mut file = [&MAGIC[..], &format.to_le_bytes(), &[0; 4], body].concat();
    let header_at = file.len() as u64;
    file.extend(serde_json::to_vec(header).unwrap());
    let sums_at = file.len() as u64;
    let sums: Vec<u8> = file.chunks(CHUNK).flat_map(|c| crc32c::crc32c(c).to_le_bytes()).collect();
    let mut foot = [0; FOOT];
    foot[..8].copy_from_slice(&MAGIC);
    foot[8..12].copy_from_slice(&format.to_le_bytes());
    foot[16..24].copy_from_slice(&header_at.to_le_bytes());
    foot[24..32].copy_from_slice(&sums_at.to_le_bytes());
    foot[32..36].copy_from_slice(&crc32c::crc32c(&sums).to_le_bytes());
    let crc = foot_crc(&foot);
    foot[12..16].copy_from_slice(&crc.to_le_bytes());
    [file, sums, foot.to_vec()].concat()
}

/// Of a sealed header with one thing changed.
fn refused_header(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let (_dir, path) = path();
    let good = Header { values_end: HEAD as u64, ..header() };
    let mut json = serde_json::to_value(&good).unwrap();
    change(&mut json);
    let bytes = seal(&[], &good);
    let at = bytes.len() - FOOT - 4 - serde_json::to_vec(&good).unwrap().len();
    let mut file = bytes[..at].to_vec();
    file.extend(serde_json::to_vec(&json).unwrap());
    let sums_at = file.len() as u64;
    let sum = crc32c::crc32c(&file).to_le_bytes();
    let mut foot: [u8; FOOT] = *bytes.last_chunk().unwrap();
    foot[24..32].copy_from_slice(&sums_at.to_le_bytes());
    foot[32..36].copy_from_slice(&crc32c::crc32c(&sum).to_le_bytes());
    let crc = foot_crc(&foot);
    foot[12..16].copy_from_slice(&crc.to_le_bytes());
    refused(&path, &[file, sum.to_vec(), foot.to_vec()].concat())
}

#[test]
fn a_header_that_contradicts_itself_is_refused() {
    for (field, value) in [
        ("offset", serde_json::json!(8)),
        ("offset", serde_json::json!(0)),
        ("last_epoch", serde_json::json!(2)),
        ("epoch", serde_json::json!(1)),
        ("epochs", serde_json::json!([[2, 1], [2, 8]])),
        ("epochs", serde_json::json!([[2, 5], [4, 5]])),
        ("epochs", serde_json::json!([[2, 1], [4, 8], [5, 20]])),
        ("values_end", serde_json::json!(3)),
        ("values_end", serde_json::json!(99)),
        ("dedup", serde_json::json!({"sessions": {}, "forgotten": 0, "committed": 7})),
        ("id", serde_json::json!("x")),
    ] {
        let text = refused_header(|json| json[field] = value.clone());
        assert!(text.contains("the header at byte 16"), "{field}: {text}");
    }
}

#[test]
fn a_newer_format_is_told_as_such() {
    let (_dir, path) = path();
    let file = seal_as(FORMAT + 1, &[], &Header { values_end: HEAD as u64, ..header() });
    let text = refused(&path, &file);
    assert!(
        text.ends_with(&format!("it has format {}, newer than {FORMAT}", FORMAT + 1)),
        "{text}"
    );
}

/// Values without checksums of their own, and keys in the order of their bytes.
#[test]
fn the_first_format_is_read() {
    use crate::store::Store;
    use crate::store::query::Range;
    let (_dir, path) = path();
    let mut body = Vec::new();
    let sized = |body: &mut Vec<u8>, bytes: &[u8]| {
        body.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        body.extend_from_slice(bytes);
    };
    let keys: Vec<String> = (0..100).map(|n| format!("k{n:03}")).collect();
    let mut places = Vec::new();
    for key in &keys {
        places.push((HEAD + body.len()) as u64);
        sized(&mut body, format!("value of {key}").as_bytes());
    }
    let values_end = (HEAD + body.len()) as u64;
    for (key, place) in keys.iter().zip(&places) {
        sized(&mut body, key.as_bytes());
        body.extend(1u32.to_le_bytes());
        body.extend(7u64.to_le_bytes());
        body.extend(place.to_le_bytes());
    }
    let to = (HEAD + body.len()) as u64;
    let indexes = vec![Section { from: values_end, to, keys: 100, rows: 100 }];
    let file = seal_as(1, &body, &Header { values_end, indexes, ..header() });
    stela_common::fs::write(&path, &file).unwrap();
    let snapshot = std::sync::Arc::new(Snapshot::open(&Disk::real(), &path).unwrap());
    let table = std::sync::Arc::new(crate::store::tests::plain());
    let store = Store::load(table, snapshot).unwrap();
    let log = crate::store::tests::an_empty_log();
    for key in &keys {
        let range = Range { bytes: 1000, ..Range::default() };
        let rows = store.scan(&log.0, 0, key.as_bytes(), range, 0).unwrap().rows;
        assert_eq!(rows, [(7, format!("value of {key}").into())]);
    }
}

#[test]
fn the_newest_that_checks_out_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let key = PartitionKey::new(7, 1);
    let of = dir.path().join(key.to_string());
    let disk = Disk::real();
    stela_common::fs::create_dir_all(&disk, &of).unwrap();
    let made = Made { values: vec![vec![1]], indexes: vec![] };
    let local = |at| files::local(&of, Position(at), Offset(9));
    for at in [7, 1 << 30, 1 << 50] {
        write(&made, &local(at));
    }
    write(&made, &files::installed(&of, 0xab));
    write(&made, &of.join("other"));
    stela_common::fs::write(files::aside(&local(u64::MAX)), b"half").unwrap();
    stela_common::fs::write(files::installed(&of, 0xcd), b"").unwrap();
    let find = || {
        let listed = files::list(dir.path()).unwrap();
        assert_eq!(listed.len(), 1);
        files::Found::open(&disk, key, &listed[&key])
    };
    let found = find();
    assert_eq!(found.local.as_ref().unwrap().path(), local(1 << 50));
    assert!(found.wrong.is_none() && found.installed[&0xab].is_ok());
    assert!(
        found.installed[&0xcd].as_ref().is_err_and(|e| e.contains("00000000000000cd.installed"))
    );
    let cut = stela_common::fs::read(local(1 << 50)).unwrap();
    stela_common::fs::write(local(1 << 50), &cut[1..]).unwrap();
    let found = find();
    assert_eq!(found.local.as_ref().unwrap().path(), local(1 << 30));
    assert!(found.wrong.unwrap().contains("is not a whole snapshot"));
    files::retire(&disk, &of, Some(&local(7))).unwrap();
    // Other names are nobody's business here.
    assert_eq!(stela_common::fs::read_dir(&of).unwrap(), [local(7), of.join("other")]);
    let other = files::Found::open(&disk, PartitionKey::new(7, 2), &[local(7)]);
    assert!(other.local.is_none() && other.wrong.unwrap().ends_with("is of partition 7_1"));
    files::remove_table(&disk, dir.path(), 7.into()).unwrap();
    assert_eq!(files::list(dir.path()).unwrap(), Default::default());
}
