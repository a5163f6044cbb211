//! Flags, as gflags has them: one table of definitions, one parser, and the help made from the table.
//!
//! A value comes from the command line (and the files that `--flagfile` names there), else from the environment
//! (`STELA_` and the flag's name in capitals), else from the table. The last one on the command line wins.

mod foreign;
mod help;
mod parse;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use help::{overview, role as role_help};
pub(crate) use parse::{FlagError, Parsed, parse};
pub(crate) use table::Role;

use std::collections::BTreeMap;

use table::{FLAGS, Kind};

/// The values of all flags.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    /// What was given, by name; checked against the flag's kind.
    given: BTreeMap<&'static str, String>,
}

impl Flags {
    /// Was it given at all?
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The text of a flag.
    pub(crate) fn text(&self, name: &str) -> &str {
        match self.given.get(name) {
            Some(text) => text,
            None => FLAGS.iter().find(|f| f.name == name).map_or("", |f| f.default),
        }
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// A truth value.
    pub(crate) fn truth(&self, name: &str) -> bool {
        table::truth(self.text(name)).unwrap_or(false)
    }

    /// A list, separated by commas, without blanks.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.text(name)
            .split(',')
            .map(str::trim)
            .filter(|e| !e.is_empty())
            .map(Into::into)
            .collect()
    }

    /// Flags that were given and mean something to OpenMLDB only.
    pub(crate) fn foreign(&self) -> Vec<&'static str> {
        self.given.keys().filter(|name| foreign::find(name).is_some()).copied().collect()
    }

    /// The cluster that is meant: `--cluster=x`, or OpenMLDB's `--zk_root_path=/x`.
    ///
    /// # Errors
    /// Two different ones are given.
    pub(crate) fn cluster(&self) -> Result<Option<&str>, FlagError> {
        let (name, path) =
            (self.text("cluster"), self.text("zk_root_path").trim_start_matches('/'));
        if !name.is_empty() && !path.is_empty() && name != path {
            return Err(FlagError::new(format!(
                "--cluster={name} and --zk_root_path=/{path} name two clusters; give one of them"
            )));
        }
        Ok([name, path].into_iter().find(|n| !n.is_empty()))
    }

    /// The flag of that name, whoever's it is.
    fn find(name: &str) -> Option<(&'static str, Kind)> {
        FLAGS
            .iter()
            .find(|f| f.name == name)
            .map(|f| (f.name, f.kind))
            .or_else(|| foreign::find(name))
    }

    fn set(&mut self, name: &'static str, kind: Kind, value: &str) -> Result<(), FlagError> {
        kind.check(name, value)?;
        self.given.insert(name, value.to_owned());
        Ok(())
    }
}
