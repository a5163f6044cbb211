//! What operators do by hand.

use anyhow::{Context as _, Result, ensure};

use super::bench::Bench;
use crate::workload::DB;

const ENABLED: &str = "auto_failover is enabled";

pub async fn manual_commands_are_refused_while_the_switch_is_on(b: &mut Bench) -> Result<String> {
    let admin = b.client.admin();
    let endpoint = b.leader("t", 0).await?;
    let other = b.free("t", 0).await?;
    let table = || Bench::name("t");
    let refused = [
        Bench::refusal(admin.offline_endpoint(&endpoint, 0).await)?,
        Bench::refusal(admin.recover_endpoint(&endpoint, false, 0).await)?,
        Bench::refusal(admin.recover_table(table(), 0, &endpoint).await)?,
        Bench::refusal(admin.change_leader_by_hand(DB, "t", 0, Some("")).await)?,
        Bench::refusal(admin.migrate(&endpoint, table(), vec![0], &other).await)?,
        Bench::refusal(admin.update_table_alive(table(), None, &endpoint, false).await)?,
        Bench::refusal(admin.set_table_partition(table(), 0, Vec::new()).await)?,
        Bench::refusal(admin.cancel_op(1).await)?,
    ];
    ensure!(refused.iter().all(|text| text == ENABLED), "{refused:?}");
    b.switch(false).await?;
    admin.change_leader_by_hand(DB, "t", 0, Some("")).await?;
    b.ops_ended().await?;
    admin.offline_endpoint(&endpoint, 0).await?;
    b.ops_ended().await?;
    admin.recover_endpoint(&endpoint, false, 0).await?;
    b.ops_ended().await?;
    b.whole().await?;
    admin.recover_table(table(), 0, &endpoint).await?;
    Ok(format!("{} commands", refused.len()))
}

pub async fn changeleader_in_all_its_forms(b: &mut Bench) -> Result<String> {
    b.switch(false).await?;
    let admin = b.client.admin();
    let change = async |pid: u32, candidate: Option<String>| {
        admin.change_leader_by_hand(DB, "t", pid, candidate.as_deref()).await
    };
    let text = Bench::refusal(change(0, None).await)?;
    ensure!(text == "leader is alive", "{text}");
    let text = Bench::refusal(change(99, Some(String::new())).await)?;
    ensure!(text == "pid does not exist", "{text}");
    let text = Bench::refusal(change(0, Some("127.0.0.1:1".into())).await)?;
    ensure!(text == "create op failed", "{text}");
    let text = Bench::refusal(admin.change_leader_by_hand(DB, "none", 0, Some("")).await)?;
    ensure!(text == "table does not exist", "{text}");
    // In OpenMLDB the third one in a row is refused, as nobody re-attaches former leaders.
    for _ in 0..3 {
        let before = b.leader("t", 0).await?;
        let to = b.followers("t", 0).await?.remove(0);
        change(0, Some(to.clone())).await?;
        b.until("the candidate leads", || async { Ok(b.leader("t", 0).await? == to) }).await?;
        b.whole().await?;
        ensure!(b.followers("t", 0).await?.contains(&before), "the former leader is lost");
    }
    let before = b.leader("t", 0).await?;
    change(0, Some(String::new())).await?;
    b.until("another one leads", || async {
        let leader = b.leader("t", 0).await?;
        Ok(!leader.is_empty() && leader != before)
    })
    .await?;
    Ok(String::new())
}

pub async fn recoverendpoint_and_leadership_back(b: &mut Bench) -> Result<String> {
    b.switch(false).await?;
    let admin = b.client.admin();
    let leader = b.leader("t", 0).await?;
    b.cluster.kill(b.at(&leader)?)?;
    b.until("it is offline", || async {
        let tablets = b.client.admin().show_tablet().await?.tablets;
        Ok(tablets.iter().any(|t| t.endpoint == leader && !t.healthy))
    })
    .await?;
    let text = Bench::refusal(admin.recover_endpoint(&leader, false, 0).await)?;
    ensure!(text == "tablet is not healthy", "{text}");
    let text = Bench::refusal(admin.recover_endpoint("127.0.0.1:1", false, 0).await)?;
    ensure!(text == "endpoint does not exist", "{text}");
    admin.offline_endpoint(&leader, 0).await?;
    b.until_led_without("t", &leader).await?;
    b.put("t", 10).await?;
    b.start_again(&leader).await?;
    admin.recover_endpoint(&leader, true, 2).await?;
    b.until("it leads again", || async { Ok(b.leader("t", 0).await? == leader) }).await?;
    b.ops_ended().await?;
    b.whole().await?;
    let ops = admin.show_op_status(DB, "t", Some(0)).await?.ops;
    let kinds: Vec<&str> = ops.iter().rev().take(3).map(|op| op.r#type.as_str()).collect();
    ensure!(kinds.contains(&"kRecoverTableOP") && kinds.contains(&"kReAddReplicaOP"), "{kinds:?}");
    Ok(String::new())
}

pub async fn offlineendpoint_of_leader_follower_and_live_tablet(b: &mut Bench) -> Result<String> {
    b.switch(false).await?;
    let admin = b.client.admin();
    let text = Bench::refusal(admin.offline_endpoint("127.0.0.1:1", 0).await)?;
    ensure!(text == "endpoint does not exist", "{text}");
    let text = Bench::refusal(admin.offline_endpoint(&b.leader("t", 0).await?, 9).await)?;
    ensure!(text == "invalid parameter", "{text}");
    // It leads some partitions, follows in others, and is alive.
    let leader = b.leader("t", 0).await?;
    admin.offline_endpoint(&leader, 0).await?;
    b.ops_ended().await?;
    b.until_led_without("t", &leader).await?;
    b.until_alive("t", &leader, false).await?;
    b.put("t", 20).await?;
    // It does not come back by itself, although it is healthy.
    let partition = b.partition("t", 0).await?;
    let former = partition.replicas.iter().find(|r| r.endpoint == leader).context("gone")?;
    ensure!(former.leader && !former.alive && !former.in_sync, "{former:?}");
    admin.recover_endpoint(&leader, false, 0).await?;
    b.ops_ended().await?;
    b.whole().await?;
    Ok(String::new())
}

pub async fn a_failover_wins_over_a_migration(b: &mut Bench) -> Result<String> {
    b.switch(false).await?;
    let admin = b.client.admin();
    let table = || Bench::name("t");
    let leader = b.leader("t", 0).await?;
    let followers = b.followers("t", 0).await?;
    let free = b.free("t", 0).await?;
    let text = Bench::refusal(admin.migrate(&leader, table(), vec![0], &free).await)?;
    ensure!(text == "cannot migrate leader. name[t] pid[0]", "{text}");
    let text = Bench::refusal(admin.migrate(&followers[0], table(), vec![0], &followers[1]).await)?;
    ensure!(text.starts_with("partition[0] is already in des_endpoint["), "{text}");
    // The destination cannot be reached by others, so the migration hangs; meanwhile the leader dies, and the replica
    // that is to move is elected.
    b.cut(b.at(&free)?, crate::cluster::Role::Tablet, crate::net::Flow::Hold)?;
    admin.migrate(&followers[0], table(), vec![0], &free).await?;
    b.switch(true).await?;
    let other = b.at(&followers[1])?;
    b.cluster.kill(other)?;
    b.until_alive("t", &followers[1], false).await?;
    b.cluster.kill(b.at(&leader)?)?;
    b.until("the one that was to move leads", || async {
        Ok(b.leader("t", 0).await? == followers[0])
    })
    .await?;
    b.ops_ended().await?;
    let ops = admin.show_op_status(DB, "t", Some(0)).await?.ops;
    let migration = ops.iter().rfind(|op| op.r#type == "kMigrateOP").context("no migration")?;
    ensure!(migration.status == "kFailed", "{migration:?}");
    b.put("t", 10).await?;
    b.cluster.heal().await?;
    b.whole().await?;
    let held = b.partition("t", 0).await?.replicas;
    ensure!(held.len() == 3 && held.iter().all(|r| r.endpoint != free), "{held:?}");
    // Later it succeeds.
    b.switch(false).await?;
    let follower = b.followers("t", 0).await?.remove(0);
    admin.migrate(&follower, table(), vec![0], &free).await?;
    b.ops_ended().await?;
    let held = b.partition("t", 0).await?.replicas;
    let moved =
        held.iter().any(|r| r.endpoint == free) && held.iter().all(|r| r.endpoint != follower);
    ensure!(moved && held.len() == 3, "{held:?}");
    Ok(migration.why.clone())
}

pub async fn replicas_are_added_and_taken_away(b: &mut Bench) -> Result<String> {
    let admin = b.client.admin();
    let table = || Bench::name("t");
    let free = b.free("t", 1).await?;
    let leader = b.leader("t", 1).await?;
    let text = Bench::refusal(admin.add_replica(table(), vec![1, 99], &free).await)?;
    ensure!(text == "invalid parameter", "{text}");
    let text = Bench::refusal(admin.add_replica(table(), vec![1], &leader).await)?;
    ensure!(text == format!("pid 1 is exist in {leader}"), "{text}");
    let text = Bench::refusal(admin.add_replica(table(), vec![1], "127.0.0.1:1").await)?;
    ensure!(text == "tablet is not healthy", "{text}");
    admin.add_replica(table(), vec![1], &free).await?;
    b.ops_ended().await?;
    b.whole().await?;
    ensure!(b.partition("t", 1).await?.replicas.len() == 4, "it was not added");
    let text = Bench::refusal(admin.del_replica(table(), vec![99], &free).await)?;
    ensure!(text == "max pid is greater than partition size", "{text}");
    let text = Bench::refusal(admin.del_replica(table(), vec![1], &leader).await)?;
    ensure!(text == format!("can not del leader. pid 1 endpoint {leader}"), "{text}");
    admin.del_replica(table(), vec![1], &free).await?;
    b.ops_ended().await?;
    let text = Bench::refusal(admin.del_replica(table(), vec![1], &free).await)?;
    ensure!(text == format!("pid 1 is not in {free}"), "{text}");
    b.cluster.kill(b.at(&free)?)?;
    b.until("it is offline", || async {
        let tablets = b.client.admin().show_tablet().await?.tablets;
        Ok(tablets.iter().any(|t| t.endpoint == free && !t.healthy))
    })
    .await?;
    let text = Bench::refusal(admin.add_replica(table(), vec![1], &free).await)?;
    ensure!(text == "tablet is not healthy", "{text}");
    Ok(String::new())
}

pub async fn confset_takes_true_and_false(b: &mut Bench) -> Result<String> {
    let admin = b.client.admin();
    for (key, value) in [("auto_failover", "maybe"), ("auto_failover", ""), ("other", "true")] {
        let text = Bench::refusal(admin.conf_set(key, value).await)?;
        ensure!(text == "invalid parameter", "{key}={value}: {text}");
    }
    for value in ["false", "TRUE", "False", "true"] {
        admin.conf_set("auto_failover", value).await?;
        let shown = admin.conf_get("auto_failover").await?.rows;
        let wanted = value.to_ascii_lowercase();
        ensure!(shown.iter().all(|r| r.value == wanted), "{shown:?}");
    }
    Ok(String::new())
}
