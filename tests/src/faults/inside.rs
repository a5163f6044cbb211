//! The server's side: it looks for what is wrong with it before it begins, and whenever that changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stela_common::clock::{self, Skew};
use stela_common::fs;

use super::disk::FaultyDisk;
use super::plan::{Clock, Ordered, seen_file, undo_dir};
use super::points;

/// The environment's name of the file that says what is wrong. Nothing but this binary's own servers reads it.
pub const ENVIRONMENT: &str = "STELA_TESTS_FAULTS";
/// How often the server looks.
const LOOK: Duration = Duration::from_millis(5);
/// How often wall time jumps.
const STROBE: Duration = Duration::from_millis(100);

/// If a drill has named a file, holds to it from now on: called before anything of the server runs.
///
/// # Errors
/// The file is there and says nothing that makes sense.
pub fn begin() -> Result<()> {
    points::begin();
    let Some(control) = std::env::var_os(ENVIRONMENT).map(PathBuf::from) else { return Ok(()) };
    let undo = undo_dir(&control);
    let disk = Arc::new(FaultyDisk::new(fs::exists(&undo).then_some(undo.as_path()))?);
    ensure!(fs::install_hook(disk.clone()), "this process has a disk hook already");
    let mut watch = Watch { control, disk, held: Ordered::default() };
    watch.look()?;
    std::thread::Builder::new().name("faults".into()).spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            if let Err(e) = watch.look() {
                eprintln!("cannot see what is to be wrong: {e:#}");
            }
        }
    })?;
    Ok(())
}

struct Watch {
    control: PathBuf,
    disk: Arc<FaultyDisk>,
    held: Ordered,
}

impl Watch {
    fn look(&mut self) -> Result<()> {
        let Some(ordered) = read(&self.control)? else { return Ok(()) };
        if ordered.number == self.held.number {
            return Ok(());
        }
        let faults = ordered.faults;
        if faults.clock != self.held.faults.clock {
            let Clock { offset_ms, rate_ppm, strobe_ms } = faults.clock;
            let strobe_period = if strobe_ms == 0 { Duration::ZERO } else { STROBE };
            clock::skew(Skew { offset_ms, rate_ppm, strobe_ms, strobe_period });
        }
        self.disk.set(faults.disk);
        self.held = ordered;
        fs::write(seen_file(&self.control), ordered.number.to_string())?;
        Ok(())
    }
}

fn read(control: &Path) -> Result<Option<Ordered>> {
    if !fs::exists(control) {
        return Ok(None);
    }
    let context = || format!("cannot read {}", control.display());
    let text = fs::read_to_string(control).with_context(context)?;
    Ok(Some(serde_json::from_str(&text).with_context(context)?))
}
