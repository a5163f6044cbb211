//! D13: bytes rot on one server that is down: a bit flips, a page is zeroed, or the file is cut short, in a segment of a
//! tablet's log, in a snapshot, in the file of its fences, or in the log of a nameserver (its votes are there too).
//!
//! Pass: the damage is noticed every time, by a line in the server's output or by its refusal to start; nothing is lost,
//! so whoever is damaged has not led; the copies of the others are never deleted, so every partition is whole again when
//! the damaged copies have been made anew. Where the server refuses to start its file is put back: to replace such a
//! server is for its operator.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use stela_common::fs::{self, Disk};

use super::gaps::Gaps;
use super::promise::Promise;
use super::stage::{Scene, Stage};
use super::{Outcome, Plan};
use crate::cluster::{Extra, Role, Setup};

/// What a server that finds damage says.
const WORDS: [&str; 7] = [
    "damaged",
    "quarantined",
    "checksum",
    "corrupt",
    "cannot be read",
    "cannot be used",
    "is readable",
];
const PAGE: usize = 4096;

#[derive(Clone, Copy, Debug)]
enum Target {
    TabletLog,
    Snapshot,
    Fences,
    RaftLog,
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    BitFlip,
    ZeroPage,
    Truncate,
}

const TARGETS: [Target; 4] = [Target::TabletLog, Target::RaftLog, Target::Snapshot, Target::Fences];
const DAMAGES: [Damage; 3] = [Damage::BitFlip, Damage::ZeroPage, Damage::Truncate];

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let tablet = Extra { flags: vec!["--snapshot_every=500".into()], ..Extra::default() };
    let setup = Setup { tablet, ..Setup::default() };
    let mut stage = Stage::begin(plan, Scene { setup, ..Scene::default() }).await?;
    let (mut wholes, mut rounds, mut unnoticed) = (Gaps::default(), 0, Vec::new());
    while plan.goes_on(rounds, stage.elapsed(), 60) {
        // Every target comes with every damage.
        let target = TARGETS[rounds % TARGETS.len()];
        let damage = DAMAGES[rounds % DAMAGES.len()];
        rounds += 1;
        stage.load.await_acked(3000).await?;
        let at = match target {
            Target::RaftLog => {
                *stage.cluster.of(Role::Nameserver).choose(&mut stage.random).context("nobody")?
            }
            _ => stage.busiest().await?.0,
        };
        stage.cluster.kill(at)?;
        let dir = stage.cluster.servers[at].dir.clone();
        let file = pick(&dir, target, &mut stage.random)?;
        let good = fs::read(&file)?;
        do_damage(&file, &good, target, damage, &mut stage.random)?;
        let what = format!("{damage:?} in {target:?} {}", file.strip_prefix(&dir)?.display());
        let before = stage.cluster.servers[at].printed().len();
        stage.cluster.launch(at)?;
        let started = Instant::now();
        let up = stage.cluster.await_ready(at).await;
        let said = stage.cluster.servers[at].printed().split_off(before);
        let word = WORDS.iter().find(|word| said.contains(**word));
        if let Err(refused) = up {
            ensure!(stage.cluster.await_end(at, std::time::Duration::ZERO).await?, "{refused:#}");
            println!("round {rounds}: {what}: it refuses to start ({})", word.unwrap_or(&"?"));
            fs::write(&file, &good)?;
            stage.cluster.launch(at)?;
            stage.cluster.await_ready(at).await?;
        } else {
            println!("round {rounds}: {what}: it starts, and says: {}", word.unwrap_or(&"nothing"));
        }
        if word.is_none() {
            unnoticed.push(what);
        }
        stage.await_whole().await?;
        wholes.add(started.elapsed(), format!("round {rounds}"));
    }
    println!("until whole: {wholes}");
    let promises = [Promise::new(
        format!("damage is noticed {rounds} times of {rounds} {unnoticed:?}"),
        unnoticed.is_empty(),
    )];
    stage.conclude(&promises, rounds > 1).await
}

/// A file of that kind which has something in it.
fn pick(dir: &Path, target: Target, random: &mut StdRng) -> Result<PathBuf> {
    let mut files = match target {
        Target::TabletLog | Target::RaftLog => fs::read_dir(dir.join("log"))?,
        Target::Fences => vec![dir.join("fences")],
        Target::Snapshot => {
            let mut files = Vec::new();
            for of_partition in fs::read_dir(dir.join("snapshots"))? {
                files.extend(fs::read_dir(of_partition)?);
            }
            files
        }
    };
    files.retain(|file| file.extension().is_none_or(|e| e != "tmp"));
    if matches!(target, Target::TabletLog | Target::RaftLog) {
        // Segments that are prepared ahead hold nothing.
        let mut used = Vec::new();
        for file in files {
            if used_bytes(&fs::read(&file)?) > PAGE {
                used.push(file);
            }
        }
        files = used;
    }
    files.choose(random).cloned().with_context(|| format!("no file for {target:?}"))
}

/// Up to the last byte that is not zero.
fn used_bytes(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1)
}

/// Of a log, in what was synced long ago: a tail that was not is cut and no damage. Of another file, anywhere.
fn do_damage(
    file: &Path,
    good: &[u8],
    target: Target,
    damage: Damage,
    random: &mut StdRng,
) -> Result<()> {
    let used = used_bytes(good);
    let at = match target {
        Target::TabletLog | Target::RaftLog => random.random_range(0..(used / 2).max(1)),
        Target::Snapshot | Target::Fences => random.random_range(0..used),
    };
    match damage {
        Damage::BitFlip => {
            let flipped = good[at] ^ (1 << random.random_range(0..8));
            Disk::real().open_write(file)?.write_at(&[flipped], at as u64)?;
        }
        Damage::ZeroPage => {
            // A page that has something in it.
            let page = at / PAGE * PAGE;
            let end = (page + PAGE).min(used);
            Disk::real().open_write(file)?.write_at(&vec![0; end - page], page as u64)?;
        }
        Damage::Truncate => Disk::real().open_write(file)?.set_len(at as u64)?,
    }
    Ok(())
}
