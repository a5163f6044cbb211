//! INTERLEAVINGS.md has a row for each, and everything that it names exists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// H1 to H40, L1 to L14.
const KINDS: [(&str, usize); 2] = [("H", 40), ("L", 14)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    let bytes = stela_common::fs::read(root().join(path));
    String::from_utf8(bytes.unwrap_or_else(|e| panic!("{path}: {e}"))).expect("text")
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The document, read.
struct Document {
    /// Short names of directories.
    short: BTreeMap<String, String>,
    /// Of each row its name, its rules, and what shows it.
    rows: Vec<(String, String, String)>,
}

fn document() -> Document {
    let (mut short, mut rows) = (BTreeMap::new(), Vec::new());
    let text = text("INTERLEAVINGS.md");
    for line in text.lines().map(str::trim).filter(|l| l.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        match cells[..] {
            [name, of] if name.starts_with('`') => {
                short.insert(quoted(name)[0].to_owned(), quoted(of)[0].to_owned());
            }
            [name, _, rules, shown] if name.starts_with(['H', 'L']) => {
                rows.push((name.to_owned(), rules.to_owned(), shown.to_owned()));
            }
            _ => {}
        }
    }
    Document { short, rows }
}

/// Is there a test function of that name in the file?
fn has_test(file: &str, name: &str) -> bool {
    let text = text(file);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_it = |line: &&str| {
        let line = line.trim_start_matches("async ");
        line.strip_prefix("fn ")
            .and_then(|l| l.strip_prefix(name))
            .is_some_and(|l| l.starts_with('('))
    };
    lines.iter().position(is_it).is_some_and(|at| {
        let before =
            lines[..at].iter().rev().take_while(|l| l.starts_with("#[") || l.starts_with("//"));
        before.into_iter().any(|l| l.starts_with("#[") && l.contains("test"))
    })
}

/// Does the command line know a drill of that name?
fn has_drill(name: &str) -> bool {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_stela-tests"))
        .args(["drill", "--help"])
        .output()
        .expect("the drills are listed");
    let help = String::from_utf8(help.stdout).expect("the drills are listed");
    help.lines().any(|line| {
        line.trim().strip_prefix("- ").is_some_and(|l| l.starts_with(&format!("{name}:")))
    })
}

/// Is there a planted mistake of that name that the simulation has to notice?
fn has_mistake(name: &str) -> bool {
    text("tests/src/sim/mistake.rs").contains(&format!(" {name}: "))
        && text("tests/src/sim/tests.rs").contains(&format!("\"{name}\" within"))
}

fn exists(document: &Document, what: &str) -> bool {
    if let Some(name) = what.strip_prefix("drill ") {
        return has_drill(name);
    }
    let Some((file, name)) = what.split_once("::") else { return has_mistake(what) };
    let long = document
        .short
        .iter()
        .find_map(|(s, l)| Some(format!("{l}{}", file.strip_prefix(s.as_str())?)));
    has_test(&long.unwrap_or_else(|| file.to_owned()), name)
}

#[test]
fn every_interleaving_has_a_row_in_order() {
    let names: Vec<String> = document().rows.into_iter().map(|(name, _, _)| name).collect();
    let expected =
        KINDS.iter().flat_map(|(kind, count)| (1..=*count).map(move |n| format!("{kind}{n}")));
    assert_eq!(names, expected.collect::<Vec<_>>());
}

#[test]
fn everything_that_is_named_exists() {
    let (document, rules) = (document(), text("RULES.md"));
    let known: Vec<&str> = rules.split(|c: char| !c.is_alphanumeric()).collect();
    for (name, named, shown) in &document.rows {
        let what = quoted(shown);
        assert!(
            !what.is_empty() || shown.starts_with("none can exist: "),
            "{name} is shown by nothing"
        );
        for what in what {
            assert!(exists(&document, what), "{name}: there is no {what}");
        }
        for rule in named.split(", ").filter(|r| *r != "-") {
            assert!(known.contains(&rule), "{name}: there is no rule {rule}");
        }
    }
}

#[test]
fn what_does_not_exist_is_noticed() {
    let document = document();
    for what in [
        "core/commit.rs::interval",
        "core/commit.rs::acknowledged",
        "core/mod.rs::bench",
        "drill D99",
        "B14",
        "B",
    ] {
        assert!(!exists(&document, what), "{what}");
    }
}
