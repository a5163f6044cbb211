//! What an owner chooses about its log.

use super::OpenError;
use super::segment::HEADER;

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The length of a segment when the log is created; an existing log keeps its own. 64 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Segments written ahead.
    pub spares: usize,
    /// Whether an idle log marks what is synced within a second (R24). Off only in tests that count batches.
    pub mark_idle: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, spares: 1, mark_idle: true }
    }
}

impl Options {
    pub(super) const LEAST: u64 = 64 << 10;
    pub(super) const MOST: u64 = 1 << 30;

    pub(super) fn check(&self) -> Result<(), OpenError> {
        let fits = (Self::LEAST..=Self::MOST).contains(&self.segment_bytes);
        if fits && self.segment_bytes.is_multiple_of(HEADER) {
            return Ok(());
        }
        Err(OpenError::Options(format!(
            "a segment of {} bytes; choose a multiple of {HEADER} from {} to {}",
            self.segment_bytes,
            Self::LEAST,
            Self::MOST
        )))
    }
}
