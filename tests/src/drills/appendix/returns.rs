//! Servers come back, and take their place again by themselves.

use anyhow::{Context as _, Result, ensure};
use stela_common::fs;

use super::bench::Bench;
use crate::cluster::Role;
use crate::net::Flow;
use crate::workload::DB;

pub async fn a_restarted_follower_catches_up(b: &mut Bench) -> Result<String> {
    let follower = b.followers("t", 0).await?.remove(0);
    b.cluster.kill(b.at(&follower)?)?;
    b.put("t", 40).await?;
    b.start_again(&follower).await?;
    let took = b.whole().await?;
    Ok(format!("equal after {took:.1?}"))
}

pub async fn the_same_tablet_restarts_twice(b: &mut Bench) -> Result<String> {
    let tablet = b.leader("t", 0).await?;
    b.restart(&tablet).await?;
    b.whole().await?;
    b.put("t", 10).await?;
    // And again while it recovers.
    b.restart(&tablet).await?;
    b.restart(&tablet).await?;
    b.put("t", 10).await?;
    let took = b.whole().await?;
    Ok(format!("whole after {took:.1?}"))
}

/// The situations of the reference's table of recoveries: how the former leader, or a follower, is lost; what is written
/// meanwhile; whether a snapshot was made. In the end all is equal, and no more was sent than was missed and a little: no
/// copy is sent anew.
pub async fn a_return_costs_what_was_missed_and_no_more(b: &mut Bench) -> Result<String> {
    let mut said = Vec::new();
    // Enough that a whole copy would be noticed.
    b.put("t", 3_000).await?;
    b.whole().await?;
    for (what, lost, leader, written, snapshot) in [
        ("leader cut from nameservers, nothing written", Lost::Cut, true, 0, None),
        ("leader cut, written", Lost::Cut, true, 50, None),
        ("leader cut, written, snapshot of the new leader", Lost::Cut, true, 50, Some(When::After)),
        ("leader killed, no snapshot", Lost::Killed, true, 50, None),
        ("leader killed after a snapshot everywhere", Lost::Killed, true, 50, Some(When::Before)),
        ("leader killed, snapshot of the new leader", Lost::Killed, true, 50, Some(When::After)),
        ("leader alone, a write sent to it", Lost::Alone, true, 50, None),
        (
            "leader alone, written, snapshot of the new leader",
            Lost::Alone,
            true,
            50,
            Some(When::After),
        ),
        ("follower cut", Lost::Cut, false, 50, None),
        ("follower killed, no snapshot", Lost::Killed, false, 50, None),
    ] {
        let leads = b.leader("t", 0).await?;
        let victim = if leader { leads } else { b.followers("t", 0).await?.remove(0) };
        let at = b.at(&victim)?;
        if snapshot == Some(When::Before) {
            make_snapshots(b).await?;
        }
        match lost {
            Lost::Cut => b.cut(at, Role::Nameserver, Flow::Hold)?,
            // Clients still reach it, and send it their next write.
            Lost::Alone => {
                b.cut(at, Role::Nameserver, Flow::Hold)?;
                b.cut(at, Role::Tablet, Flow::Cut)?;
                b.put("t", 5).await?;
            }
            Lost::Killed => b.cluster.kill(at)?,
        }
        if leader {
            b.until_led_without("t", &victim).await.with_context(|| what.to_owned())?;
        } else if lost == Lost::Killed {
            b.until_alive("t", &victim, false).await.with_context(|| what.to_owned())?;
        }
        b.put("t", written).await?;
        if snapshot == Some(When::After) {
            make_snapshots(b).await?;
        }
        let before = b.net()?.received(at);
        match lost {
            Lost::Cut | Lost::Alone => b.cluster.heal().await?,
            Lost::Killed => b.start_again(&victim).await?,
        }
        b.whole().await.with_context(|| what.to_owned())?;
        let bytes = b.net()?.received(at) - before;
        // What was missed, and heartbeats, permits and views; a whole copy has more than 3,000 rows.
        ensure!(bytes < 120_000, "{what}: {bytes} bytes were sent");
        said.push(format!("{what}: {bytes} B"));
    }
    Ok(said.join("; "))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// It is cut off from the nameservers.
    Cut,
    /// It is cut off from all servers.
    Alone,
    Killed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    After,
}

/// Every leader makes a snapshot.
async fn make_snapshots(b: &Bench) -> Result<()> {
    for partition in b.partitions("t").await? {
        b.client.admin().make_snapshot(Bench::name("t"), partition.pid).await?;
    }
    b.ops_ended().await
}

pub async fn a_single_replica_leads_again(b: &mut Bench) -> Result<String> {
    let only = b.leader("one", 0).await?;
    b.cluster.kill(b.at(&only)?)?;
    b.until("nobody leads it", || async { Ok(b.leader("one", 0).await?.is_empty()) }).await?;
    b.start_again(&only).await?;
    let took =
        b.until("it leads again", || async { Ok(b.leader("one", 0).await? == only) }).await?;
    b.put("one", 10).await?;
    Ok(format!("after {took:.1?}"))
}

pub async fn everything_dies_and_serves_again_by_itself(b: &mut Bench) -> Result<String> {
    for at in 0..b.cluster.servers.len() {
        b.cluster.kill(at)?;
    }
    b.cluster.launch_all().await?;
    let took = b.whole().await?;
    b.verify().await?;
    b.put("t", 10).await?;
    Ok(format!("whole {took:.1?} after all were up"))
}

pub async fn every_tablet_restarts_in_turn(b: &mut Bench) -> Result<String> {
    let rows = b.acknowledged_in("t") as u64;
    b.until("the offsets count all rows", || async { Ok(offset(b).await? >= rows) }).await?;
    let mut offsets = offset(b).await?;
    let tablets = b.cluster.of(Role::Tablet);
    for at in &tablets {
        let endpoint = b.cluster.servers[*at].endpoint.clone();
        b.restart(&endpoint).await?;
        b.put("t", 10).await?;
        b.whole().await?;
        b.until("the offsets count them", || async { Ok(offset(b).await? >= offsets + 10) })
            .await?;
        let now = offset(b).await?;
        ensure!(now == offsets + 10, "10 rows made the offsets grow by {}", now - offsets);
        offsets = now;
    }
    Ok(format!("{} tablets", tablets.len()))
}

/// The sum of the leaders' offsets.
async fn offset(b: &Bench) -> Result<u64> {
    let partitions = b.partitions("t").await?;
    let leaders = partitions.iter().flat_map(|p| p.replicas.iter().find(|r| r.leader && r.alive));
    Ok(leaders.map(|r| r.offset).sum())
}

pub async fn a_missing_directory_is_never_loaded_as_empty(b: &mut Bench) -> Result<String> {
    let victim = b.followers("t", 0).await?.remove(0);
    let at = b.at(&victim)?;
    // The tables' own single replicas may be there: they are not to be lost with the directory.
    let holds_one = b.partitions("one").await?;
    let holds_one = holds_one.iter().flat_map(|p| &p.replicas).any(|r| r.endpoint == victim);
    b.cluster.kill(at)?;
    let dir = b.cluster.servers[at].dir.join("tables");
    let aside = b.cluster.servers[at].dir.with_extension("aside");
    fs::rename(&b.cluster.servers[at].dir, &aside)?;
    ensure!(!dir.exists(), "the directory is still there");
    b.put("t", 10).await?;
    b.start_again(&victim).await?;
    if holds_one {
        // A sole copy that is gone is said to be gone.
        b.until("nobody serves what is gone", || async {
            let gone = b.partitions("one").await?;
            Ok(gone.iter().any(|p| !p.serving && !p.waits.is_empty()))
        })
        .await?;
        b.cluster.kill(at)?;
        fs::remove_dir_all(&b.cluster.servers[at].dir)?;
        fs::rename(&aside, &b.cluster.servers[at].dir)?;
        b.start_again(&victim).await?;
        elect_back(b, &victim).await?;
    }
    let took = b.whole().await?;
    Ok(format!("rebuilt from the others after {took:.1?}"))
}

/// R16: since then the tablet has been one with another disk (R14), so that the old one is back is for an operator to
/// say. What it has is shown, with its offset, before it leads again.
async fn elect_back(b: &Bench, endpoint: &str) -> Result<()> {
    let admin = b.client.admin();
    for partition in b.partitions("one").await? {
        if partition.replicas.iter().all(|r| r.endpoint != endpoint) {
            continue;
        }
        b.until("its copy can be elected", || async {
            let shown = admin.candidates(DB, "one", partition.pid).await?;
            let row = shown.rows.first().context("no candidate is shown")?;
            if !(row.known && row.untrusted && row.offset > 0) {
                return Ok(false);
            }
            let elected = admin.elect(DB, "one", partition.pid, endpoint, shown.version).await;
            Ok(elected.is_ok())
        })
        .await?;
    }
    Ok(())
}
