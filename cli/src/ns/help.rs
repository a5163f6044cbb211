//! `help` and `man`.

use super::commands::COMMANDS;
use crate::print::{Answer, Part};

pub(super) fn help(args: &[&str]) -> Answer {
    let lines: Vec<String> = match args {
        [] => COMMANDS.iter().map(|c| format!("{} - {}", c.name, c.about)).collect(),
        [name] => {
            let Some(command) = COMMANDS.iter().find(|c| c.name == *name) else {
                return Answer::failed(format!("unsupported cmd {name}"));
            };
            let about = std::iter::once(format!("desc: {}", command.about));
            let usage = command.usage.iter().map(|u| format!("usage: {u}"));
            let examples = command.examples.iter().map(|e| format!("example: {e}"));
            about.chain(usage).chain(examples).collect()
        }
        _ => {
            const USAGE: [&str; 7] = [
                "help format error!",
                "usage: help [cmd]",
                "usage: man [cmd]",
                "ex: help",
                "ex: man",
                "ex: help create",
                "ex: man create",
            ];
            return Answer { failed: true, ..lines_of(USAGE.map(Into::into).into()) };
        }
    };
    lines_of(lines)
}

fn lines_of(lines: Vec<String>) -> Answer {
    Answer { parts: lines.into_iter().map(Part::Line).collect(), ..Answer::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(args: &[&str]) -> Vec<String> {
        let line = |part: &Part| match part {
            Part::Line(line) => line.clone(),
            _ => unreachable!(),
        };
        help(args).parts.iter().map(line).collect()
    }

    #[test]
    fn all_commands_or_one() {
        let all = text(&[]);
        assert_eq!(all.len(), COMMANDS.len());
        assert!(all.contains(&"showtable - show table info".to_owned()));
        assert!(
            all.contains(&"migrate - migrate partition form one endpoint to another".to_owned())
        );
        assert_eq!(
            text(&["confget"]),
            [
                "desc: get conf",
                "usage: confget",
                "usage: confget conf_name",
                "example: confget",
                "example: confget auto_failover"
            ]
        );
        assert_eq!(help(&["nonsense"]), Answer::failed("unsupported cmd nonsense"));
        assert_eq!((text(&["a", "b"]).len(), help(&["a", "b"]).failed), (7, true));
    }

    #[test]
    fn each_is_there_once() {
        for (at, command) in COMMANDS.iter().enumerate() {
            assert!(COMMANDS[..at].iter().all(|c| c.name != command.name), "{}", command.name);
            assert!(!command.usage.is_empty() && !command.examples.is_empty());
        }
    }
}
