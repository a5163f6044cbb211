//! The nameserver: a member of the one Raft group that holds all metadata, and the loops that act on it where it leads.
//!
//! * [`config`], [`error`], [`identity`]: how it is started, why it does not start, whose directory it has.
//! * [`raft`]: the group itself: log, state machine, network, proposals, reads. The only place that names the Raft
//!   library and sled.
//! * [`founding`]: how an empty directory becomes a member. [`run`](mod@run): from a directory to a nameserver that serves.
//! * [`group`]: what all others see of it.
//! * [`probe`]: the handshake with a tablet's port. [`control`]: what the nameserver that leads does about the tablets. [`service`]: what clients and tablets ask; [`http`]: what tools post as JSON.

pub mod config;
pub mod control;
pub mod error;
pub mod founding;
pub mod group;
pub mod http;
pub mod identity;
pub mod probe;
pub mod raft;
pub mod run;
pub mod service;

pub use config::{Config, RaftConfig};
pub use error::StartError;
pub use group::{Group, Leadership, NotLeading, ProposeError};
pub use run::run;
