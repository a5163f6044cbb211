//! The names in a log's directory: `<number>.seg`, and `<n>.spare` for segments to come.
//!
//! Anything else is somebody else's and is left alone.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::fs;

/// Numbers above are nobody's: a position must fit into 64 bits.
const HIGHEST: u64 = u32::MAX as u64;
const SEGMENT: &str = "seg";
const SPARE: &str = "spare";

pub(super) fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016}.{SEGMENT}"))
}

pub(super) fn spare(dir: &Path, n: u64) -> PathBuf {
    dir.join(format!("{n:016}.{SPARE}"))
}

/// What lies in a log's directory.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) segments: BTreeMap<u64, PathBuf>,
    pub(super) spares: BTreeMap<u64, PathBuf>,
}

pub(super) fn list(dir: &Path) -> io::Result<Files> {
    let mut files = Files::default();
    for path in fs::read_dir(dir)? {
        let number =
            path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| stem.len() == 16);
        let number =
            number.and_then(|stem| stem.parse::<u64>().ok()).filter(|number| *number <= HIGHEST);
        let Some(number) = number else { continue };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(SEGMENT) => files.segments.insert(number, path),
            Some(SPARE) => files.spares.insert(number, path),
            _ => None,
        };
    }
    Ok(files)
}
