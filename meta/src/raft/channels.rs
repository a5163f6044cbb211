//! Connections to other nameservers, each made once.
//!
//! **Invariants**
//! * One connection per endpoint and lane, shared by all that talk to it: the library asks for a new client at every
//!   read (O3). Snapshots have a lane of their own, so that heartbeats never wait behind them.
//! * A connection is made when there is something to say and made again when it broke. A peer that is half gone is
//!   noticed by keep-alives.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stela_proto::raft::raft_client::RaftClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// The longest message between nameservers (O19).
pub const MESSAGE: usize = 64 << 20;
const CONNECT: Duration = Duration::from_millis(300);
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(1);

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lane {
    /// Short messages.
    Talk,
    /// Snapshots.
    Bulk,
}

/// The connections of this process. A clone shares them.
#[derive(Clone, Default)]
pub struct Channels {
    made: Arc<Mutex<HashMap<(String, Lane), Channel>>>,
}

impl Channels {
    /// A client of the nameserver at `endpoint`.
    ///
    /// # Errors
    /// The endpoint is no address.
    pub fn client(&self, endpoint: &str, lane: Lane) -> Result<RaftClient<Channel>, Status> {
        let mut made = self.made.lock();
        let channel = match made.get(&(endpoint.to_owned(), lane)) {
            Some(channel) => channel.clone(),
            None => {
                let channel = Endpoint::from_shared(format!("http://{endpoint}"))
                    .map_err(|e| {
                        Status::invalid_argument(format!("'{endpoint}' is no address: {e}"))
                    })?
                    .connect_timeout(CONNECT)
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(KEEP_ALIVE)
                    .keep_alive_timeout(KEEP_ALIVE_ANSWER)
                    .keep_alive_while_idle(true)
                    .connect_lazy();
                made.insert((endpoint.to_owned(), lane), channel.clone());
                channel
            }
        };
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE)
            .max_encoding_message_size(MESSAGE))
    }
}
