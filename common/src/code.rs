//! Return codes: OpenMLDB's numbers and texts where it has them, our own from 170 on.
//!
//! A [`Refusal`] is what a caller is told; inside, errors are types, and turn into a refusal at the service's edge.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// A return code.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(i32)]
        pub enum Code {
            $($(#[$doc])* $name = $number,)*
        }

        impl Code {
            /// The text that goes with it.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The code of that number.
            #[must_use]
            pub fn from_number(number: i32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// Success.
    Ok = 0, "ok";
    /// No such table, or no such partition here.
    TableNotFound = 100, "table does not exist";
    /// The name is taken.
    TableExists = 101, "table already exists";
    /// This replica leads.
    TableIsLeader = 102, "table is leader";
    /// This replica does not lead; the reply names the leader where it is known.
    TableIsFollower = 103, "table is follower";
    /// Not readable yet.
    TableLoading = 104, "table is loading";
    /// What is asked for is not done in the state that the replica is in: the text says which.
    TableNotNormal = 105, "table status is not kTableNormal";
    /// A snapshot of it is being made.
    MakingSnapshot = 106, "table status is kMakingSnapshot";
    /// Its snapshots would have to be paused.
    SnapshotNotPaused = 107, "snapshot is not paused";
    /// No such index.
    IndexNotFound = 108, "idx name not found";
    /// No such key.
    KeyNotFound = 109, "key not found";
    /// A dimension names no index of the table, or has an empty key.
    InvalidDimension = 115, "invalid dimension parameter";
    /// A put that cannot be stored: the text says why.
    PutFailed = 116, "put failed";
    /// st < et.
    StartBeforeEnd = 117, "starttime less than endtime";
    /// The disk refused.
    WriteDataFailed = 127, "write data failed";
    /// A leader without followers was asked for them.
    HasNoFollower = 134, "has no follower";
    /// No such operation.
    OpNotFound = 136, "op id does not exist";
    /// No index takes its time from that column.
    TsNotFound = 137, "ts name not found";
    /// There is no copy of it on this tablet's disk.
    NoCopy = 138, "fail to get table db root path";
    /// An index of that name is there.
    IndexExists = 141, "index has already exist!";
    /// An index that has to stay.
    IndexIsNeeded = 142, "index is primary key";
    /// An index cannot be added: the text says why.
    AddIndexFailed = 143, "add index failed.";
    /// The indexes take as much memory as they may.
    MemoryFull = 160, "exceed max memory";
    /// A deletion that names no rows: the text says why.
    InvalidDeletion = 161, "invalid args";
    /// A server that is not there, or is not healthy.
    ServerNotFound = 155, "server_name does not exist or offline";
    /// Another server has that address.
    SdkEndpointTaken = 156, "sdkendpoint duplicate";
    /// Not the partition's leader's epoch.
    StaleEpoch = 170, "stale epoch";
    /// The leader can neither commit nor renew its lease (R9), or has no read permit in time (R11).
    LeaseExpired = 171, "kLeaseExpired: the leader has lost contact; try again";
    /// The outcome of a write is not known, and is not going to be (R32).
    UnknownOutcome = 172, "kUnknownOutcome: the write may or may not have been applied";
    /// Fewer replicas in sync than the table asks for.
    NotEnoughInSync = 173, "not enough replicas in sync";
    /// A queue is full.
    Busy = 174, "too many requests are waiting; try again";
    /// No space on the disk: reads go on, writes do not.
    DiskFull = 175, "disk is full: the partition is read-only until space is back";
    /// The replica cannot prove that its copy is whole.
    Quarantined = 176, "replica is quarantined: its copy cannot be proven whole";
    /// A key, value or request over the limit.
    TooLarge = 177, "too large";
    /// The partition has a leader that does not serve yet.
    NotServing = 178, "the leader is not serving yet; try again";
    /// The answer comes from another cluster than the one asked for.
    WrongCluster = 179, "wrong cluster";
    /// A message that no version of Stela sends.
    Malformed = 180, "malformed message";
    /// A replica does not show what the reader has seen already (R35).
    Behind = 181, "the replica is behind what was asked for; try another one, or the leader";
    /// The sender does not know of an index that was added.
    StaleTable = 182, "the table has a new index: open the table again";
    /// Nothing is read by an index before all rows are in it.
    IndexFilling = 183, "the index is being filled; see showopstatus";
    /// Asked of a nameserver that does not lead and cannot reach the leader.
    NotLeader = 300, "nameserver is not leader";
    /// A manual command while the automatic ones are on.
    AutoFailoverEnabled = 301, "auto_failover is enabled";
    /// No such tablet.
    EndpointNotFound = 302, "endpoint does not exist";
    /// The tablet is offline.
    TabletNotHealthy = 303, "tablet is not healthy";
    /// A metadata write was not committed in time; its outcome is not known.
    SetFailed = 304, "set meta failed: no quorum of nameservers within the deadline; the outcome is unknown";
    /// A parameter out of range.
    InvalidParameter = 307, "invalid parameter";
    /// No such partition.
    PidNotFound = 308, "pid does not exist";
    /// An operation that is not possible as things are.
    CreateOpFailed = 305, "create op failed";
    /// A leader is there, and another one was not asked for.
    LeaderIsAlive = 309, "leader is alive";
    /// The operation has ended, or there is none of that number.
    OpNotOpen = 312, "op status is not kDoing or kInited";
    /// A replica of that partition is there.
    PidExists = 317, "pid already exists";
    /// Where a replica is to be moved from.
    SourceNotHealthy = 318, "src_endpoint does not exist or not healthy";
    /// Where a replica is to be moved to.
    DestinationNotHealthy = 319, "des_endpoint does not exist or not healthy";
    /// A replica cannot be moved: the text says why.
    MigrateFailed = 320, "migrate failed";
    /// Nothing of what was named is there.
    NoPidUpdated = 321, "no pid has update";
    /// A column of that name is there.
    ColumnExists = 323, "field name repeated in table_info!";
    /// The table has as many columns as it may.
    TooManyColumns = 324, "the count of adding field is more than 63";
    /// An operation of that kind goes on.
    OpExists = 334, "there is already a task running";
    /// A column of an index that the table does not have or that cannot be a key.
    WrongColumnKey = 519, "wrong column key!";
    /// Nobody can take over.
    NoAliveFollower = 310, "no alive follower";
    /// Fewer tablets than replicas.
    TooFewTablets = 314, "healthy endpoint num is less than replica num";
    /// A name is taken.
    DatabaseExists = 801, "database already exists";
    /// No such database.
    DatabaseNotFound = 802, "database not found";
    /// It still has tables.
    DatabaseNotEmpty = 803, "database not empty";
    /// The server did not answer.
    RpcFailed = 1004, "rpc failed";
}

/// A code and the text that goes to the caller.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Refusal {
    /// What kind.
    pub code: Code,
    /// The text.
    pub text: String,
}

impl Refusal {
    /// A refusal with a text of its own.
    #[must_use]
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self::new(code, code.text())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
