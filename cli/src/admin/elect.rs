//! `stela ops elect --unclean`: a leader from outside the in-sync set, by an operator's decision (R16).
//!
//! Invariant: what every replica is known to have, and what the choice would lose, is shown before anything is asked; the
//! decision holds for what was shown and nothing newer.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use stela_proto::nameserver::{CandidateRow, CandidatesReply};

use super::{Cluster, agree, block_on, refused, split};
use crate::print::{Answer, Cell, Part, Table};

/// Runs it.
///
/// # Errors
/// What went wrong, and the cure.
pub(crate) fn run(
    table: &str,
    pid: u32,
    endpoint: &str,
    yes: bool,
    cluster: &Cluster,
) -> Result<ExitCode> {
    block_on(async {
        let client = cluster.connect().await?;
        let admin = client.admin();
        let (db, name) = split(table);
        let known = admin.candidates(db, name, pid).await.map_err(refused(table))?;
        let chosen = known.rows.iter().find(|r| r.endpoint == endpoint).with_context(|| {
            format!("{endpoint} has no replica of {table} {pid}; showtable lists the replicas")
        })?;
        let mut parts = vec![Part::Plain(shown(&known))];
        if !known.waits.is_empty() {
            parts.push(Part::Line(format!("Nobody leads {table} {pid}: {}.", known.waits)));
        }
        parts.push(Part::Line(losses(&known, chosen)));
        let answer = Answer { parts, ..Answer::default() };
        cluster.answer(&answer)?;
        if !agree(&format!("{endpoint} is to lead {table} {pid}."), yes)? {
            bail!("nothing was changed");
        }
        admin
            .elect(db, name, pid, endpoint, known.version)
            .await
            .map_err(refused("nobody was elected"))?;
        cluster.answer(&Answer::done(format!("{endpoint} leads {table} {pid}")))
    })
}

fn shown(known: &CandidatesReply) -> Table {
    let mut table = Table::new(&[
        "endpoint",
        "healthy",
        "in_sync",
        "trusted",
        "held",
        "leader",
        "last_epoch",
        "offset",
        "commit",
    ]);
    for row in &known.rows {
        let figure = |n: u64| Cell::known(row.known.then_some(n));
        table.push(vec![
            Cell::text(&row.endpoint),
            Cell::yes_no(row.healthy),
            Cell::yes_no(row.in_sync),
            Cell::yes_no(!row.untrusted && !row.quarantined),
            Cell::yes_no(row.held),
            Cell::yes_no(row.endpoint == known.leader),
            figure(row.last_epoch),
            figure(row.offset),
            figure(row.commit),
        ]);
    }
    table
}

/// What the choice would lose, in words.
fn losses(known: &CandidatesReply, chosen: &CandidateRow) -> String {
    if !chosen.known {
        return format!("What {} has is not known: everything may be lost.", chosen.endpoint);
    }
    let place = |r: &&CandidateRow| (r.last_epoch, r.offset);
    let best = known.rows.iter().filter(|r| r.known).max_by_key(place);
    let mut text = match best {
        Some(best) if place(&best) > place(&chosen) => {
            let from = chosen.offset.min(best.offset);
            format!(
                "{} has entries up to offset {} of epoch {}: of those above offset {from} none, or others, are at {}. They will be lost.",
                best.endpoint, best.offset, best.last_epoch, chosen.endpoint
            )
        }
        _ => format!("No replica is known to have more than {}.", chosen.endpoint),
    };
    let unknown: Vec<&str> =
        known.rows.iter().filter(|r| !r.known).map(|r| r.endpoint.as_str()).collect();
    if !unknown.is_empty() {
        text.push_str(&format!(
            " What {} has is not known, and will be lost where it is more.",
            unknown.join(", ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(endpoint: &str, last_epoch: u64, offset: u64) -> CandidateRow {
        CandidateRow {
            endpoint: endpoint.into(),
            known: last_epoch > 0,
            last_epoch,
            offset,
            ..CandidateRow::default()
        }
    }

    #[test]
    fn the_losses_are_in_words() {
        let known =
            |rows: &[CandidateRow]| CandidatesReply { rows: rows.into(), ..Default::default() };
        let all = known(&[row("a", 5, 90), row("b", 4, 100), row("c", 0, 0)]);
        let text = losses(&all, &all.rows[1]);
        assert!(text.starts_with("a has entries up to offset 90 of epoch 5"), "{text}");
        assert!(text.contains("above offset 90"), "{text}");
        assert!(text.ends_with("What c has is not known, and will be lost where it is more."));
        assert!(losses(&all, &all.rows[2]).contains("everything may be lost"));
        let two = known(&[row("a", 5, 90), row("b", 4, 90)]);
        assert_eq!(losses(&two, &two.rows[0]), "No replica is known to have more than a.");
    }
}
