//! Replicas, record by record: when everything is whole and nobody writes, each has the rows of the others, in their order.

use std::collections::BTreeMap;

use super::{Found, Outcome};
use crate::history::{End, Op, Stored};

type Rows = [(u64, String)];

pub(super) fn check(history: &Stored) -> Found {
    let mut copies: BTreeMap<(&str, &str), BTreeMap<&str, &Rows>> = BTreeMap::new();
    for done in &history.done {
        if let (Op::Scan { table, key, limit: 0, at }, End::Ok) = (&done.op, done.end) {
            let rows = done.answer.rows.as_deref().unwrap_or_default();
            // The last one of each place counts.
            let place = at.as_deref().unwrap_or("the leader");
            copies.entry((table, key)).or_default().insert(place, rows);
        }
    }
    let (mut compared, mut differ) = (0, Vec::new());
    for ((table, key), copies) in copies.iter().filter(|(_, copies)| copies.len() > 1) {
        let mut copies = copies.iter();
        let Some((first, rows)) = copies.next() else { continue };
        for (place, copy) in copies {
            compared += rows.len();
            if rows != copy {
                let at = rows.iter().zip(copy.iter()).take_while(|(a, b)| a == b).count();
                differ.push(format!(
                    "{key} of {table}: {first} has {} rows, {place} {}, they differ at row {at}: {:?}, {:?}",
                    rows.len(),
                    copy.len(),
                    rows.get(at),
                    copy.get(at)
                ));
            }
        }
    }
    let outcome = match (differ.is_empty(), compared) {
        (false, _) => Outcome::Fail,
        (true, 0) => Outcome::Unknown,
        (true, _) => Outcome::Pass,
    };
    let figures = format!(
        "replicas: {compared} rows of {} keys compared, {} copies differ",
        copies.len(),
        differ.len()
    );
    Found::new(outcome, figures, differ)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Script};

    fn copies(copies: &[(&str, &[u64])]) -> Outcome {
        let mut script = Script::default();
        for (at, (place, rows)) in copies.iter().enumerate() {
            let place = Some((*place).to_owned());
            let op = Op::Scan { table: "t".into(), key: "k".into(), limit: 0, at: place };
            let rows = Some(rows.iter().map(|ts| (*ts, String::new())).collect());
            let answer = Answer { rows, ..Answer::default() };
            script.add(at as u64, at as u64, op, End::Ok, answer);
        }
        check(&script.stored()).outcome
    }

    #[test]
    fn the_same_rows_in_the_same_order() {
        assert_eq!(copies(&[("a", &[2, 1]), ("b", &[2, 1])]), Outcome::Pass);
        assert_eq!(copies(&[("a", &[2, 1]), ("b", &[2])]), Outcome::Fail);
        assert_eq!(copies(&[("a", &[2, 1]), ("b", &[1, 2])]), Outcome::Fail);
        assert_eq!(copies(&[("a", &[2, 1]), ("b", &[2, 1]), ("c", &[2, 1, 1])]), Outcome::Fail);
        assert_eq!(copies(&[("a", &[2, 1])]), Outcome::Unknown);
        // What was read again counts as it was found then.
        assert_eq!(copies(&[("a", &[1]), ("a", &[2, 1]), ("b", &[2, 1])]), Outcome::Pass);
    }
}
