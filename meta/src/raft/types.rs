//! The types that the Raft library is instantiated with.
//!
//! A command travels and is stored as the bytes that its proposer encoded; whoever decodes them keeps the result beside
//! them, so that each nameserver encodes or decodes a batch once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use stela_meta_state::command::{Batch, Reply};
use stela_meta_state::state::State;

openraft::declare_raft_types!(
    /// The instantiation of the Raft library.
    pub TypeConfig:
        D = Payload,
        R = Vec<Reply>,
        NodeId = u64,
        Node = Peer,
        SnapshotData = Image,
);

/// The id of an entry.
pub type LogId = openraft::LogId<u64>;
/// A vote.
pub type Vote = openraft::Vote<u64>;
/// An entry.
pub type Entry = openraft::Entry<TypeConfig>;
/// A membership.
pub type Membership = openraft::Membership<u64, Peer>;
/// A membership and the entry that set it.
pub type StoredMembership = openraft::StoredMembership<u64, Peer>;
/// What a snapshot holds.
pub type SnapshotMeta = openraft::SnapshotMeta<u64, Peer>;
/// A snapshot.
pub type Snapshot = openraft::Snapshot<TypeConfig>;
/// An error of the storage: ends the process (O15).
pub type StorageError = openraft::StorageError<u64>;
/// The running group member.
pub type Raft = openraft::Raft<TypeConfig>;
/// What the library tells of itself.
pub type Metrics = openraft::RaftMetrics<u64, Peer>;

/// A nameserver as the group knows it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    /// Where it is reached.
    pub endpoint: String,
    /// Its directory (O13).
    pub dir_uuid: String,
}

/// A batch of commands: its bytes and, once somebody looked, what they say.
#[derive(Clone)]
pub struct Payload {
    bytes: Bytes,
    batch: Option<Arc<Batch>>,
    logged: Option<Logged>,
}

/// Whether a payload has come into the log of its proposer. As long as it has not, it can never take effect; once it
/// has, somebody may commit it, whatever the library answers.
#[derive(Clone, Default, Debug)]
pub struct Logged(Arc<AtomicBool>);

impl Logged {
    /// Has it?
    #[must_use]
    pub fn is(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Payload {
    /// Encodes a batch.
    ///
    /// # Errors
    /// What the encoder says.
    pub fn encode(batch: Batch) -> Result<Self, String> {
        let bytes = rmp_serde::to_vec_named(&batch).map_err(|e| e.to_string())?;
        Ok(Self { bytes: bytes.into(), batch: Some(Arc::new(batch)), logged: None })
    }

    /// Decodes what a peer sent or the log holds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: Bytes) -> Result<Self, String> {
        let batch = rmp_serde::from_slice(&bytes).map_err(|e| e.to_string())?;
        Ok(Self { bytes, batch: Some(Arc::new(batch)), logged: None })
    }

    /// Bytes that are not looked at yet.
    #[must_use]
    pub fn raw(bytes: Bytes) -> Self {
        Self { bytes, batch: None, logged: None }
    }

    /// From now on the mark tells whether it has come into the log.
    pub fn mark(&mut self) -> Logged {
        self.logged.get_or_insert_default().clone()
    }

    /// It comes into the log now.
    pub fn set_logged(&self) {
        if let Some(logged) = &self.logged {
            logged.0.store(true, Ordering::Release);
        }
    }

    /// The encoded bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The batch.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn batch(&self) -> Result<Arc<Batch>, String> {
        match &self.batch {
            Some(batch) => Ok(batch.clone()),
            None => rmp_serde::from_slice(&self.bytes).map(Arc::new).map_err(|e| e.to_string()),
        }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.batch() {
            Ok(batch) => batch.fmt(f),
            Err(e) => write!(f, "{} bytes ({e})", self.bytes.len()),
        }
    }
}

/// The whole state, as a snapshot carries it: its bytes and, once somebody looked, what they say.
#[derive(Clone, Default)]
pub struct Image {
    /// The encoded state.
    pub bytes: Bytes,
    /// The decoded state.
    pub state: Option<Arc<State>>,
}

impl Image {
    /// Encodes a state.
    ///
    /// # Errors
    /// What the encoder says.
    pub fn encode(state: &State) -> Result<Self, String> {
        let bytes = rmp_serde::to_vec_named(state).map_err(|e| e.to_string())?;
        Ok(Self { bytes: bytes.into(), state: None })
    }

    /// Decodes the bytes, once.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn state(&self) -> Result<Arc<State>, String> {
        match &self.state {
            Some(state) => Ok(state.clone()),
            None => rmp_serde::from_slice(&self.bytes).map(Arc::new).map_err(|e| e.to_string()),
        }
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of state", self.bytes.len())
    }
}
