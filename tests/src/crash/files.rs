//! The crash test of the small files beside the log: a recorded run in which a tablet replaces its fences, the incarnations
//! that it has tried, and a table, again and again, and what is read after a power cut at every step of it.
//!
//! In each state: every file is there whole, as it was when its last replacement was reported, or one newer.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use stela_common::fs::{self, Disk, Op, Recorder};
use stela_common::ids::{Incarnation, PartitionId, TableId};
use stela_common::table::{Options, Table};
use stela_tablet::disk::{Fences, Files, Held, Identity};

use super::image::{Cut, Image};

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// States that were looked at.
    pub states: usize,
    /// What is wrong, the first few.
    pub failures: Vec<String>,
}

/// The number of the replacement: all files of one say it.
type Number = u64;

/// Runs it with at least so many states.
///
/// # Errors
/// The harness failed: no verdict.
pub fn run(seed: u64, states: usize) -> Result<Report> {
    let base = tempfile::tempdir()?;
    let dir = base.path().join("run");
    let recorder = Arc::new(Recorder::new().without_physical_sync());
    let files = Files::new(Disk::recording(recorder.clone()), dir.clone());
    fs::create_dir_all(&Disk::real(), &dir)?;
    files.create(&identity())?;
    replace(&files, 0)?;
    recorder.mark(0, 0);
    let steps = |ops: &[Op]| ops.len() * Cut::ALL.len();
    let mut number = 0;
    while steps(&recorder.ops()) < states {
        number += 1;
        replace(&files, number)?;
        recorder.mark(0, number);
    }

    let nothing = super::image::Files::new();
    let mut images = [Image::of(&dir, &nothing), Image::of(&dir.join("tables"), &nothing)];
    let mut random = StdRng::seed_from_u64(seed);
    let (mut report, mut reported) = (Report::default(), None);
    for (step, op) in recorder.ops().iter().enumerate() {
        images.iter_mut().for_each(|image| image.apply(op));
        if let Op::Mark { value, .. } = op {
            reported = Some(*value);
        }
        for cut in Cut::ALL {
            report.states += 1;
            let left = base.path().join("left");
            fs::create_dir_all(&Disk::real(), left.join("tables"))?;
            for (image, dir) in images.iter().zip([left.clone(), left.join("tables")]) {
                for (name, bytes) in image.cut(cut, &mut random) {
                    fs::write(dir.join(name), bytes)?;
                }
            }
            // Before the first report nothing is promised, but that nothing half is read.
            if let Err(e) = look(&left, reported) {
                report.failures.push(format!("step {step}, {cut:?}: {e:#}"));
            }
            fs::remove_dir_all(&left)?;
        }
    }
    Ok(report)
}

fn replace(files: &Files, number: Number) -> Result<()> {
    let starts = vec![Incarnation(number)];
    let fences = Fences { starts, controller: number, decision: number, unclean: false };
    files.set_fences(&fences)?;
    let table = Table {
        tid: TableId(1),
        db: "db".into(),
        name: "table".into(),
        columns: Vec::new(),
        indexes: Vec::new(),
        partition_num: 1,
        replica_num: 1,
        options: Options::default(),
        created_index: number,
        added_columns: 0,
    };
    files.set_table(&Held { table, pids: BTreeSet::from([PartitionId(0)]) })?;
    Ok(())
}

/// Reads everything as a tablet that starts would.
fn look(left: &Path, reported: Option<Number>) -> Result<()> {
    let files = Files::new(Disk::real(), left.to_owned());
    let found = files.identity().context("its identity")?;
    let fences = files.fences().context("its fences")?;
    let tables = files.tables().context("its tables")?;
    let Some(number) = reported else { return Ok(()) };
    anyhow::ensure!(found == Some(identity()), "its identity is {found:?}");
    let whole = fences.starts == [Incarnation(fences.controller)];
    let next = number..=number + 1;
    anyhow::ensure!(
        whole && next.contains(&fences.controller) && fences.decision == fences.controller,
        "after replacement {number} was reported its fences are {fences:?}"
    );
    let created = tables.get(&TableId(1)).map(|held| held.table.created_index);
    anyhow::ensure!(
        created.is_some_and(|created| next.contains(&created)),
        "after replacement {number} was reported its table is of {created:?}"
    );
    Ok(())
}

fn identity() -> Identity {
    Identity {
        format: 1,
        cluster: "crash".into(),
        endpoint: "127.0.0.1:1".into(),
        dir_uuid: "0".repeat(32),
    }
}
