//! The memory map of a file: the only `unsafe` code of Stela.
//!
//! **Invariants**: read-only; as long as the file was when it was mapped; the file is never shortened while mapped
//! (it would be a SIGBUS); a slice is only taken of bytes that no longer change.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;

use crate::fs::File;

/// A read-only map of a whole file, e.g. of a segment or a snapshot.
pub struct Map {
    /// `None`: a file without bytes cannot be mapped.
    map: Option<memmap2::Mmap>,
}

impl Map {
    /// Maps the file as long as it is now. Its owner neither shortens it while a map lives, nor changes bytes of
    /// which somebody may hold a slice: the log writes only behind its end, and what it writes again at recovery
    /// are the same bytes; snapshots are whole before they are mapped.
    pub fn new(file: &File) -> io::Result<Self> {
        if file.is_empty()? {
            return Ok(Self { map: None });
        }
        // SAFETY: the file is ours (directory lock), and nobody in this process shortens a mapped file or changes
        // bytes of which a slice was handed out (see above; slices are taken below the published end only).
        let map = unsafe { memmap2::Mmap::map(file.inner())? };
        Ok(Self { map: Some(map) })
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.as_ref().map_or(0, |map| map.len())
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// These bytes, if the file has them.
    #[inline]
    #[must_use]
    pub fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        match &self.map {
            Some(map) => map.get(range),
            None => range.is_empty().then_some(&[]),
        }
    }

    /// Has the processor fetch the bytes at that place and some behind, while it does something else. Only a hint.
    #[inline]
    pub fn fetch(&self, at: usize) {
        #[cfg(target_arch = "x86_64")]
        for line in [0, 64] {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            if let Some(byte) = self.map.as_ref().and_then(|map| map.get(at + line)) {
                // SAFETY: it reads nothing that the program sees, and the address is within the map.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) };
            }
        }
    }

    /// All bytes, for a reader that goes through them before anybody writes to the file again.
    #[must_use]
    pub fn all(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Says that the map is now read from front to back, or (`false`) here and there. Only a hint.
    pub fn sequential(&self, sequential: bool) {
        let advice = if sequential { memmap2::Advice::Sequential } else { memmap2::Advice::Normal };
        if let Some(Err(error)) = self.map.as_ref().map(|map| map.advise(advice)) {
            tracing::debug!(%error, "madvise");
        }
    }
}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Map({} bytes)", self.len())
    }
}
