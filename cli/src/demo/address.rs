//! An address of its own for each demo, so that its ports collide with nobody's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, bail};

/// The ports of the nameservers and of the tablets: the usual ones.
pub(super) const NAMESERVERS: [u16; 3] = [6527, 6528, 6529];
pub(super) const TABLETS: [u16; 3] = [9527, 9528, 9529];

/// An address in 127.0.0.0/8 on which all these ports are free.
pub(super) fn free() -> Result<IpAddr> {
    let mut last = None;
    for _ in 0..20 {
        let [a, b, c]: [u8; 3] = rand::random();
        let ip = IpAddr::V4(Ipv4Addr::new(127, a.clamp(1, 254), b, c.clamp(2, 254)));
        match is_free(ip) {
            Ok(()) => return Ok(ip),
            Err(error) => last = Some(error),
        }
    }
    let why = last.map_or_else(String::new, |e| format!(" ({e})"));
    bail!(
        "no loopback address with free ports 6527-6529 and 9527-9529{why}: stop what listens there on all addresses"
    )
}

fn is_free(ip: IpAddr) -> std::io::Result<()> {
    for port in NAMESERVERS.into_iter().chain(TABLETS) {
        TcpListener::bind(SocketAddr::new(ip, port))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_seen() {
        let ip = free().unwrap();
        let _taken = TcpListener::bind(SocketAddr::new(ip, TABLETS[2])).unwrap();
        assert!(is_free(ip).is_err());
        assert!(free().is_ok());
    }
}
