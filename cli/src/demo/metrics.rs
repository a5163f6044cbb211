//! This machine's own metrics, read live from `/proc`.
//!
//! A metric is a name and a number: `cpu.all.user_seconds`, `memory.MemFree_bytes`, `server.tablet2.resident_bytes`. What
//! the kernel counts since boot is stored as it counts it. A file that is not there is passed over: containers hide some.
//! The parsers take text and know no file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stela_common::clock::wall_ms;
use stela_common::fs;
use tokio::sync::watch;

use super::cluster::Processes;

/// A metric and its value.
pub(super) type Metric = (String, f64);
type Parser = fn(&str, &mut Vec<Metric>);

/// Between two samples: so often a second.
pub(super) const PER_SECOND: u64 = 50;
/// The unit of `/proc`'s CPU times: 10 ms on every architecture that this runs on (`USER_HZ`).
const TICK: f64 = 0.01;
/// The unit of `/proc/diskstats`, whatever the disk's own is.
const SECTOR: f64 = 512.0;

/// All metrics at one moment.
#[derive(Debug)]
pub(super) struct Sample {
    /// Milliseconds since 1970; grows from sample to sample.
    pub(super) at: u64,
    pub(super) values: Vec<Metric>,
}

/// Samples the machine until nobody listens any more. The first sample is there when this returns.
pub(super) fn sample(
    processes: watch::Receiver<Processes>,
) -> Result<watch::Receiver<Arc<Sample>>> {
    let first = Sample { at: wall_ms(), values: read(&processes.borrow()) };
    ensure!(
        !first.values.is_empty(),
        "nothing can be read from /proc: the demo stores what this machine tells there"
    );
    let mut last = first.at;
    let (sender, receiver) = watch::channel(Arc::new(first));
    let run = move || {
        while !sender.is_closed() {
            let began = Instant::now();
            let at = wall_ms();
            // A clock that was set back, or a millisecond that is not over, would name a row twice.
            if at > last {
                last = at;
                let running = processes.borrow().clone();
                sender.send_replace(Arc::new(Sample { at, values: read(&running) }));
            }
            std::thread::sleep(
                Duration::from_millis(1000 / PER_SECOND).saturating_sub(began.elapsed()),
            );
        }
    };
    std::thread::Builder::new()
        .name("stela-metrics".into())
        .spawn(run)
        .context("cannot start a thread")?;
    Ok(receiver)
}

fn read(processes: &Processes) -> Vec<Metric> {
    let mut metrics = Vec::with_capacity(512);
    let files: [(&str, Parser); 6] = [
        ("/proc/stat", cpu),
        ("/proc/meminfo", memory),
        ("/proc/loadavg", load),
        ("/proc/diskstats", disk),
        ("/proc/net/dev", net),
        ("/proc/vmstat", vm),
    ];
    for (file, parse) in files {
        if let Ok(text) = fs::read_to_string(file) {
            parse(&text, &mut metrics);
        }
    }
    for (name, pid) in processes {
        let file = |file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        process(name, &file("stat"), &file("status"), &mut metrics);
    }
    metrics
}

fn cpu(text: &str, out: &mut Vec<Metric>) {
    const STATES: [&str; 8] =
        ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(word) = words.next() else { continue };
        if let Some(number) = word.strip_prefix("cpu") {
            let which = if number.is_empty() { "all" } else { number };
            for (state, ticks) in STATES.into_iter().zip(numbers(words)) {
                out.push((format!("cpu.{which}.{state}_seconds"), ticks * TICK));
            }
            continue;
        }
        let name = match word {
            "intr" => "interrupts",
            "ctxt" => "context_switches",
            "processes" => "forks",
            "procs_running" => "running",
            "procs_blocked" => "blocked",
            _ => continue,
        };
        out.extend(numbers(words).next().map(|value| (format!("kernel.{name}"), value)));
    }
}

fn memory(text: &str, out: &mut Vec<Metric>) {
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let name = name.replace('(', "_").replace(')', "");
        let mut words = rest.split_ascii_whitespace();
        let Some(value) = words.next().and_then(|v| v.parse::<f64>().ok()) else { continue };
        match words.next() {
            Some("kB") => out.push((format!("memory.{name}_bytes"), value * 1024.0)),
            _ => out.push((format!("memory.{name}"), value)),
        }
    }
}

fn load(text: &str, out: &mut Vec<Metric>) {
    for (name, value) in ["1m", "5m", "15m"].into_iter().zip(numbers(text.split_ascii_whitespace()))
    {
        out.push((format!("load.{name}"), value));
    }
}

fn disk(text: &str, out: &mut Vec<Metric>) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace().skip(2);
        let Some(device) = words.next() else { continue };
        let n: Vec<f64> = numbers(words).collect();
        // A device that has never been used has nothing to tell.
        if n.len() < 11 || n.iter().all(|v| *v == 0.0) {
            continue;
        }
        for (name, value) in [
            ("reads", n[0]),
            ("read_bytes", n[2] * SECTOR),
            ("writes", n[4]),
            ("written_bytes", n[6] * SECTOR),
            ("busy_seconds", n[9] / 1000.0),
        ] {
            out.push((format!("disk.{device}.{name}"), value));
        }
    }
}

fn net(text: &str, out: &mut Vec<Metric>) {
    for line in text.lines() {
        let Some((interface, rest)) = line.split_once(':') else { continue };
        let interface = interface.trim();
        let n: Vec<f64> = numbers(rest.split_ascii_whitespace()).collect();
        if n.len() < 16 || n.iter().all(|v| *v == 0.0) {
            continue;
        }
        for (name, value) in [
            ("received_bytes", n[0]),
            ("received_packets", n[1]),
            ("sent_bytes", n[8]),
            ("sent_packets", n[9]),
        ] {
            out.push((format!("net.{interface}.{name}"), value));
        }
    }
}

fn vm(text: &str, out: &mut Vec<Metric>) {
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(' ') {
            out.extend(value.trim().parse().ok().map(|value| (format!("vm.{name}"), value)));
        }
    }
}

/// `/proc/PID/stat` and `/proc/PID/status` of one of the demo's servers.
fn process(name: &str, stat: &str, status: &str, out: &mut Vec<Metric>) {
    let mut metric = |what: &str, value: f64| out.push((format!("server.{name}.{what}"), value));
    // The program's name is in brackets and may hold anything.
    if let Some((_, rest)) = stat.rsplit_once(')') {
        let n: Vec<f64> = rest.split_ascii_whitespace().map(|w| w.parse().unwrap_or(0.0)).collect();
        if n.len() > 17 {
            metric("page_faults", n[7] + n[9]);
            metric("cpu_seconds", (n[11] + n[12]) * TICK);
            metric("threads", n[17]);
        }
    }
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"));
    if let Some(kib) = resident.and_then(|kib| kib.trim().parse::<f64>().ok()) {
        metric("resident_bytes", kib * 1024.0);
    }
}

/// The numbers up to the first word that is none.
fn numbers<'a>(words: impl Iterator<Item = &'a str>) -> impl Iterator<Item = f64> {
    words.map_while(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(parse: impl Fn(&mut Vec<Metric>)) -> Vec<Metric> {
        let mut out = Vec::new();
        parse(&mut out);
        out
    }

    fn value(metrics: &[Metric], name: &str) -> Option<f64> {
        metrics.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }

    #[test]
    fn cpu_times_are_seconds() {
        let text = "cpu  38808 0 6307 97850 299 0 34 53 0 0\ncpu0 19082 0 2751 49758 50 0 7 24 0 0\n\
                    intr 260459 0 0 9\nctxt 332140\nbtime 1795590084\nprocesses 13321\nprocs_running 1\nprocs_blocked 0\n";
        let m = parsed(|out| cpu(text, out));
        assert_eq!(value(&m, "cpu.all.user_seconds"), Some(388.08));
        assert_eq!(value(&m, "cpu.0.steal_seconds"), Some(0.24));
        assert_eq!(value(&m, "kernel.interrupts"), Some(260_459.0));
        assert_eq!(value(&m, "kernel.running"), Some(1.0));
        assert_eq!(m.len(), 8 + 8 + 5);
    }

    #[test]
    fn memory_is_bytes_where_the_kernel_says_kb() {
        let m = parsed(|out| {
            memory(
                "MemFree:        23576008 kB\nActive(anon):  12 kB\nHugePages_Total:    3\nodd\n",
                out,
            )
        });
        assert_eq!(value(&m, "memory.MemFree_bytes"), Some(23_576_008.0 * 1024.0));
        assert_eq!(value(&m, "memory.Active_anon_bytes"), Some(12.0 * 1024.0));
        assert_eq!(value(&m, "memory.HugePages_Total"), Some(3.0));
        assert_eq!(m.len(), 3);
    }

    #[test]
    fn load_disk_and_net() {
        let m = parsed(|out| load("0.04 0.39 0.34 1/94 13321\n", out));
        assert_eq!(
            m,
            [("load.1m".into(), 0.04), ("load.5m".into(), 0.39), ("load.15m".into(), 0.34)]
        );

        let text = "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n 254       0 vda 10 1 80 3 20 2 160 4 0 1500 7 0 0 0 0 0 0\n";
        let m = parsed(|out| disk(text, out));
        assert_eq!(value(&m, "disk.vda.reads"), Some(10.0));
        assert_eq!(value(&m, "disk.vda.read_bytes"), Some(80.0 * 512.0));
        assert_eq!(value(&m, "disk.vda.written_bytes"), Some(160.0 * 512.0));
        assert_eq!(value(&m, "disk.vda.busy_seconds"), Some(1.5));
        assert_eq!(m.len(), 5);

        let text = "Inter-|   Receive  |  Transmit\n face |bytes    packets errs|bytes    packets\n\
                    ifb0:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n\
                    eth0: 59004157    2679    0    0    0     0          0         0   146987    1306    0    0    0     0       0          0\n";
        let m = parsed(|out| net(text, out));
        assert_eq!(value(&m, "net.eth0.received_bytes"), Some(59_004_157.0));
        assert_eq!(value(&m, "net.eth0.sent_packets"), Some(1306.0));
        assert_eq!(m.len(), 4);
    }

    #[test]
    fn a_process_with_an_odd_name_is_read() {
        let stat = "13328 (st) e(la) R 13314 13314 7925 0 -1 4194304 99 0 1 0 250 50 0 0 20 0 7 0 71976 3133440 371";
        let status = "Name:\tstela\nVmRSS:\t    2048 kB\nThreads:\t7\n";
        let m = parsed(|out| process("tablet2", stat, status, out));
        assert_eq!(value(&m, "server.tablet2.cpu_seconds"), Some(3.0));
        assert_eq!(value(&m, "server.tablet2.page_faults"), Some(100.0));
        assert_eq!(value(&m, "server.tablet2.threads"), Some(7.0));
        assert_eq!(value(&m, "server.tablet2.resident_bytes"), Some(2_097_152.0));
        assert!(parsed(|out| process("gone", "", "", out)).is_empty());
    }

    #[test]
    fn vmstat_is_taken_as_it_is() {
        let m = parsed(|out| vm("nr_free_pages 1417253\npgfault 12\nodd\n", out));
        assert_eq!(m, [("vm.nr_free_pages".into(), 1_417_253.0), ("vm.pgfault".into(), 12.0)]);
    }

    #[test]
    fn names_are_unique_and_this_machine_has_some() {
        let here = read(&vec![("demo".into(), std::process::id())]);
        let names: std::collections::BTreeSet<_> = here.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), here.len());
        assert!(here.iter().any(|(name, _)| name == "server.demo.resident_bytes"));
        assert!(here.iter().any(|(name, _)| name.starts_with("cpu.all.")));
    }

    #[test]
    fn samples_have_growing_times_and_end_when_nobody_listens() {
        let (processes, receiver) = watch::channel(Processes::new());
        let mut samples = sample(receiver).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut last = samples.borrow_and_update().at;
            for _ in 0..3 {
                samples.changed().await.unwrap();
                let at = samples.borrow_and_update().at;
                assert!(at > last);
                last = at;
            }
            drop(samples);
            // The thread has the only receiver of the list of processes.
            tokio::time::timeout(Duration::from_secs(10), processes.closed()).await.unwrap();
        });
    }
}
