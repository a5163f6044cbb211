//! R19: asking another nameserver whether it reaches tablets that this one does not hear.
//!
//! Invariant: only tablets that are registered are looked for, at the addresses that the own state has.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, FuturesUnordered};
use stela_common::ids::{Incarnation, TabletId};
use stela_proto::raft as pb;
use tonic::Request;

use super::channels::Lane;
use super::seat::Seat;
use crate::probe::{Found, probe};

/// A nameserver that is there has looked by then: a handshake takes 400 ms at most.
const ANSWER: Duration = Duration::from_millis(1000);
/// Handshakes at a time.
const AT_ONCE: usize = 256;

impl Seat {
    /// See [`Group::reached_by_another`](crate::Group::reached_by_another).
    pub(crate) async fn reached_by_another(&self, tablets: &BTreeSet<TabletId>) -> Option<bool> {
        let tablets: Vec<u32> = tablets.iter().map(|t| t.0).collect();
        let ask = |(endpoint, from): (String, pb::Identity)| {
            let tablets = tablets.clone();
            async move {
                let mut client = self.channels().client(&endpoint, Lane::Talk).ok()?;
                let mut request = Request::new(pb::ReachRequest { from: Some(from), tablets });
                request.set_timeout(ANSWER);
                let answer = tokio::time::timeout(ANSWER, client.reach(request)).await;
                answer.ok()?.ok().map(|reply| reply.into_inner().reached)
            }
        };
        let mut answers: FuturesUnordered<_> = self.others().into_iter().map(ask).collect();
        while let Some(answer) = answers.next().await {
            if answer.is_some() {
                return answer;
            }
        }
        None
    }

    /// Does any of these tablets answer here?
    pub(super) async fn reaches(&self, tablets: &[u32]) -> bool {
        let asked: BTreeSet<TabletId> = tablets.iter().map(|t| TabletId(*t)).collect();
        let known: Vec<(String, Incarnation)> = self.store().read(|state| {
            let known = asked.iter().filter_map(|t| state.tablets.get(t));
            known.map(|t| (t.endpoint.clone(), t.incarnation)).collect()
        });
        let looks = known
            .into_iter()
            .map(|(endpoint, run)| async move { probe(&endpoint, run).await == Found::There });
        let mut found = stream::iter(looks).buffer_unordered(AT_ONCE);
        while let Some(there) = found.next().await {
            if there {
                return true;
            }
        }
        false
    }
}
