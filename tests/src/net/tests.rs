//! The proxies themselves.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::*;

const A: Party = Party::Clients(1);
const S: Party = Party::Server(0);

/// A server that sends back what it gets, and a client's connection to it through a proxy.
struct Echo {
    net: Net,
    public: SocketAddr,
}

impl Echo {
    fn new() -> Self {
        let real = TcpListener::bind("127.0.0.1:0").unwrap();
        let real_at = real.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in real.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while let Ok(n @ 1..) = stream.read(&mut bytes) {
                        if stream.write_all(&bytes[..n]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        // A port that is free: it was just given back.
        let public = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let net = Net::start().unwrap();
        net.place(0, public, real_at);
        net.clients("127.0.0.1".parse().unwrap(), 1);
        net.up(0, 0);
        Self { net, public }
    }

    fn connect(&self) -> TcpStream {
        let began = std::time::Instant::now();
        let stream = loop {
            match TcpStream::connect(self.public) {
                Ok(stream) => break stream,
                Err(e) => assert!(began.elapsed() < Duration::from_secs(20), "{e}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        stream
    }
}

/// What comes back within the stream's patience.
fn heard(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = [0; 64];
    stream.read(&mut bytes).map(|n| bytes[..n].to_vec())
}

/// Waits until that comes back.
fn hear(stream: &mut TcpStream, wanted: &[u8]) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut bytes = vec![0; wanted.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, wanted);
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
}

#[test]
fn what_is_held_in_either_direction_arrives_when_the_link_heals() {
    let echo = Echo::new();
    let mut stream = echo.connect();
    stream.write_all(b"one").unwrap();
    hear(&mut stream, b"one");
    for direction in [(A, S), (S, A)] {
        echo.net.set([(direction, Flow::Hold)]);
        stream.write_all(b"two").unwrap();
        assert!(heard(&mut stream).is_err(), "{direction:?} is held");
        echo.net.heal();
        hear(&mut stream, b"two");
    }
}

#[test]
fn a_connection_that_is_opened_on_a_held_link_hangs_and_then_works() {
    let echo = Echo::new();
    echo.net.set(between(&[A], &[S], Flow::Hold));
    let mut stream = echo.connect();
    stream.write_all(b"late").unwrap();
    assert!(heard(&mut stream).is_err());
    echo.net.heal();
    hear(&mut stream, b"late");
}

#[test]
fn a_cut_ends_connections_and_refuses_new_ones_until_it_heals() {
    let echo = Echo::new();
    let mut stream = echo.connect();
    stream.write_all(b"x").unwrap();
    hear(&mut stream, b"x");
    echo.net.set([((A, S), Flow::Cut)]);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(
        matches!(heard(&mut stream), Ok(bytes) if bytes.is_empty()) || heard(&mut stream).is_err()
    );
    let mut new = echo.connect();
    new.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(heard(&mut new).map_or(true, |bytes| bytes.is_empty()));
    echo.net.heal();
    let mut again = echo.connect();
    again.write_all(b"y").unwrap();
    hear(&mut again, b"y");
}

#[test]
fn a_late_link_keeps_the_order_and_takes_its_time() {
    let echo = Echo::new();
    let mut stream = echo.connect();
    echo.net.set([((A, S), Flow::Late(Duration::from_millis(300)))]);
    let began = std::time::Instant::now();
    stream.write_all(b"a").unwrap();
    stream.write_all(b"b").unwrap();
    hear(&mut stream, b"ab");
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn the_port_of_a_server_that_is_down_refuses() {
    let echo = Echo::new();
    echo.net.down(0);
    let refused = TcpStream::connect(echo.public).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    echo.net.up(0, 0);
    let mut stream = echo.connect();
    stream.write_all(b"again").unwrap();
    hear(&mut stream, b"again");
}

/// Without a source of its own a client is told by its process.
#[test]
fn a_process_is_found_by_its_socket() {
    let real = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(real.local_addr().unwrap()).unwrap();
    let net = Net::start().unwrap();
    assert_eq!(net.shared.who(near.local_addr().unwrap()), Some(Party::Clients(0)));
    net.shared.pids.lock().insert(3, std::process::id());
    assert_eq!(net.shared.who(near.local_addr().unwrap()), Some(Party::Server(3)));
    assert_eq!(net.shared.who("127.0.0.1:1".parse().unwrap()), None);
}
