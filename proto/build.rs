#![allow(clippy::disallowed_methods)]
//! Compiles the protobuf definitions with a compiler written in Rust: no `protoc` has to be installed.
use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["common", "nameserver", "heartbeat", "replication", "tablet", "raft"]
        .map(|f| format!("{f}.proto"));
    let set = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptor.bin"), set.encode_to_vec())?;
    // A service that answers only some calls is a test's; the servers' own calls are each shown by a test on real processes.
    tonic_prost_build::configure().generate_default_stubs(true).bytes(".").compile_fds(set)?;
    Ok(())
}
