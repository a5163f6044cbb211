//! Who opened a connection: a client by where it comes from, a server by the process that owns the socket.

use std::net::SocketAddr;

use stela_common::fs;

use super::{Party, Shared};

impl Shared {
    /// The party behind a connection from that address; `None`: nobody of this cluster, or gone already.
    pub(super) fn who(&self, from: SocketAddr) -> Option<Party> {
        if let Some(group) = self.sources.lock().get(&from.ip()) {
            return Some(Party::Clients(*group));
        }
        let link = format!("socket:[{}]", inode(from)?);
        let pids = self.pids.lock().clone();
        let owns = |pid: &u32| {
            fs::read_dir(format!("/proc/{pid}/fd")).unwrap_or_default().iter().any(|fd| {
                rustix::fs::readlink(fd, Vec::new())
                    .is_ok_and(|target| target.as_bytes() == link.as_bytes())
            })
        };
        let server = pids.iter().find(|(_, pid)| owns(pid)).map(|(server, _)| *server);
        // A process of this harness without a source of its own is of the first group.
        server.map(Party::Server).or_else(|| owns(&std::process::id()).then_some(Party::Clients(0)))
    }
}

/// The kernel's number of the socket that is bound to that address and connected.
fn inode(at: SocketAddr) -> Option<String> {
    let SocketAddr::V4(at) = at else { return None };
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(at.ip().octets()), at.port());
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let found = fields.next() == Some(&local);
        found.then(|| fields.nth(7).map(str::to_owned)).flatten().filter(|inode| inode != "0")
    })
}
