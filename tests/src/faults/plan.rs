//! What is wrong with a server, and how it is told so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use stela_common::fs;

/// All that is wrong with a server. Nothing, by default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Faults {
    /// Its clock.
    pub clock: Clock,
    /// Its disk.
    pub disk: Disk,
}

/// How wrong the clock is; see [`stela_common::clock::Skew`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Clock {
    /// Wall time is ahead by this, ms.
    pub offset_ms: i64,
    /// All clocks go faster by this, in millionths.
    pub rate_ppm: i64,
    /// Wall time jumps to and fro by this, ms.
    pub strobe_ms: i64,
}

/// How the disk fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// Every sync fails.
    pub sync_fails: bool,
    /// Nothing can be written.
    pub full: bool,
    /// A sync takes so much longer, ms, or until this is lifted.
    pub stall_ms: u64,
}

/// What stands in the file that a server watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ordered {
    /// Each order has a number of its own; the server writes it down when it holds.
    pub number: u64,
    /// What is wrong from now on.
    pub faults: Faults,
}

/// Where the server writes down which order holds.
pub(super) fn seen_file(control: &Path) -> PathBuf {
    control.with_extension("seen")
}

/// Where the server notes what was not synced; it does if this directory exists when it starts.
pub fn undo_dir(control: &Path) -> PathBuf {
    control.with_extension("undo")
}

/// Writes an order into the file that a server watches; if it runs, waits until the order holds.
///
/// # Errors
/// The file cannot be written, or the server does not look.
pub async fn order(control: &Path, ordered: Ordered, runs: bool) -> Result<()> {
    let aside = control.with_extension("next");
    fs::write(&aside, serde_json::to_vec(&ordered)?)?;
    fs::rename(&aside, control).context("cannot order a fault")?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let number = ordered.number.to_string();
    while runs && fs::read_to_string(seen_file(control)).unwrap_or_default() != number {
        ensure!(tokio::time::Instant::now() < deadline, "the server does not see its faults");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
