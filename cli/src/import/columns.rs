//! The file's columns and their names.

use anyhow::{Result, anyhow, bail, ensure};

use super::source::Source;

/// The columns of a file: so many, with names or without.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Columns {
    names: Vec<String>,
    width: usize,
}

impl Columns {
    /// Takes the header, if there is one. Names that were given are taken instead of those that it has.
    pub(super) fn of(source: &mut Source, no_header: bool, given: &[String]) -> Result<Self> {
        let name = source.name().to_owned();
        let Some(first) = source.peek()? else {
            bail!("{name} is empty: give a file with rows");
        };
        let width = first.len();
        let in_header =
            first.iter().map(|field| String::from_utf8_lossy(field).trim().to_owned()).collect();
        ensure!(
            given.is_empty() || given.len() == width,
            "--columns gives {} names, but the first line of {name} has {width} fields: give one for each",
            given.len()
        );
        let names = match (no_header, given.is_empty()) {
            (_, false) => given.to_vec(),
            (false, true) => in_header,
            (true, true) => Vec::new(),
        };
        if !no_header {
            source.next()?;
        }
        Ok(Self { names, width })
    }

    /// How many there are.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Do they have names?
    pub(super) fn named(&self) -> bool {
        !self.names.is_empty()
    }

    /// Their names, as a text for messages.
    pub(super) fn list(&self) -> String {
        if self.named() { self.names.join(", ") } else { format!("columns 1 to {}", self.width) }
    }

    /// The name of a column, or its number.
    pub(super) fn name(&self, at: usize) -> String {
        self.names.get(at).cloned().unwrap_or_else(|| format!("{}", at + 1))
    }

    /// The column of that name; `None` if there is none, or more than one.
    pub(super) fn by_name(&self, name: &str) -> Option<usize> {
        let mut found = self.names.iter().enumerate().filter(|(_, n)| *n == name).map(|(at, _)| at);
        found.next().filter(|_| found.next().is_none())
    }

    /// The column that a flag means: by name, or by number from 1.
    pub(super) fn find(&self, flag: &str, text: &str) -> Result<usize> {
        if let Some(at) = self.by_name(text) {
            return Ok(at);
        }
        ensure!(
            !self.names.iter().any(|name| name == text),
            "--{flag} {text}: the file has two columns of that name: give its number, or other names with --columns"
        );
        let number =
            text.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).filter(|at| *at < self.width);
        number.ok_or_else(|| {
            anyhow!(
                "--{flag} {text}: the file has no such column: it has {}; give a name, or a number from 1 to {}",
                self.list(),
                self.width
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::tests::text;
    use super::*;

    #[test]
    fn names_come_from_the_header_or_from_the_flag() {
        let given = ["x".to_owned(), "y".to_owned()];
        let mut source = text(" a , b\n1,2\n");
        let columns = Columns::of(&mut source, false, &[]).unwrap();
        assert_eq!((columns.find("key", "b").unwrap(), columns.find("key", "1").unwrap()), (1, 0));
        assert_eq!(source.next().unwrap().map(|(line, _)| line), Some(2));

        let columns = Columns::of(&mut text("a,b\n"), false, &given).unwrap();
        assert_eq!((columns.by_name("a"), columns.by_name("y")), (None, Some(1)));

        let mut source = text("1,2\n");
        let columns = Columns::of(&mut source, true, &given).unwrap();
        assert_eq!(columns.by_name("x"), Some(0));
        assert_eq!(source.next().unwrap().map(|(line, _)| line), Some(1));
    }

    #[test]
    fn a_column_that_is_not_there_is_refused_with_those_that_are() {
        let columns = Columns::of(&mut text("a,b,b\n"), false, &[]).unwrap();
        for bad in ["c", "0", "4", ""] {
            let told = columns.find("key", bad).unwrap_err().to_string();
            assert!(told.contains("a, b, b") && told.contains("1 to 3"), "{told}");
        }
        assert!(columns.find("key", "b").unwrap_err().to_string().contains("two columns"));
        assert_eq!(columns.find("key", "3").unwrap(), 2);
        let told = Columns::of(&mut text("a,b,c\n"), true, &["x".into()]).unwrap_err().to_string();
        assert!(told.contains("1 names") && told.contains("3 fields"), "{told}");
    }
}
