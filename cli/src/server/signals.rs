//! SIGTERM and SIGINT.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::flags::Role;

/// The status of a process that was told twice to end.
const IMPATIENT: i32 = 130;

/// From now on, a first signal cancels `stop`, a second one ends the process.
pub(super) fn watch(role: Role, stop: CancellationToken) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Installed before this returns: a signal that comes during the start is not missed.
    let (mut term, mut int) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            for told in [false, true] {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
                if told {
                    std::process::exit(IMPATIENT);
                }
                stop.cancel();
                tracing::info!(role = role.word(), "stopping");
            }
        });
    })?;
    Ok(())
}
