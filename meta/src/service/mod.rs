//! What this nameserver answers on its port, beside the group's own calls.
//!
//! * `nameserver`: what clients ask; any nameserver answers. `manual`: what operators decide, `orders`: what they order. `show`: the rows of `showtable`; `forward`: asking the
//!   nameserver that has them.
//! * `registry`: what tablets say to the one that controls.

mod forward;
mod manual;
mod nameserver;
mod orders;
mod registry;
mod show;

use std::sync::Arc;

use stela_common::table::limits;
use stela_proto::heartbeat::registry_server::RegistryServer;
use stela_proto::nameserver::nameserver_server::NameserverServer;

pub use self::nameserver::Answers;
pub use self::registry::Desk;
use crate::control::Control;
use crate::group::Group;

/// The longest message of a client: a table's definition fits many times.
const FROM_CLIENTS: usize = limits::REQUEST;
/// The longest message of a tablet: an inventory of a hundred thousand replicas and more.
const FROM_TABLETS: usize = 64 << 20;

/// What clients are answered, over gRPC and over HTTP.
#[must_use]
pub fn answers(group: Group, control: Arc<Control>) -> Arc<Answers> {
    Arc::new(Answers::new(group, control))
}

/// The service that clients use.
#[must_use]
pub fn nameserver(answers: Arc<Answers>) -> NameserverServer<Answers> {
    NameserverServer::from_arc(answers).max_decoding_message_size(FROM_CLIENTS)
}

/// The service that tablets use.
#[must_use]
pub fn registry(group: Group, control: Arc<Control>) -> RegistryServer<Desk> {
    RegistryServer::new(Desk::new(group, control)).max_decoding_message_size(FROM_TABLETS)
}
