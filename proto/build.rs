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
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    Ok(())
}
