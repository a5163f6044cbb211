//! The loop that both clients share: a command from `--cmd`, a prompt or a pipe, and its answer.
//!
//! Invariants:
//! * Each line is answered, and the answer is flushed, before the next one is read.
//! * A prompt is printed only to a terminal. Questions are asked only where `--interactive` is on, and their answer comes
//!   from where the lines come from.

mod complete;
mod input;
mod words;

pub(crate) use complete::Names;
pub(crate) use words::{Pairs, Words, pid_group, unsigned};

use std::io::{self, Write};
use std::process::ExitCode;

use crate::flags::Flags;
use crate::print::{self, Answer, Layout, Style};
use input::Input;

/// Asks the operator before something is destroyed.
pub(crate) trait Ask {
    /// Prints the question; was the answer `yes`?
    fn yes(&mut self, question: &str) -> bool;
}

/// A client with its commands.
pub(crate) trait Shell {
    /// What a terminal shows before each command.
    fn prompt(&self) -> String;

    /// Runs one command.
    async fn command(&mut self, words: &Words<'_>, ask: &mut dyn Ask) -> Answer;

    /// After a command at a prompt: what there is to tell.
    async fn between(&mut self) -> Option<String> {
        None
    }

    /// The words that complete what is being typed.
    fn names(&self) -> Box<dyn Names>;
}

/// How a client runs.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The command of `--cmd`, if there is one.
    pub(crate) command: Option<String>,
    /// `--interactive`.
    pub(crate) interactive: bool,
    /// The columns of the tables.
    pub(crate) layout: Layout,
    /// How answers are printed.
    pub(crate) style: Style,
    /// A failed command is a status of 1.
    strict: bool,
}

impl Options {
    /// As the flags say.
    pub(crate) fn new(flags: &Flags) -> Self {
        let (interactive, json) = (flags.truth("interactive"), flags.text("output") == "json");
        let layout = match flags.text("layout") {
            "classic" => Layout::Classic,
            "current" => Layout::Current,
            // Scripts read by position what 0.9 prints; people have the operators' document.
            _ if interactive && !json => Layout::Classic,
            _ => Layout::Current,
        };
        let longest_cell =
            usize::try_from(flags.number("max_col_display_length")).unwrap_or(usize::MAX).max(1);
        let command = Some(flags.text("cmd").to_owned()).filter(|c| !c.is_empty());
        Self {
            command,
            interactive,
            layout,
            style: Style { json, longest_cell },
            strict: flags.truth("strict_exit"),
        }
    }

    /// The status of a process in which something failed.
    pub(crate) fn status(&self, failed: bool) -> ExitCode {
        ExitCode::from(u8::from(failed && self.strict))
    }
}

/// A start that failed: its text goes to standard output, its cause to standard error.
pub(crate) fn start_failed(options: &Options, text: &str, cause: Option<&str>) -> ExitCode {
    let mut answer = Answer::failed(text);
    answer.causes.extend(cause.map(Into::into));
    // Standard output may be closed: then nobody waits for it.
    let _ = tell(&mut io::stdout(), &answer, options.style);
    options.status(true)
}

/// Runs a client until its input ends.
pub(crate) fn run(
    shell: &mut impl Shell,
    options: &Options,
    runtime: &tokio::runtime::Runtime,
) -> ExitCode {
    let mut session = Session { options, input: Input::open(shell.names()), failed: false };
    match session.run(shell, runtime) {
        Ok(()) => {}
        // Whoever read the answers has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
        Err(e) => return crate::fail(&format!("the session ends: {e}"), 1),
    }
    options.status(session.failed)
}

struct Session<'a> {
    options: &'a Options,
    input: Input,
    failed: bool,
}

impl Session<'_> {
    fn run(&mut self, shell: &mut impl Shell, runtime: &tokio::runtime::Runtime) -> io::Result<()> {
        if let Some(line) = &self.options.command {
            return self.answer(shell, runtime, line).map(drop);
        }
        while let Some(line) = self.input.line(&shell.prompt())? {
            if self.answer(shell, runtime, &line)? {
                return Ok(());
            }
            let news =
                if self.input.is_terminal() { runtime.block_on(shell.between()) } else { None };
            if let Some(news) = news {
                writeln!(io::stdout(), "{news}")?;
            }
        }
        Ok(())
    }

    /// Answers a line; `true`: the session ends.
    fn answer(
        &mut self,
        shell: &mut impl Shell,
        runtime: &tokio::runtime::Runtime,
        line: &str,
    ) -> io::Result<bool> {
        let line = line.trim_matches(|c: char| c.is_ascii_whitespace());
        // A path that was pasted by accident.
        if line.is_empty() || line.starts_with('/') {
            return Ok(false);
        }
        let words = Words::new(line);
        let mut asker = Asker { ask: self.options.interactive, input: &mut self.input };
        let answer = runtime.block_on(Box::pin(shell.command(&words, &mut asker)));
        self.failed |= answer.failed;
        tell(&mut io::stdout(), &answer, self.options.style)?;
        Ok(answer.end)
    }
}

fn tell(out: &mut dyn Write, answer: &Answer, style: Style) -> io::Result<()> {
    print::write(out, answer, style)?;
    answer.causes.iter().for_each(|cause| crate::complain(cause));
    Ok(())
}

struct Asker<'a> {
    ask: bool,
    input: &'a mut Input,
}

impl Ask for Asker<'_> {
    fn yes(&mut self, question: &str) -> bool {
        if !self.ask {
            return true;
        }
        let mut out = io::stdout();
        // Without an answer, or anybody to ask, it is a no.
        let asked = writeln!(out, "{question}").and_then(|()| out.flush());
        asked.is_ok()
            && self.input.token().is_ok_and(|t| t.is_some_and(|t| t.eq_ignore_ascii_case("yes")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Options {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        Options::new(&crate::flags::parse(&args, |_| None).flags)
    }

    #[test]
    fn people_get_the_document_and_scripts_what_they_parse() {
        assert_eq!(options(&[]).layout, Layout::Classic);
        assert_eq!(options(&["--interactive=false"]).layout, Layout::Current);
        assert_eq!(options(&["--interactive=false", "--layout=classic"]).layout, Layout::Classic);
        assert_eq!(options(&["--layout=current"]).layout, Layout::Current);
        assert_eq!(options(&["--output=json"]).layout, Layout::Current);
    }

    #[test]
    fn the_status_is_0_unless_strictness_is_asked_for() {
        let status = |args: &[&str], failed| format!("{:?}", options(args).status(failed));
        let (good, bad) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::FAILURE));
        assert_eq!(status(&[], true), good);
        assert_eq!(status(&["--strict-exit"], true), bad);
        assert_eq!(status(&["--strict-exit"], false), good);
    }
}
