//! Ending a server between two steps: a drill names a directory in the environment. Each place that is passed is noted
//! there once; a place for which a file of its name was put there ends the first process that comes to it, as a kill -9
//! would.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::process::{Signal, getpid, kill_process};
use stela_common::{fs, point};

/// The directory.
pub const ENVIRONMENT: &str = "STELA_DRILL_POINTS";

/// Watches the places of this process, if it is asked to.
pub(super) fn begin() {
    let Ok(dir) = std::env::var(ENVIRONMENT) else { return };
    let dir = PathBuf::from(dir);
    let passed = Mutex::new(BTreeSet::new());
    point::install(move |name| {
        if passed.lock().insert(name.to_owned()) {
            // Noted for whoever wants to know what there is; the drill needs no more than one note of each.
            let _ = fs::append_line(dir.join("passed"), name);
        }
        // Only one of all processes finds the file, so only one ends.
        if fs::remove_file(dir.join(name)).is_ok() {
            let _ = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    });
}

/// The places that were passed so far.
pub fn passed(dir: &Path) -> BTreeSet<String> {
    let noted = fs::read_to_string(dir.join("passed")).unwrap_or_default();
    noted.lines().map(str::to_owned).collect()
}

/// The next process that comes to that place ends there.
///
/// # Errors
/// The file cannot be written.
pub fn arm(dir: &Path, name: &str) -> std::io::Result<()> {
    fs::write(dir.join(name), "")
}

/// Has nobody come there yet?
pub fn is_armed(dir: &Path, name: &str) -> bool {
    fs::exists(dir.join(name))
}
