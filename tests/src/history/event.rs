//! The lines of a history.

use serde::{Deserialize, Serialize};

/// The first line: which run it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// The drill.
    pub drill: String,
    /// Of all that was random in it.
    pub seed: u64,
    /// The commit that was tested, where it is known.
    pub commit: String,
    /// When it began, in seconds since 1970.
    pub started: u64,
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Op {
    /// A row is written, once and never again: table, key and time name it.
    Put {
        /// Its table.
        table: String,
        /// Its key.
        key: String,
        /// Its time.
        ts: u64,
        /// What is in it.
        value: String,
    },
    /// The newest rows of a key.
    Scan {
        /// Their table.
        table: String,
        /// Their key.
        key: String,
        /// At most so many; 0: all.
        limit: usize,
        /// Of one replica, when everything is whole and nobody writes; `None`: at the leader, which must not miss
        /// anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<String>,
    },
    /// A register is set.
    Write {
        /// Which.
        key: String,
        /// To what.
        value: String,
    },
    /// A register is read.
    Read {
        /// Which.
        key: String,
    },
    /// A register is set if it has the value that is expected.
    Cas {
        /// Which.
        key: String,
        /// What is expected.
        from: String,
        /// To what.
        to: String,
    },
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// It was done.
    Ok,
    /// It was not, and will not be.
    Fail,
    /// Nobody knows.
    Info,
}

/// What was answered; what does not apply is left out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Of a scan: times and values, newest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Vec<(u64, String)>>,
    /// Of a read: the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub got: Option<String>,
    /// Of a compare-and-set: whether the value was the expected one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swapped: Option<bool>,
    /// Of a put: the partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Of a put: the epoch in which it was acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Why it was not done, or why nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// One line behind the first one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    Event(Event),
    Note { t: u64, note: String },
}

/// An invocation or an end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Event {
    /// ns since the run began.
    pub t: u64,
    /// The logical operation.
    pub id: u64,
    /// Who asks: one operation at a time.
    pub p: u64,
    #[serde(rename = "type")]
    pub what: What,
    #[serde(flatten)]
    pub op: Op,
    #[serde(flatten)]
    pub answer: Answer,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum What {
    Invoke,
    #[serde(untagged)]
    End(End),
}
