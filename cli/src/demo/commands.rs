//! The operators' own commands: run for the demo's screen, and printed for those who want to go on by hand.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cluster::Cluster;
use super::screen::Screen;
use super::server::Role;
use super::story::{DB, TABLE};

/// A command of `ns_client` answers within this time.
const ANSWER: Duration = Duration::from_secs(15);

/// Runs one command of `ns_client` against the cluster, by this very program, and shows it with its answer.
pub(super) async fn ns_client(screen: &mut Screen, cluster: &Cluster, words: &str) -> Result<()> {
    let mut command = tokio::process::Command::new(cluster.program());
    command
        .args(["--role=ns_client", "--interactive=false"])
        .arg(format!("--zk_cluster={}", cluster.nameservers()))
        .arg(format!("--database={DB}"))
        .arg(format!("--cmd={words}"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(ANSWER, command.output()).await.with_context(|| {
        format!("ns_client does not answer {words} within {} s", ANSWER.as_secs())
    })??;
    let text = String::from_utf8_lossy(&output.stdout);
    let answer: String = text
        .lines()
        .filter(|line| !line.starts_with("ns leader: "))
        .map(|line| format!("{line}\n"))
        .collect();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && !answer.is_empty(),
        "ns_client {words} failed: {answer}{said}"
    );
    screen.block(&format!("  ns_client > {words}\n{answer}"))?;
    Ok(())
}

/// Says how to go on with a cluster that stays up.
pub(super) fn how_to_connect(screen: &mut Screen, cluster: &Cluster) -> Result<()> {
    let program = quoted(&cluster.program().to_string_lossy());
    let nameservers = cluster.nameservers();
    let tablet = cluster.endpoints(Role::Tablet).into_iter().next().unwrap_or_default();
    let pids: Vec<String> =
        cluster.servers.iter().filter_map(|s| s.pid()).map(|pid| pid.to_string()).collect();
    screen.title("The cluster stays up; to go on by hand:")?;
    let text = format!(
        "  # ask the nameservers: showtablet, use {DB}, showtable, scan {TABLE} load.1m metric 0 0, help\n\
         \x20 {program} --role=ns_client --zk_cluster={nameservers}\n\
         \x20 # ask a tablet: gettablestatus, help\n\
         \x20 {program} --role=client --endpoint={tablet}\n\
         \x20 # store more rows, from CSV\n\
         \x20 echo my.metric,$(date +%s%3N),42 | {program} import --nameservers {nameservers} \\\n\
         \x20   --db {DB} --table {TABLE} --no-header --columns metric,ts,value\n\
         \x20 # stop it, and remove its data\n\
         \x20 kill {} && sleep 2 && {}\n",
        pids.join(" "),
        cluster.home().removal(),
    );
    screen.lines(&text)?;
    Ok(())
}

/// The text as one word of a shell's command line.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:=@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_blanks_and_quotes_are_one_word() {
        assert_eq!(quoted("/tmp/stela-demo-1"), "/tmp/stela-demo-1");
        assert_eq!(quoted("/tmp/my dir"), "'/tmp/my dir'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
