//! How much memory and disk there is, and what is stored for it.
//!
//! What counts against `max_memory_mb` is the indexes: values are pages of mapped files, which the kernel takes back when
//! it needs them. **Invariants**
//! * With indexes above the limit, puts are refused ([`Code::MemoryFull`](stela_common::code::Code::MemoryFull)); reads,
//!   deletions and the sweep go on, so that it recovers by itself.
//! * With less disk than `disk_reserve_mb`, puts are refused, too ([`Code::DiskFull`](stela_common::code::Code::DiskFull)):
//!   what is left is for snapshots, which make the log shorter, and for what may not fail.
//! * While files are larger than what memory is left for them a read may wait for a disk, and is not done where others
//!   wait behind it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stela_common::fs;

use crate::node::Node;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);

/// Bytes that this process may use: what the machine has, or its control group allows.
fn available() -> u64 {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|info| total(&info));
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|own| group(&own));
    let allowed = group.map_or(u64::MAX, |group| allowed(&group));
    total.unwrap_or(u64::MAX).min(allowed)
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The directory of the control group (version 2) in `/proc/self/cgroup`.
fn group(own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new("/sys/fs/cgroup").join(path))
}

/// The smallest limit of a group and those that it is in.
fn allowed(group: &Path) -> u64 {
    let limit = |dir: &Path| fs::read_to_string(dir.join("memory.max")).ok()?.trim().parse().ok();
    group.ancestors().filter_map(limit).min().unwrap_or(u64::MAX)
}

/// Looks whether it fits, until the node stops.
pub async fn watch(node: Arc<Node>) {
    let most = match node.config.max_memory {
        0 => u64::MAX,
        most => most,
    };
    let available = available();
    loop {
        let (mut indexes, mut files) = (0, 0);
        for p in node.look().partitions.values() {
            indexes += p.store.memory();
            files += p.store.disk();
        }
        let free = fs::free_bytes(node.files.log_dir()).map_or(u64::MAX, |(free, _)| free);
        let (short, reserve) = (free < node.config.disk_reserve, node.config.disk_reserve);
        if node.short.swap(short, Ordering::Relaxed) != short {
            tracing::warn!(
                free,
                reserve,
                short,
                "disk_reserve_mb: puts are refused, or taken again"
            );
        }
        let full = indexes > most;
        if node.full.swap(full, Ordering::Relaxed) != full {
            tracing::warn!(indexes, most, full, "max_memory_mb: puts are refused, or taken again");
        }
        node.cold.store(indexes + files > available / 2, Ordering::Relaxed);
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_counts() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       24 kB\n"), Some(24 << 10));
        assert_eq!(total("MemTotal: much"), None);
        assert_eq!(group("1:cpu:/a\n0::/b/c\n"), Some("/sys/fs/cgroup/b/c".into()));
        assert_eq!(group("1:cpu:/a\n"), None);
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir_all(&fs::Disk::real(), &inner).unwrap();
        assert_eq!(allowed(&inner), u64::MAX);
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        fs::write(dir.path().join("memory.max"), "4096\n").unwrap();
        assert_eq!(allowed(&inner), 4096);
        assert!(available() > 1 << 20);
    }
}
