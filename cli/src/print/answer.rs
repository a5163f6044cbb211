//! What a command answers.

use stela_common::code::{Code, Refusal};

use super::Table;

/// A piece of an answer.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Part {
    /// A line of text.
    Line(String),
    /// A table as most commands print it.
    Plain(Table),
    /// A table with rulers, as `showschema` prints it.
    Ruled(Table),
}

/// What a command answers.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Answer {
    /// What goes to standard output, in this order.
    pub(crate) parts: Vec<Part>,
    /// The command did not do what it was asked for.
    pub(crate) failed: bool,
    /// What goes to standard error: causes for which the texts on standard output have no place.
    pub(crate) causes: Vec<String>,
    /// The session ends.
    pub(crate) end: bool,
}

impl Answer {
    /// A line: it worked.
    pub(crate) fn done(line: impl Into<String>) -> Self {
        Self { parts: vec![Part::Line(line.into())], ..Self::default() }
    }

    /// A line: it did not work.
    pub(crate) fn failed(line: impl Into<String>) -> Self {
        Self { failed: true, ..Self::done(line) }
    }

    /// A table.
    pub(crate) fn table(table: Table) -> Self {
        Self { parts: vec![Part::Plain(table)], ..Self::default() }
    }

    /// A failure in the words of the command, followed by what the server said.
    ///
    /// Where no server answered, the texts of `ns_client` end after `error msg: ` and the cause goes to standard error.
    pub(crate) fn refused(words: &str, refusal: &Refusal) -> Self {
        if refusal.code == Code::RpcFailed {
            return Self::failed(words).because(&refusal.text);
        }
        Self::failed(format!("{words}{}", refusal.text))
    }

    /// Adds a cause.
    pub(crate) fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_server_said_goes_to_standard_error() {
        let said = Answer::refused("failed to drop. error msg: ", &Code::TableNotFound.into());
        assert_eq!(said, Answer::failed("failed to drop. error msg: table does not exist"));
        let silent = Answer::refused(
            "failed to drop. error msg: ",
            &Refusal::new(Code::RpcFailed, "no answer"),
        );
        assert_eq!(silent, Answer::failed("failed to drop. error msg: ").because("no answer"));
    }
}
