//! What a caller is told when something did not work.

use std::fmt;

use crate::code::Refusal;

/// Why there is no connection to a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConnectError {
    /// No nameserver of the list answered.
    NoAnswer {
        /// The list.
        tried: Vec<String>,
        /// What was wrong with the last one.
        last: String,
    },
    /// A nameserver answers for another cluster than the one asked for.
    WrongCluster {
        /// The cluster asked for.
        asked: String,
        /// The cluster that answers.
        found: String,
        /// Where.
        endpoint: String,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer { tried, .. } if tried.is_empty() => f.write_str(
                "no nameserver is given: name them as a list of host:port, separated by commas",
            ),
            Self::NoAnswer { tried, last } => {
                let list = tried.join(",");
                write!(
                    f,
                    "no nameserver of {list} answers ({last}): start one of them, or correct the list"
                )
            }
            Self::WrongCluster { asked, found, endpoint } => write!(
                f,
                "nameserver {endpoint} is of cluster '{found}', not '{asked}': correct the list of nameservers, or ask for cluster '{found}'"
            ),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Why a write was not acknowledged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// Nothing of it was applied, and nothing will be.
    #[error("{0}")]
    Refused(Refusal),
    /// It may or may not have been applied, wholly or in some partitions (R32, R33): the text says what is known.
    #[error("{0}")]
    Unknown(String),
}

impl WriteError {
    /// As a refusal, for callers that do not tell the two apart.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Unknown(text) => Refusal::new(crate::code::Code::UnknownOutcome, text),
        }
    }
}
