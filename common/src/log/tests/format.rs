//! Files of newer versions and of other logs: refused, nothing changed.

use super::*;
use crate::log::batch::{BATCH_HEADER, Seed};
use crate::log::segment::{FORMAT, FoundHeader, Header};

#[track_caller]
fn refused(place: &Place) -> OpenError {
    let before = place.contents();
    let error = place.try_open().map(drop).unwrap_err();
    assert_eq!(place.contents(), before, "nothing may change");
    error
}

/// Makes the header one of a newer format, whole.
fn newer(bytes: &mut [u8]) {
    for at in [0, 2048] {
        let one = &mut bytes[at..at + 64];
        one[8..12].copy_from_slice(&(FORMAT + 1).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&one[..12]), &one[16..]);
        one[12..16].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Several segments, stopped.
fn stopped() -> Place {
    let place = Place::new();
    let (log, _) = place.open();
    for offset in 1..=4 {
        put(&log, 1, offset, &[0; 30_000]);
    }
    until_synced(&log);
    drop(log);
    place
}

#[test]
fn a_newer_segment_is_refused() {
    for number in [1, 2] {
        let place = stopped();
        edit(&place.segment(number), |bytes| newer(bytes));
        let error = refused(&place);
        assert!(
            matches!(error, OpenError::Newer { version, .. } if version == FORMAT + 1),
            "{error}"
        );
    }
}

#[test]
fn a_newer_batch_or_record_is_refused_even_in_the_tail() {
    let id = |place: &Place| match Header::decode(&fs::read(place.segment(1)).unwrap()) {
        FoundHeader::Good(header) => header.id,
        other => panic!("{other:?}"),
    };
    let place = stopped();
    let (log, _) = place.open();
    let at = put(&log, 1, 5, b"last");
    drop(log);
    let (batch, number) = (Position(at.0 - BATCH_HEADER as u64), at.0 / SEGMENT);
    let seed = Seed::new(id(&place), number);

    let copy = place.copied();
    copy.edit(batch, |bytes| {
        bytes[20] = 2;
        let mut whole = bytes[..BATCH_HEADER].to_vec();
        whole.truncate(BATCH_HEADER);
        // Sealed anew by hand: the seed is the checksum of the identity and the number.
        let crc = crc32c::crc32c_append(
            crc32c::crc32c_append(crc32c::crc32c(&id(&place).0), &number.to_le_bytes()),
            &whole[8..],
        );
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    });
    let error = refused(&copy);
    assert!(matches!(error, OpenError::Newer { version: 2, .. }), "{error}");

    let copy = place.copied();
    copy.edit(batch, |bytes| {
        let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        let record = &mut bytes[BATCH_HEADER..len];
        record[8] = 99;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[8..]);
        record[4..8].copy_from_slice(&crc.to_le_bytes());
        let records = crate::log::batch::add(0, crc);
        let mut whole = bytes[..len].to_vec();
        crate::log::batch::seal(&mut whole, 1, records, seed, batch, Position(0));
        bytes[..len].copy_from_slice(&whole);
    });
    let error = refused(&copy);
    assert!(matches!(error, OpenError::Newer { version: 99, .. }), "{error}");
}

#[test]
fn a_foreign_segment_is_refused() {
    let (ours, other) = (stopped(), stopped());
    fs::write(ours.segment(9), fs::read(other.segment(2)).unwrap()).unwrap();
    let error = refused(&ours);
    assert!(
        matches!(&error, OpenError::Foreign { path, .. } if *path == ours.segment(9)),
        "{error}"
    );
}

#[test]
fn a_directory_without_a_readable_segment_is_refused() {
    let place = stopped();
    for number in 1..=4 {
        edit(&place.segment(number), |bytes| bytes[..].fill(0xA5));
        if number < 4 && place.segment(number + 1).exists() {
            continue;
        }
        break;
    }
    let error = refused(&place);
    assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
}

#[test]
fn one_bad_copy_of_a_header_is_no_damage() {
    let place = stopped();
    edit(&place.segment(1), |bytes| bytes[..512].fill(0));
    edit(&place.segment(2), |bytes| bytes[2048..2560].fill(0));
    let (log, recovery) = place.open();
    assert_eq!(recovery.damage, []);
    assert_eq!(all(&log).len(), 4);
}

#[test]
fn senseless_options_are_refused() {
    let mut place = Place::new();
    for bytes in [0, 1000, (64 << 10) + 1, 2 << 30] {
        place.options.segment_bytes = bytes;
        assert!(matches!(place.try_open(), Err(OpenError::Options(_))));
    }
    assert!(place.contents().is_empty());
}

#[test]
fn an_existing_log_keeps_its_segment_length() {
    let mut place = stopped();
    place.options.segment_bytes = 1 << 20;
    let (log, _) = place.open();
    put(&log, 1, 5, &[0; 30_000]);
    assert_eq!(all(&log).len(), 5);
    assert_eq!(log.size().bytes % SEGMENT, 0);
    assert!(log.size().bytes < 1 << 20);
}

#[test]
fn other_files_are_left_alone() {
    let place = stopped();
    for name in ["README", "1.seg", "9999999999999999.seg", "0000000000000001.seg.bak"] {
        fs::write(place.dir.path().join(name), b"mine").unwrap();
    }
    let (log, recovery) = place.open();
    assert_eq!((all(&log).len(), recovery.damage.len()), (4, 0));
    assert_eq!(fs::read(place.dir.path().join("README")).unwrap(), b"mine");
}
