//! Asking the nameserver that controls for what only it knows.
//!
//! Invariant: a request is forwarded once: who gets a forwarded one answers or refuses.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use stela_common::code::{Code, Refusal};
use stela_proto::nameserver::nameserver_client::NameserverClient;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// Marks a forwarded request.
const FORWARDED: &str = "stela-forwarded";
/// The leader's own longest deadline, for an unclean election, and a little.
const PATIENCE: Duration = Duration::from_secs(30);
/// Rows of many tables.
const REPLY: usize = 64 << 20;

/// Connections to other nameservers, kept.
#[derive(Default)]
pub(super) struct Forward(Mutex<BTreeMap<String, NameserverClient<Channel>>>);

impl Forward {
    /// Was it forwarded here?
    pub(super) fn is_forwarded<T>(request: &Request<T>) -> bool {
        request.metadata().contains_key(FORWARDED)
    }

    /// Asks that nameserver.
    pub(super) async fn ask<T, R, A>(
        &self,
        to: &str,
        request: T,
        call: impl FnOnce(NameserverClient<Channel>, Request<T>) -> A,
    ) -> Result<R, Refusal>
    where
        A: Future<Output = Result<tonic::Response<R>, tonic::Status>>,
    {
        let client = self.client(to)?;
        let mut request = Request::new(request);
        request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
        request.set_timeout(PATIENCE);
        let unreachable = |e: tonic::Status| {
            Refusal::new(
                Code::NotLeader,
                format!(
                    "{}, and the leader {to} does not answer: {}",
                    Code::NotLeader.text(),
                    e.message()
                ),
            )
        };
        Ok(call(client, request).await.map_err(unreachable)?.into_inner())
    }

    fn client(&self, to: &str) -> Result<NameserverClient<Channel>, Refusal> {
        let mut clients = self.0.lock();
        if let Some(client) = clients.get(to) {
            return Ok(client.clone());
        }
        let address = Endpoint::from_shared(format!("http://{to}"))
            .map_err(|e| Refusal::new(Code::NotLeader, e.to_string()))?;
        let channel = address
            .connect_timeout(Duration::from_millis(500))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(1))
            .connect_lazy();
        let client = NameserverClient::new(channel).max_decoding_message_size(REPLY);
        clients.insert(to.to_owned(), client.clone());
        Ok(client)
    }
}
