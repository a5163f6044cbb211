//! Tables as values.

use serde_json::Value;

use super::units;

/// One cell: its text, and its value in JSON.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Cell {
    /// As tables show it; empty where there is nothing.
    pub(crate) text: String,
    /// As JSON has it: numbers in base units (bytes, milliseconds, seconds since 1970), `null` where there is nothing.
    pub(crate) json: Value,
}

impl Cell {
    /// A text; an empty one is nothing.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        let json = if text.is_empty() { Value::Null } else { Value::from(text.clone()) };
        Self { text, json }
    }

    /// Nothing to show.
    pub(crate) fn none() -> Self {
        Self { text: String::new(), json: Value::Null }
    }

    /// A number.
    pub(crate) fn number(number: impl Into<u64>) -> Self {
        let number = number.into();
        Self { text: number.to_string(), json: number.into() }
    }

    /// A number, where it is known.
    pub(crate) fn known(number: Option<u64>) -> Self {
        number.map_or_else(Self::none, Self::number)
    }

    /// A number of bytes, as `8.646 K`.
    pub(crate) fn bytes(bytes: u64) -> Self {
        Self { text: units::bytes(bytes), json: bytes.into() }
    }

    /// `yes` or `no`.
    pub(crate) fn yes_no(yes: bool) -> Self {
        Self { text: if yes { "yes" } else { "no" }.into(), json: yes.into() }
    }

    /// `true` or `false`.
    pub(crate) fn true_false(yes: bool) -> Self {
        Self { text: yes.to_string(), json: yes.into() }
    }

    /// Milliseconds that have passed, as `3h`.
    pub(crate) fn age(ms: u64) -> Self {
        Self { text: units::age(ms), json: ms.into() }
    }

    /// Seconds, never in a larger unit.
    pub(crate) fn seconds(seconds: u64) -> Self {
        Self { text: format!("{seconds}s"), json: seconds.into() }
    }

    /// A moment (seconds since 1970) in this machine's time zone, as `20180824163316`.
    pub(crate) fn moment(seconds: u64) -> Self {
        Self { text: units::moment(seconds), json: seconds.into() }
    }
}

/// A table: named columns and rows of cells.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Table {
    /// The names of the columns.
    pub(crate) columns: Vec<String>,
    /// The last of them, so many, are in JSON only: scripts that read the text count columns.
    pub(crate) details: usize,
    /// The rows, each with a cell for each column.
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty one.
    pub(crate) fn new(columns: &[&str]) -> Self {
        Self {
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            rows: Vec::new(),
            details: 0,
        }
    }

    /// The names that the text shows.
    pub(crate) fn shown(&self) -> Vec<&str> {
        let shown = self.columns.len() - self.details;
        self.columns[..shown].iter().map(String::as_str).collect()
    }

    /// More columns, in JSON only.
    pub(crate) fn with_details(mut self, columns: &[&str]) -> Self {
        self.columns.extend(columns.iter().map(|c| (*c).to_owned()));
        self.details += columns.len();
        self
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }
}
