//! Named places between two steps, at which a test may end the process: for tests only. Nothing that is shipped installs
//! anything, and then passing a place costs one load.

use std::sync::OnceLock;

type Visit = Box<dyn Fn(&str) + Send + Sync>;

static VISIT: OnceLock<Visit> = OnceLock::new();

/// From now on this is called with the name of every place that is passed. Only the first one counts.
pub fn install(visit: impl Fn(&str) + Send + Sync + 'static) {
    let _ = VISIT.set(Box::new(visit));
}

/// Passes a place; its name is made only if somebody asks for it.
pub fn pass(name: impl FnOnce() -> Option<String>) {
    if let Some(visit) = VISIT.get()
        && let Some(name) = name()
    {
        visit(&name);
    }
}
