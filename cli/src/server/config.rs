//! The settings of a server, from flags.

use std::path::PathBuf;
use std::time::Duration;

use crate::flags::{FlagError, Flags};

/// The name of a cluster that nobody has named.
const CLUSTER: &str = "openmldb";
/// The lease of a tablet, ms, where none is asked for.
const LEASE: u64 = 2_000;
/// OpenMLDB's files ask for 60,000 or 300,000 ms, which there had to bridge its ZooKeeper sessions. Here a tablet that
/// is wrongly taken for dead costs a switch and nothing else, so what is longer than this is not meant for us.
const LONGEST_LEASE: u64 = 10_000;

/// What both servers must be told.
struct Common {
    endpoint: String,
    listen: Option<String>,
    nameservers: Vec<String>,
    dir: PathBuf,
    cluster: String,
}

fn common(flags: &Flags) -> Result<Common, FlagError> {
    let given = |name: &str, example: &str| match flags.text(name) {
        "" => Err(FlagError::new(format!("--{name} is missing: give it as --{name}={example}"))),
        text => Ok(text.to_owned()),
    };
    let endpoint = given("endpoint", "ip:port")?;
    let list = "a:port,b:port,c:port, the list of all nameservers";
    let list = if flags.is_given("zk_cluster") {
        format!("{list} (--zk_cluster is for clients)")
    } else {
        list.into()
    };
    given("nameservers", &list)?;
    let nameservers = flags.list("nameservers");
    let listen = Some(flags.text("listen").to_owned()).filter(|text| !text.is_empty());
    for endpoint in nameservers.iter().chain([&endpoint]).chain(&listen) {
        let well = endpoint.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0)
        });
        if !well {
            return Err(FlagError::new(format!(
                "'{endpoint}' is not ip:port; correct --endpoint, --listen and --nameservers"
            )));
        }
    }
    let dir = PathBuf::from(given("db_root_path", "a directory of its own")?);
    let cluster = flags.cluster()?.unwrap_or(CLUSTER).to_owned();
    Ok(Common { endpoint, listen, nameservers, dir, cluster })
}

/// A nameserver's.
pub(super) fn nameserver(flags: &Flags) -> Result<stela_meta::Config, FlagError> {
    let Common { endpoint, listen, nameservers, dir, cluster } = common(flags)?;
    let mut config = stela_meta::Config::new(endpoint, nameservers, dir, cluster);
    config.listen = listen;
    config.bootstrap = flags.truth("bootstrap");
    config.heartbeat_ms = flags.number("tablet_heartbeat_interval");
    config.lease_ms = lease(flags);
    Ok(config)
}

/// What an operator should know of flags that do not do what they say.
pub(super) fn notes(flags: &Flags) -> Vec<String> {
    let foreign = flags.foreign();
    let ignored = (!foreign.is_empty()).then(|| {
        format!("these flags of OpenMLDB mean nothing here and are ignored: {}", foreign.join(", "))
    });
    let asked = flags.number("tablet_heartbeat_timeout");
    let shortened = (asked > LONGEST_LEASE)
        .then(|| format!("--tablet_heartbeat_timeout={asked} is longer than {LONGEST_LEASE} ms; the lease is {LEASE} ms"));
    ignored.into_iter().chain(shortened).collect()
}

fn lease(flags: &Flags) -> u64 {
    match flags.number("tablet_heartbeat_timeout") {
        asked if asked > LONGEST_LEASE => LEASE,
        asked => asked,
    }
}

/// A tablet's.
pub(super) fn tablet(flags: &Flags) -> Result<stela_tablet::Config, FlagError> {
    let Common { endpoint, listen, nameservers, dir, cluster } = common(flags)?;
    let mut config = stela_tablet::Config::new(endpoint, nameservers, dir, cluster);
    config.listen = listen;
    let positive = |name: &str| match flags.number(name) {
        0 => Err(FlagError::new(format!("--{name}=0 is wrong: it takes a number above 0"))),
        number => Ok(number),
    };
    config.heartbeat = Duration::from_millis(positive("tablet_heartbeat_interval")?);
    config.timing.replica_lag = positive("replica_lag_ms")?;
    config.transfer_bytes_s = flags.number("snapshot_transfer_mb_s").saturating_mul(1 << 20);
    let bytes = |name: &str| Ok::<_, FlagError>(positive(name)?.saturating_mul(1 << 20));
    config.snapshots.grown = bytes("snapshot_min_log_mb")?;
    config.snapshots.every = flags.number("snapshot_every");
    config.log_keep = bytes("log_keep_mb")?;
    config.data_format = match flags.number("data_format") {
        1 => stela_tablet::config::Format::Plain,
        2 => stela_tablet::config::Format::Summed,
        other => {
            return Err(FlagError::new(format!("--data_format={other} is wrong: it takes 1 or 2")));
        }
    };
    config.snapshots.hour = match flags.number("make_snapshot_time") {
        hour @ 0..=24 => u32::try_from(hour).unwrap_or(24),
        other => {
            return Err(FlagError::new(format!(
                "--make_snapshot_time={other} is wrong: it takes an hour, or 24 for never"
            )));
        }
    };
    config.scrub = Duration::from_secs(flags.number("scrub_hours").saturating_mul(3600));
    config.disk_reserve = flags.number("disk_reserve_mb").saturating_mul(1 << 20);
    config.max_memory = flags.number("max_memory_mb").saturating_mul(1 << 20);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(args: &[&str]) -> Flags {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        crate::flags::parse(&args, |_| None).flags
    }

    const ALL: [&str; 3] =
        ["--endpoint=1.1.1.1:1", "--nameservers=1.1.1.1:1,1.1.1.2:1", "--db_root_path=/x"];

    #[test]
    fn what_a_server_must_be_told() {
        for left_out in 0..3 {
            let rest: Vec<&str> =
                ALL.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, a)| *a).collect();
            let error = nameserver(&flags(&rest)).unwrap_err().to_string();
            assert!(
                error.ends_with("is missing: give it as --endpoint=ip:port")
                    || error.contains("is missing"),
                "{error}"
            );
        }
        let error = tablet(&flags(&[ALL[0], ALL[2], "--zk_cluster=z:1"])).unwrap_err().to_string();
        assert!(
            error.contains("--nameservers is missing")
                && error.contains("--zk_cluster is for clients"),
            "{error}"
        );
        let error = tablet(&flags(&["--endpoint=x", ALL[1], ALL[2]])).unwrap_err().to_string();
        assert_eq!(error, "'x' is not ip:port; correct --endpoint, --listen and --nameservers");
    }

    #[test]
    fn the_cluster_and_the_lease() {
        let with = |more: &[&str]| nameserver(&flags(&[&ALL[..], more].concat())).unwrap();
        let config = with(&[]);
        assert_eq!(
            (config.cluster.as_str(), config.lease_ms, config.bootstrap),
            ("openmldb", 2_000, false)
        );
        let config = with(&["--zk_root_path=/a", "--tablet_heartbeat_timeout=5000", "--bootstrap"]);
        assert_eq!(
            (config.cluster.as_str(), config.lease_ms, config.bootstrap),
            ("a", 5_000, true)
        );
        // As in OpenMLDB's own files.
        assert_eq!(with(&["--tablet_heartbeat_timeout=60000"]).lease_ms, 2_000);
        let notes = notes(&flags(&[
            "--tablet_heartbeat_timeout=60000",
            "--gc_interval=60",
            "--auto_failover",
        ]));
        assert_eq!(
            notes[0],
            "these flags of OpenMLDB mean nothing here and are ignored: auto_failover, gc_interval"
        );
        assert_eq!(
            notes[1],
            "--tablet_heartbeat_timeout=60000 is longer than 10000 ms; the lease is 2000 ms"
        );
        let error =
            tablet(&flags(&[&ALL[..], &["--replica_lag_ms=0"]].concat())).unwrap_err().to_string();
        assert!(error.starts_with("--replica_lag_ms=0 is wrong"));
    }
}
