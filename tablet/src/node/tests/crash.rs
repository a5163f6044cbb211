//! Power cuts at every step of making and of installing a snapshot, and of giving back the log behind it.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use stela_common::fs::{Op, Recorder, Skip};

use super::image::{Cut, Image};
use super::install::{behind, foreign};
use super::*;

/// The directories of a tablet.
const DIRS: [&str; 5] = ["", "tables", "log", "lost+found", "snapshots/7_1"];

/// A tablet's disk at a moment of a recorded run.
struct Disks(Vec<(&'static str, Image)>);

impl Disks {
    fn new(dir: &Path) -> Self {
        let image = |name: &'static str| {
            let dir = if name.is_empty() { dir.to_owned() } else { dir.join(name) };
            (name, Image::of(&dir, &Default::default()))
        };
        Self(DIRS.into_iter().map(image).collect())
    }

    fn apply(&mut self, op: &Op) {
        self.0.iter_mut().for_each(|(_, image)| image.apply(op));
    }

    /// What a power cut leaves.
    fn cut(&self, cut: Cut, random: &mut StdRng) -> tempfile::TempDir {
        let to = tempfile::tempdir().unwrap();
        for (name, image) in &self.0 {
            let dir = to.path().join(name);
            stela_common::fs::create_dir_all(&Disk::real(), &dir).unwrap();
            for (name, bytes) in image.cut(cut, random) {
                stela_common::fs::write(dir.join(name), bytes).unwrap();
            }
        }
        to
    }
}

/// Opens what every power cut between two steps leaves, in every way.
fn every_cut(dir: &Path, ops: &[Op], from: usize, check: impl Fn(&Path, &Node, &str)) -> usize {
    let mut random = StdRng::seed_from_u64(7);
    let mut disks = Disks::new(dir);
    let mut tried = 0;
    for (step, op) in ops.iter().enumerate() {
        disks.apply(op);
        if step < from {
            continue;
        }
        for cut in Cut::ALL {
            let dir = disks.cut(cut, &mut random);
            let node = open_on(Disk::real(), config(dir.path()));
            check(dir.path(), &node, &format!("{cut:?} after step {step}, {op:?}"));
            tried += 1;
        }
    }
    tried
}

#[tokio::test]
async fn a_power_cut_while_a_snapshot_is_made_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new().without_physical_sync());
    let mut config = config(dir.path());
    config.log_keep = 128 << 10;
    let run = Running::new(open_on(Disk::recording(recorder.clone()), config));
    run.lead(KEY, 1).await;
    for n in 0..40 {
        run.put("k", n, &[n as u8; 4000]).await;
    }
    run.node.make_snapshot(KEY).await.unwrap();
    run.node.keep_short(&mut |_| true).await;
    for n in 40..80 {
        run.put("k", n, &[n as u8; 4000]).await;
    }
    let before = seen(&run.node, KEY, &["k"]);
    let from = recorder.len();
    run.node.make_snapshot(KEY).await.unwrap();
    let start = run.node.log.start();
    run.node.keep_short(&mut |_| true).await;
    assert!(run.node.log.start() > start, "the log is given back");
    let tried = every_cut(dir.path(), &recorder.ops(), from, |dir, node, at| {
        assert_eq!(snapshots(dir).len(), 1, "a start removes all others: {at}");
        let after = all_of(node, &["k"]);
        assert_eq!((&after.rows, after.last), (&before.rows, before.last), "{at}");
        assert_eq!(after.quarantine, None, "{at}");
    });
    assert!(tried > 80, "{tried}");
}

#[tokio::test]
async fn a_power_cut_while_a_snapshot_is_installed_leaves_the_old_copy_or_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::new().without_physical_sync());
    let disk = Disk::recording(recorder.clone());
    let run = Running::on(disk.clone(), dir.path());
    behind(&run, 7).await;
    run.node.make_snapshot(KEY).await.unwrap();
    run.lead(KEY, 3).await;
    run.put("k", 8, b"own 8").await;
    run.told(KEY, 4, TabletId(2), plain());
    until("it follows", || !run.node.look().partitions[&KEY].core.leads()).await;
    let old = seen(&run.node, KEY, &["k"]);
    // In the same directory: each has an image of its own.
    let plain_file = dir.path().join("plain");
    let new = foreign(&plain_file, 20, |_| {}).await;
    let file = dir.path().join("snapshots").join(KEY.to_string()).join("incoming");
    stela_common::fs::replace(&disk, &file, stela_common::fs::read(&plain_file).unwrap()).unwrap();
    let from = recorder.len();
    run.node.install_snapshot(KEY, file, Some(Offset(3)), |_| true).await.unwrap();
    let (mut was, mut is) = (0, 0);
    let counts = std::cell::RefCell::new((&mut was, &mut is));
    every_cut(dir.path(), &recorder.ops(), from, |dir, node, at| {
        let after = all_of(node, &["k"]);
        assert_eq!(after.quarantine, None, "{at}");
        let mut counts = counts.borrow_mut();
        if after.last == old.last {
            assert_eq!(after.rows, old.rows, "{at}");
            *counts.0 += 1;
        } else {
            assert_eq!((&after.rows, after.last), (&new.rows, new.last), "{at}");
            *counts.1 += 1;
            // Promise 6: what the leader does not have is kept.
            let kept = stela_common::fs::read_dir(dir.join("lost+found")).unwrap();
            assert!(kept.iter().any(|p| p.to_string_lossy().ends_with("_8-8")), "{at}: {kept:?}");
        }
    });
    assert!(was > 20 && is > 20, "{was} {is}");
}

/// A run of a busy tablet: what it did to its disk, and after how many steps each row was acknowledged.
struct Busy {
    dir: tempfile::TempDir,
    ops: Vec<Op>,
    acknowledged: Vec<(usize, &'static str, u64)>,
}

const KEYS: [&str; 3] = ["a", "b", "c"];

impl Busy {
    /// Puts, snapshots of both kinds, a log that is given back, files beside it that are replaced, a clean stop and a start.
    async fn record(seed: u64, skip: Option<Skip>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let recorder = Arc::new(Recorder::new().skip(skip).without_physical_sync());
        let mut config = config(dir.path());
        config.log_keep = 128 << 10;
        let start = || Running::new(open_on(Disk::recording(recorder.clone()), config.clone()));
        let mut run = start();
        run.lead(KEY, 1).await;
        let mut acknowledged = Vec::new();
        for ts in 1..=150 {
            if ts == 75 {
                run.stop().await;
                run = start();
                run.lead(KEY, 2).await;
            }
            let key = KEYS[random.random_range(0..KEYS.len())];
            let value = vec![1; random.random_range(1..6000)];
            run.put(key, ts, &value).await;
            acknowledged.push((recorder.len(), key, ts));
            match random.random_range(0..20) {
                0 => drop(run.node.make_snapshot(KEY).await.unwrap()),
                1 => run.node.keep_short(&mut |_| true).await,
                2 => {
                    let fences = Fences { decision: ts, ..run.node.files.fences().unwrap() };
                    run.node.files.set_fences(&fences).unwrap();
                }
                _ => {}
            }
        }
        let ops = recorder.ops();
        run.kill().await;
        Self { dir, ops, acknowledged }
    }

    /// In how many of so many states, each a step and a way to lose what was not synced, something is lost.
    fn lost(&self, states: usize, random: &mut StdRng) -> Vec<String> {
        let steps = self.ops.len();
        let mut chosen: Vec<(usize, Cut)> = (0..states)
            .map(|n| (random.random_range(0..steps), Cut::ALL[n % Cut::ALL.len()]))
            .collect();
        chosen.sort_by_key(|(step, _)| *step);
        let mut chosen = chosen.into_iter().peekable();
        let mut disks = Disks::new(self.dir.path());
        let mut lost = Vec::new();
        for (step, op) in self.ops.iter().enumerate() {
            disks.apply(op);
            while let Some((_, cut)) = chosen.next_if(|(at, _)| *at == step) {
                let dir = disks.cut(cut, random);
                let due = self.acknowledged.iter().filter(|(after, ..)| *after <= step + 1);
                if let Some(why) = missing(dir.path(), due) {
                    lost.push(format!("{cut:?} after step {step}, {op:?}: {why}"));
                }
            }
        }
        lost
    }
}

/// What a directory lacks of these rows.
fn missing<'a>(
    dir: &Path,
    due: impl Iterator<Item = &'a (usize, &'static str, u64)>,
) -> Option<String> {
    let files = Files::new(Disk::real(), dir.to_owned());
    let mut due = due.peekable();
    due.peek()?;
    let node = match start::open(config(dir), Disk::real(), files, CancellationToken::new()) {
        Ok((node, pending)) => {
            loading::run(&node, pending);
            node
        }
        Err(e) => return Some(format!("it does not open: {e}")),
    };
    node.look().adopt(&node, ME);
    if !node.look().partitions.contains_key(&KEY) {
        return Some("the partition is gone".into());
    }
    let found = all_of(&node, &KEYS);
    if let Some(why) = found.quarantine {
        return Some(why);
    }
    let there: std::collections::BTreeSet<(&str, u64)> =
        found.rows.iter().map(|(key, ts, _)| (key.as_str(), *ts)).collect();
    due.find(|(_, key, ts)| !there.contains(&(key, *ts)))
        .map(|(_, key, ts)| format!("{key} at {ts} is lost"))
}

/// `STELA_STATES` gives another number of states, `STELA_SEED` another seed.
#[tokio::test]
async fn a_power_cut_at_any_step_of_a_busy_tablet_loses_nothing_that_was_acknowledged() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("STELA_SEED").unwrap_or_else(rand::random);
    let states = usize::try_from(number("STELA_STATES").unwrap_or(1000)).unwrap();
    println!("seed {seed}, {states} states");
    let run = Busy::record(seed, None).await;
    let mut random = StdRng::seed_from_u64(seed);
    let lost = run.lost(states, &mut random);
    println!("{} steps, {} of {states} states lost something", run.ops.len(), lost.len());
    assert!(lost.is_empty(), "{:#?}", &lost[..lost.len().min(5)]);

    // A tablet that leaves a sync out is caught.
    for skip in [Skip::Commit, Skip::Replace] {
        let run = Busy::record(seed, Some(skip)).await;
        assert!(!run.lost(states, &mut random).is_empty(), "{skip:?} is not noticed");
    }
}
