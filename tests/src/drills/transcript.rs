//! The section "Downtime and Recovery" of the operators' document as two sessions in a terminal, compared with golden
//! files: in automatic mode down to `showtable` after the failover, then the same commands through a pipe; and in manual
//! mode to the end, with the one-click recovery and the manual data recovery after all replicas were down.
//!
//! What differs from run to run is masked: endpoints become letters in the order in which they appear, and the columns
//! that hold ids, ages, times and counts become `*`. Blanks are counted as one, since widths follow the endpoints. The ops
//! of one failover are sorted: which of them is recorded first depends on who notices first that a tablet is gone.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stela_common::client::Client;
use stela_proto::nameserver::PartitionRow;

use super::{Outcome, Plan};
use crate::cluster::{AS_STELA, Cluster, Role, Setup};
use crate::terminal::Terminal;
use crate::workload::{await_whole, create_table};

const GOLDEN: &str = include_str!("../../golden/downtime_and_recovery.txt");
const MANUAL: &str = include_str!("../../golden/manual_mode.txt");
/// Columns whose cells are masked.
const MASKED: [&str; 10] = [
    "tid",
    "offset",
    "record_cnt",
    "memused",
    "age",
    "op_id",
    "start_time",
    "execute_time",
    "end_time",
    "diskused",
];

pub(super) async fn run(_: Plan) -> Result<Outcome> {
    let mut cluster = Cluster::start(&Setup::default()).await?;
    let client = cluster.client().await?;
    create_table(&client, "flow", 2, 3).await?;
    await_whole(&client, Duration::from_secs(30)).await?;
    let shown = client.admin().show_table("drill", "flow", false).await?;
    let partition = shown
        .tables
        .first()
        .and_then(|t| t.partitions.first())
        .context("the table has no partition")?;
    let victim =
        partition.replicas.iter().find(|r| r.leader).context("no leader")?.endpoint.clone();

    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(AS_STELA)
        .arg("--role=ns_client")
        .arg(format!("--zk_cluster={}", cluster.nameservers()));
    command.arg("--zk_root_path=/openmldb");
    let mut terminal = Terminal::start(command)?;
    let mut text = terminal.until_prompt()?;
    let mut say = |line: &str, text: &mut String| -> Result<String> {
        terminal.type_line(line)?;
        let answer = terminal.until_prompt()?;
        text.push_str(&answer);
        Ok(answer)
    };
    for line in [
        "use drill",
        "confget",
        "confset auto_failover false",
        "confget auto_failover",
        "confset auto_failover true",
    ] {
        say(line, &mut text)?;
    }
    say(&format!("offlineendpoint {victim}"), &mut text)?;
    say("showtablet", &mut text)?;
    say("showtable", &mut text)?;
    let at = cluster.find(&victim).context("a tablet that is not ours")?;
    cluster.kill(at)?;
    await_failover(&client, &victim).await?;
    for line in ["showtablet", "showtable", "showopstatus"] {
        say(line, &mut text)?;
    }

    let mut endpoints = BTreeMap::new();
    let got = mask(&text, &mut endpoints);
    let mut kept = same("in a terminal", &got, GOLDEN);

    let piped = pipe(&cluster, "use drill\nshowtable flow\n")?;
    let got = mask(&piped, &mut endpoints);
    let table = after(GOLDEN, "> showtable", 2).unwrap_or_default();
    let want = format!("ns leader: A\nUse database: drill\n{table}");
    let got = got
        .lines()
        .skip_while(|l| l.starts_with("Welcome"))
        .map(|l| format!("{l}\n"))
        .collect::<String>();
    kept &= same("through a pipe", &got, &want);
    cluster.launch(at)?;
    cluster.await_ready(at).await?;
    await_whole(&client, Duration::from_secs(30)).await?;
    kept &= manual_mode(&mut cluster, &client).await?;
    ensure!(cluster.panics().is_empty(), "a server panicked: {:?}", cluster.panics());
    Ok(if kept { Outcome::Pass } else { Outcome::Fail })
}

/// The document in manual mode, command by command.
async fn manual_mode(cluster: &mut Cluster, client: &Client) -> Result<bool> {
    let leader = |partition: &PartitionRow| {
        let leader = partition.replicas.iter().find(|r| r.leader && r.alive);
        leader.map(|r| r.endpoint.clone()).unwrap_or_default()
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.args([AS_STELA, "--role=ns_client"]);
    command.arg(format!("--zk_cluster={}", cluster.nameservers()));
    let mut terminal = Terminal::start(command)?;
    terminal.until_prompt()?;
    let mut text = String::new();
    let mut say = |line: String, text: &mut String| -> Result<()> {
        terminal.type_line(&line)?;
        text.push_str(&terminal.until_prompt()?);
        Ok(())
    };
    say("use drill".into(), &mut text)?;
    // Operations so far are the other session's.
    client.admin().delete_ops("done", "").await?;
    let before = partitions(client).await?;
    let (victim, follower) = (leader(&before[0]), leader(&before[1]));
    ensure!(victim != follower, "one tablet leads both partitions");
    say("confset auto_failover false".into(), &mut text)?;

    aside(&mut text, "# a node fails");
    let at = cluster.find(&victim).context("a tablet that is not ours")?;
    cluster.kill(at)?;
    await_that(client, "the other partition goes on without it", |p| {
        p[1].serving && p[1].replicas.iter().all(|r| r.in_sync != (r.endpoint == victim))
    })
    .await?;
    // Its leader may be faster than the nameservers.
    await_offline(client, &victim).await?;
    say("showtablet".into(), &mut text)?;
    say(format!("offlineendpoint {victim}"), &mut text)?;
    await_ops(client).await?;
    await_that(client, "both are led", |p| p.iter().all(|p| p.serving)).await?;
    say("showtable".into(), &mut text)?;
    say("changeleader flow 0".into(), &mut text)?;
    say(format!("recoverendpoint {victim}"), &mut text)?;

    aside(&mut text, "# the node has recovered");
    cluster.launch(at)?;
    cluster.await_ready(at).await?;
    say("showtablet".into(), &mut text)?;
    say(format!("recoverendpoint {victim}"), &mut text)?;
    await_ops(client).await?;
    await_whole(client, Duration::from_secs(30)).await?;
    say("showopstatus".into(), &mut text)?;
    say("showtable".into(), &mut text)?;
    say(format!("recovertable flow 0 {victim}"), &mut text)?;

    aside(&mut text, "# one-click recovery");
    restart_tablets(cluster).await?;
    say("showtable".into(), &mut text)?;
    let output = Command::new(std::env::current_exe()?)
        .args([AS_STELA, "ops", "recoverdata", "--wait", "--nameservers", cluster.nameservers()])
        .stderr(Stdio::null())
        .output()?;
    let finished = output.status.success();
    aside(
        &mut text,
        &format!("$ ops recoverdata --wait\nstatus {}", output.status.code().unwrap_or(-1)),
    );
    say("showtable".into(), &mut text)?;
    say("confget auto_failover".into(), &mut text)?;

    aside(&mut text, "# manual data recovery");
    restart_tablets(cluster).await?;
    say("showtable flow".into(), &mut text)?;
    let tablets: Vec<String> = before[0].replicas.iter().map(|r| r.endpoint.clone()).collect();
    for tablet in &tablets {
        say(format!("updatetablealive flow * {tablet} no"), &mut text)?;
    }
    let tid = client.table("drill", "flow").await?.tid();
    for (pid, leader) in [(0, &tablets[1]), (1, &tablets[2])] {
        for line in
            [format!("loadtable flow {tid} {pid} 144000 8"), format!("gettablestatus {tid} {pid}")]
        {
            let shown = line.replace(&format!(" {tid} "), " TID ");
            let printed = tablet_client(leader, &line)?;
            aside(&mut text, &format!("$ client {leader} {shown}\n{}", printed.trim_end()));
        }
        say(format!("updatetablealive flow {pid} {leader} yes"), &mut text)?;
        for other in tablets.iter().filter(|t| *t != leader) {
            say(format!("recovertable flow {pid} {other}"), &mut text)?;
        }
    }
    await_ops(client).await?;
    await_whole(client, Duration::from_secs(30)).await?;
    say("showtable flow".into(), &mut text)?;
    say("confset auto_failover true".into(), &mut text)?;
    let got = mask(&text, &mut BTreeMap::new());
    Ok(same("in manual mode", &got, MANUAL) && finished)
}

/// Lines that do not come from the terminal, before its prompt.
fn aside(text: &mut String, lines: &str) {
    let prompt = text.rfind('\n').map_or(0, |at| at + 1);
    text.insert_str(prompt, &format!("{lines}\n"));
}

async fn partitions(client: &Client) -> Result<Vec<PartitionRow>> {
    let shown = client.admin().show_table("drill", "flow", false).await?;
    Ok(shown.tables.into_iter().flat_map(|t| t.partitions).collect())
}

async fn await_that(
    client: &Client,
    what: &str,
    holds: impl Fn(&[PartitionRow]) -> bool,
) -> Result<()> {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let partitions = partitions(client).await?;
        if holds(&partitions) {
            return Ok(());
        }
        ensure!(
            std::time::Instant::now() < deadline,
            "it does not come true that {what}: {partitions:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the nameservers judge a tablet offline.
async fn await_offline(client: &Client, victim: &str) -> Result<()> {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let tablets = client.admin().show_tablet().await?.tablets;
        if tablets.iter().any(|t| t.endpoint == victim && !t.healthy) {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "{victim} is not offline");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn await_ops(client: &Client) -> Result<()> {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let ops = client.admin().show_op_status("", "", None).await?.ops;
        let Some(op) = ops.iter().find(|op| op.end_time == 0) else { return Ok(()) };
        ensure!(std::time::Instant::now() < deadline, "{op:?} does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// All at once, as after a power cut.
async fn restart_tablets(cluster: &mut Cluster) -> Result<()> {
    for at in cluster.of(Role::Tablet) {
        cluster.kill(at)?;
    }
    cluster.launch_all().await
}

/// A command of the tablet's client, in the layout that the document shows.
fn tablet_client(endpoint: &str, line: &str) -> Result<String> {
    let output = Command::new(std::env::current_exe()?)
        .args([AS_STELA, "--role=client", "--interactive=false", "--layout=classic"])
        .arg(format!("--endpoint={endpoint}"))
        .arg(format!("--cmd={line}"))
        .output()?;
    Ok(String::from_utf8(output.stdout)?)
}

/// Waits until the tablet is judged offline and none of its partitions is without a serving leader.
async fn await_failover(client: &Client, victim: &str) -> Result<()> {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let shown = client.admin().show_table("drill", "flow", false).await?;
        let partitions: Vec<_> = shown.tables.iter().flat_map(|t| &t.partitions).collect();
        let done = |p: &&PartitionRow| {
            p.serving && p.replicas.iter().all(|r| r.alive == (r.endpoint != victim))
        };
        if !partitions.is_empty() && partitions.iter().all(done) {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "no failover: {partitions:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn pipe(cluster: &Cluster, lines: &str) -> Result<String> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(AS_STELA)
        .arg("--role=ns_client")
        .arg(format!("--zk_cluster={}", cluster.nameservers()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(lines.as_bytes())?;
    Ok(String::from_utf8(child.wait_with_output()?.stdout)?)
}

/// The part of `text` between the `nth` line that ends with `word` and the next prompt.
fn after(text: &str, word: &str, nth: usize) -> Option<String> {
    let at =
        text.lines().enumerate().filter(|(_, l)| l.ends_with(word)).map(|(n, _)| n).nth(nth - 1)?;
    Some(
        text.lines()
            .skip(at + 1)
            .take_while(|l| !l.contains("> "))
            .map(|l| format!("{l}\n"))
            .collect(),
    )
}

fn same(what: &str, got: &str, want: &str) -> bool {
    if got == want {
        println!("{what}: as the document has it ({} lines)", got.lines().count());
        return true;
    }
    println!("{what}: DIFFERS");
    let (got, want): (Vec<_>, Vec<_>) = (got.lines().collect(), want.lines().collect());
    for n in 0..got.len().max(want.len()) {
        let (g, w) = (got.get(n).copied().unwrap_or(""), want.get(n).copied().unwrap_or(""));
        if g == w {
            println!("    {g}");
        } else {
            println!("  - {w}\n  + {g}");
        }
    }
    false
}

fn mask(text: &str, endpoints: &mut BTreeMap<String, char>) -> String {
    let mut header: Vec<String> = Vec::new();
    let mut rows: Vec<String> = Vec::new();
    let mut before = String::new();
    let mut out = String::new();
    for line in text.lines().chain([""]) {
        let tokens: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with("------") {
            header = before.split_whitespace().map(Into::into).collect();
            out.push_str("---\n");
        } else if tokens.is_empty() || line.contains("> ") || !line.starts_with("  ") {
            if header.first().is_some_and(|h| h == "op_id") {
                rows.sort_unstable();
            }
            rows.drain(..).for_each(|row| out.extend([row.as_str(), "\n"]));
            header.clear();
            if line.is_empty() {
                continue;
            }
            let words: Vec<String> = line.split(' ').map(|t| endpoint(t, endpoints)).collect();
            let line = words.join(" ");
            let line = if line.starts_with("Welcome") {
                "Welcome to openmldb with version *"
            } else {
                line.as_str()
            };
            out.extend([line.trim_end(), "\n"]);
        } else {
            let cells: Vec<String> = tokens
                .iter()
                .enumerate()
                .map(|(at, t)| match header.get(at) {
                    Some(column) if MASKED.contains(&column.as_str()) && *t != "-" => "*".into(),
                    _ => endpoint(t, endpoints),
                })
                .collect();
            if header.is_empty() {
                out.extend([cells.join(" ").as_str(), "\n"]);
            } else {
                rows.push(cells.join(" "));
            }
        }
        before = line.into();
    }
    out
}

fn endpoint(token: &str, endpoints: &mut BTreeMap<String, char>) -> String {
    let is = token.split_once(':').is_some_and(|(ip, port)| {
        ip.split('.').count() == 4
            && ip.chars().all(|c| c.is_ascii_digit() || c == '.')
            && port.parse::<u16>().is_ok()
    });
    if !is {
        return token.into();
    }
    let next = char::from(b'A' + u8::try_from(endpoints.len()).unwrap_or(25));
    endpoints.entry(token.into()).or_insert(next).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_what_differs_and_nothing_else() {
        let text = "10.0.0.1:1 > showtable\n  name  tid  pid  endpoint    role\n------------\n  flow  4    0    10.0.0.2:1  leader\n10.0.0.1:1 > ";
        let got = mask(text, &mut BTreeMap::new());
        assert_eq!(got, "A > showtable\nname tid pid endpoint role\n---\nflow * 0 B leader\nA >\n");
    }

    #[test]
    fn sorts_ops_and_nothing_else() {
        let rows = |first: &str| format!("  {first}  pid\n-------\n  2  b\n  1  a\n");
        let masked = |first: &str| mask(&rows(first), &mut BTreeMap::new());
        assert_eq!(masked("op_id"), "op_id pid\n---\n* a\n* b\n");
        assert_eq!(masked("name"), "name pid\n---\n2 b\n1 a\n");
    }
}
