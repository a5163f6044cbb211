//! The wire of Stela: messages and services as protobuf defines them, generated at build time.
//!
//! Invariants: nothing here has behaviour, and no other crate keeps these types in its state: they are turned
//! into the types of `stela_common` where they arrive.
#![allow(missing_docs, clippy::all)]

macro_rules! package {
    ($name:ident, $package:literal) => {
        pub mod $name {
            tonic::include_proto!($package);
        }
    };
}

package!(common, "stela.common");
package!(nameserver, "stela.nameserver");
package!(heartbeat, "stela.heartbeat");
package!(replication, "stela.replication");
package!(tablet, "stela.tablet");
package!(raft, "stela.raft");
