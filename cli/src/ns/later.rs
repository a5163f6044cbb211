//! Commands that operators know and that this version does not have: each is refused in one clear line.

use super::commands::COMMANDS;
use crate::print::Answer;

/// What is said of a command that is not part of this version.
pub(super) fn text(name: &str) -> String {
    format!("{name} is not part of this version of stela")
}

/// Refuses a command, if it is one. Tools look for `error msg` to tell a failure.
pub(super) fn command(name: &str) -> Option<Answer> {
    // Not in `help`, in OpenMLDB neither.
    let hidden = ["connectzk", "disconnectzk"].contains(&name);
    let known = COMMANDS.iter().any(|c| c.name == name && !c.here);
    (known || hidden).then(|| Answer::failed(format!("{name} failed. error msg: {}", text(name))))
}
