//! `confset auto_failover false`, then kill -9 of all nameservers: when they are back, `confget` still says false, and a
//! leader that is killed is not replaced by itself.

use std::time::Duration;

use anyhow::Result;

use super::{Outcome, Plan};
use crate::cluster::{Cluster, Role};

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let mut cluster = Cluster::start(3, 3).await?;
    let client = cluster.client().await?;
    let mut kept = true;
    for value in ["false", "true", "false"].into_iter().cycle().take(plan.rounds.unwrap_or(3)) {
        client.admin().conf_set("auto_failover", value).await?;
        let nameservers = cluster.of(Role::Nameserver);
        for at in &nameservers {
            cluster.kill(*at)?;
        }
        cluster.launch_all().await?;
        let got =
            tokio::time::timeout(Duration::from_secs(30), client.admin().conf_get("auto_failover"))
                .await??;
        let got = got.rows.first().map(|r| r.value.clone()).unwrap_or_default();
        println!(
            "confset auto_failover {value}; all nameservers killed and started: confget says {got}"
        );
        kept &= got == value;
    }
    if kept && cluster.panics().is_empty() {
        return Ok(Outcome::Pass);
    }
    println!("the servers' directories and output are in {}", cluster.keep().display());
    Ok(Outcome::Fail)
}
