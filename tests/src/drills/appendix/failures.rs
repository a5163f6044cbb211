//! Servers die or are cut off, and the others go on.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stela_common::client::ReadFrom;

use super::bench::{Bench, SOON, alive_leader};
use crate::cluster::Role;
use crate::net::{Flow, Party, between};
use crate::workload::{DB, create_table};

pub async fn a_killed_leader_is_replaced(b: &mut Bench) -> Result<String> {
    let leader = b.leader("t", 0).await?;
    b.cluster.kill(b.at(&leader)?)?;
    let took = b.until_led_without("t", &leader).await?;
    let partition = b.partition("t", 0).await?;
    let former = partition.replicas.iter().find(|r| r.endpoint == leader).context("gone")?;
    ensure!(former.leader && !former.alive, "the former leader is shown as {former:?}");
    b.put("t", 20).await?;
    followers_receive(b, &leader).await?;
    Ok(format!("led again after {took:.1?}"))
}

/// The followers of the new leader have what is written now.
async fn followers_receive(b: &Bench, without: &str) -> Result<()> {
    b.until("followers have what the leader has", || async {
        let partitions = b.partitions("t").await?;
        Ok(partitions.iter().all(|p| {
            let here = || p.replicas.iter().filter(|r| r.endpoint != without && r.alive);
            let offset = here().map(|r| r.offset).max();
            here().count() >= 2 && here().all(|r| Some(r.offset) == offset)
        }))
    })
    .await
    .map(drop)
}

pub async fn a_leader_that_is_cut_off_is_replaced(b: &mut Bench) -> Result<String> {
    let leader = b.leader("t", 0).await?;
    b.isolate(b.at(&leader)?)?;
    let took = b.until_led_without("t", &leader).await?;
    b.put("t", 20).await?;
    followers_receive(b, &leader).await?;
    Ok(format!("led again after {took:.1?}"))
}

pub async fn a_killed_follower_disturbs_nobody(b: &mut Bench) -> Result<String> {
    let before = b.leader("t", 1).await?;
    let follower = b.followers("t", 1).await?.remove(0);
    b.cluster.kill(b.at(&follower)?)?;
    let asked = Instant::now();
    b.put("t", 20).await?;
    let took = asked.elapsed();
    b.until_alive("t", &follower, false).await?;
    ensure!(b.leader("t", 1).await? == before, "the leader changed");
    Ok(format!("20 rows in {took:.1?}"))
}

pub async fn a_leader_that_flaps_twice_comes_to_rest(b: &mut Bench) -> Result<String> {
    let leader = b.leader("t", 0).await?;
    for _ in 0..2 {
        b.restart(&leader).await?;
        b.put("t", 5).await?;
    }
    let took = b.whole().await?;
    Ok(format!("whole after {took:.1?}"))
}

pub async fn whoever_has_all_wins_although_it_led_before(b: &mut Bench) -> Result<String> {
    let first = b.leader("t", 0).await?;
    b.restart(&first).await?;
    b.whole().await?;
    let second = b.leader("t", 0).await?;
    ensure!(second != first, "the restarted leader leads still");
    let third = b.followers("t", 0).await?.into_iter().find(|f| *f != first).context("no third")?;
    // The third one misses what comes now.
    b.isolate(b.at(&third)?)?;
    b.until_alive("t", &third, false).await?;
    b.put("t", 20).await?;
    b.cluster.kill(b.at(&second)?)?;
    b.until("the first one leads", || async { Ok(b.leader("t", 0).await? == first) }).await?;
    b.put("t", 5).await?;
    Ok(String::new())
}

pub async fn a_nameserver_and_a_tablet_die_together(b: &mut Bench) -> Result<String> {
    let nameserver = b.client.leader().await?;
    let tablet = b.leader("t", 0).await?;
    b.cluster.kill(b.at(&nameserver)?)?;
    b.cluster.kill(b.at(&tablet)?)?;
    b.put("t", 20).await?;
    b.start_again(&tablet).await?;
    b.start_again(&nameserver).await?;
    let took = b.whole().await?;
    Ok(format!("offsets equal after {took:.1?}"))
}

pub async fn one_member_is_left_whoever_is_cut_off(b: &mut Bench) -> Result<String> {
    for at in b.cluster.of(Role::Tablet) {
        b.isolate(at)?;
        // Long enough for the others to notice: the set shrinks, or the tablet is called offline.
        let endpoint = b.cluster.servers[at].endpoint.clone();
        b.until_alive("t", &endpoint, false).await?;
    }
    for partition in b.partitions("t").await? {
        let members = partition.replicas.iter().filter(|r| r.in_sync).count();
        ensure!(members >= 1, "nobody is left of {partition:?}");
    }
    b.cluster.heal().await?;
    let took = b.whole().await?;
    Ok(format!("whole {took:.1?} after the links healed"))
}

pub async fn nameservers_fail_over_and_forget_nothing(b: &mut Bench) -> Result<String> {
    let admin = b.client.admin();
    b.switch(false).await?;
    let free = b.free("t", 0).await?;
    admin.add_replica(Bench::name("t"), vec![0], &free).await?;
    let tables =
        |shown: stela_proto::nameserver::ShowTableReply| -> BTreeSet<(u32, String, usize)> {
            let row = |t: stela_proto::nameserver::TableRow| {
                let table = t.table.unwrap_or_default();
                (table.tid, table.name, t.partitions.len())
            };
            shown.tables.into_iter().map(row).collect()
        };
    let before = tables(admin.show_table(DB, "", false).await?);
    for _ in 0..2 {
        let leader = b.client.leader().await?;
        b.cluster.kill(b.at(&leader)?)?;
        b.until("another nameserver leads", || async { Ok(b.client.leader().await? != leader) })
            .await?;
        let shown = tables(b.client.admin().show_table(DB, "", false).await?);
        ensure!(shown == before, "tables before {before:?}, now {shown:?}");
        let conf = b.client.admin().conf_get("auto_failover").await?.rows;
        ensure!(conf.iter().any(|r| r.value == "false"), "the switch is forgotten: {conf:?}");
        let healthy = b.client.admin().show_tablet().await?.tablets;
        ensure!(healthy.iter().all(|t| t.healthy) && healthy.len() == 4, "{healthy:?}");
        b.start_again(&leader).await?;
    }
    b.ops_ended().await?;
    let ops = b.client.admin().show_op_status(DB, "t", Some(0)).await?.ops;
    let added = ops.iter().rfind(|op| op.r#type == "kAddReplicaOP").context("the op is lost")?;
    ensure!(added.status == "kDone", "{added:?}");
    Ok(String::new())
}

pub async fn a_nameserver_restarts_and_nobody_notices(b: &mut Bench) -> Result<String> {
    let leader = b.client.leader().await?;
    let standby = b.cluster.of(Role::Nameserver).into_iter();
    let standby = standby
        .map(|at| b.cluster.servers[at].endpoint.clone())
        .find(|e| *e != leader)
        .context("no standby")?;
    let begun = Instant::now();
    b.cluster.kill(b.at(&standby)?)?;
    b.put("t", 20).await?;
    b.client.admin().conf_set("auto_failover", "true").await?;
    let took = begun.elapsed();
    b.start_again(&standby).await?;
    Ok(format!("20 rows and a confset in {took:.1?}"))
}

pub async fn two_of_three_are_gone_and_then_all(b: &mut Bench) -> Result<String> {
    let holders: Vec<String> =
        b.partition("t", 0).await?.replicas.into_iter().map(|r| r.endpoint).collect();
    for holder in &holders[..2] {
        b.cluster.kill(b.at(holder)?)?;
    }
    let killed = Instant::now();
    b.until("partition 0 is served", || async {
        let p = b.partition("t", 0).await?;
        Ok(p.serving && alive_leader(&p) == holders[2])
    })
    .await?;
    b.put("t", 10).await?;
    // The other table has one replica of each partition: it may be gone with the two.
    b.verify_table("t").await?;
    let took = killed.elapsed();
    ensure!(took < SOON, "{took:?}");
    b.cluster.kill(b.at(&holders[2])?)?;
    // An error, never an empty result.
    let client = b.cluster.client_of(0, Duration::from_secs(3)).await?;
    let handle = client.table(DB, "t").await?;
    let index = handle.first_index();
    let mut errors = 0;
    for n in 1..=40 {
        let key = format!("k{n}");
        if handle.partition_of(key.as_bytes()) != 0 {
            continue;
        }
        match client.get(&handle, index, key.as_bytes(), 0, ReadFrom::Leader).await {
            Err(_) => errors += 1,
            Ok(got) => anyhow::bail!("with nobody there, {key} reads as {got:?}"),
        }
        if errors == 2 {
            break;
        }
    }
    ensure!(errors > 0, "no key of partition 0 was asked for");
    for holder in &holders {
        b.start_again(holder).await?;
    }
    let whole = b.whole().await?;
    Ok(format!(
        "10 rows written and all read {took:.1?} after two died; whole {whole:.1?} after all came back"
    ))
}

pub async fn a_leader_is_cut_off_from_each_kind_of_party(b: &mut Bench) -> Result<String> {
    let mut said = Vec::new();
    for (what, kind) in [
        ("nameservers", Some(Role::Nameserver)),
        ("tablets", Some(Role::Tablet)),
        ("clients", None),
    ] {
        let leader = b.leader("t", 0).await?;
        let at = b.at(&leader)?;
        match kind {
            Some(role) => b.cut(at, role, Flow::Cut)?,
            None => {
                let links = between(&[Party::Server(at)], &[Party::Clients(0)], Flow::Cut);
                b.net()?.set(links);
            }
        }
        let begun = Instant::now();
        if kind.is_none() {
            // Whoever is cut off from clients alone leads on; these clients reach the others only.
            let other = b.cluster.client_of(1, SOON).await?;
            let near = std::mem::replace(&mut b.client, other);
            b.put("t", 10).await?;
            b.client = near;
        } else {
            b.put("t", 10).await?;
        }
        said.push(format!("{what} {:.1?}", begun.elapsed()));
        b.cluster.heal().await?;
        b.whole().await?;
        b.verify().await?;
    }
    Ok(format!("10 rows while cut off from: {}", said.join(", ")))
}

pub async fn the_same_name_is_created_and_dropped_at_once(b: &mut Bench) -> Result<String> {
    let (mut created, begun) = (0, Instant::now());
    // How many creations a drop overtakes is chance: it goes on until enough have come through.
    while created < 5 {
        ensure!(begun.elapsed() < SOON * 2, "only {created} were created");
        let tries = (0..4).map(|n| {
            let cluster = &b.cluster;
            async move {
                let client = cluster.client_of(n, SOON).await?;
                let made = create_table(&client, "same", 2, 3).await.is_ok();
                if n % 2 == 1 {
                    let _ = client.admin().drop_table(DB, "same").await;
                }
                anyhow::Ok(made)
            }
        });
        let made = futures::future::try_join_all(tries).await?;
        created += made.iter().filter(|made| **made).count();
        let shown = b.partitions("same").await?;
        ensure!(shown.is_empty() || shown.len() == 2, "half a table: {shown:?}");
        // What no drop came late enough for.
        let _ = b.client.admin().drop_table(DB, "same").await;
    }
    // Nothing is left on any tablet.
    let tids: BTreeSet<u32> = {
        let shown = b.client.admin().show_table(DB, "", false).await?;
        shown.tables.iter().filter_map(|t| t.table.as_ref()).map(|t| t.tid).collect()
    };
    for at in b.cluster.of(Role::Tablet) {
        b.until("no tablet has anything of dropped tables", || async {
            let mut tablet = b.cluster.tablet_at(at, 0)?;
            let rows =
                tablet.get_table_status(stela_proto::tablet::GetTableStatusRequest::default());
            Ok(rows.await?.into_inner().rows.iter().all(|r| tids.contains(&r.tid)))
        })
        .await?;
    }
    Ok(format!("{created} times created"))
}
