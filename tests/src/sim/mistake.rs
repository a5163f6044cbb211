//! The planted mistakes: each breaks one rule, and the simulation must notice.

use stela_meta_state::rules::{self, Rules};
use stela_replica::variant::{self, Variant};

use super::core::{MakeCore, make_core};
use super::nameserver::Law;
use super::profile::{self, Profile};

macro_rules! mistakes {
    (
        variants { $($b:ident: $switch:ident, $what:literal, $profile:expr;)* }
        rules { $($r:ident: $rule:ident, $rwhat:literal, $rprofile:expr;)* }
    ) => {
        $(
            struct $b;
            impl Variant for $b { const $switch: bool = true; }
        )*
        $(
            struct $r;
            impl Rules for $r { const $rule: bool = true; }
        )*

        /// All of them: the tablets' first, then the meta group's.
        pub const ALL: &[Mistake] = &[
            $(Mistake {
                name: stringify!($b),
                what: $what,
                profile: $profile,
                make_core: make_core::<$b>,
                law: || Law::of::<rules::Sound>(true),
            },)*
            $(Mistake {
                name: stringify!($r),
                what: $rwhat,
                profile: $rprofile,
                make_core: make_core::<variant::Sound>,
                law: || Law::of::<$r>(false),
            },)*
        ];
    };
}

/// A planted mistake.
#[derive(Clone, Copy)]
pub struct Mistake {
    /// As in the rules' table.
    pub name: &'static str,
    /// What is wrong.
    pub what: &'static str,
    /// How a run is steered towards it.
    pub profile: Profile,
    /// The tablets' part.
    pub make_core: MakeCore,
    /// The meta group's part.
    pub law: fn() -> Law,
}

mistakes! {
    variants {
        B1: ACK_BEFORE_REMOVAL, "acknowledges before the removal of a member is committed", profile::PROPOSALS;
        B3: NO_EPOCH_CHECK, "a follower takes records of whoever sends them", profile::RECONNECTS;
        B4a: SERVE_LOG_END, "a new leader serves its log end before the barrier", profile::SWITCHES;
        B4b: SERVE_OLD_COMMIT, "a new leader serves at its old commit offset", profile::SWITCHES;
        B5a: FORGET_CANDIDATE, "a candidate does not count while its addition is open", profile::PROPOSALS;
        B5c: ADD_BEFORE_BARRIER, "a leader adds members before its barrier", profile::SHRINKS;
        B6: RESUME_EPOCH, "a restarted leader resumes its epoch", profile::CRASHES;
        B7: REPEAT_TRUNCATE, "a follower obeys every order to cut", profile::LATE_ORDERS;
        B8: SKIP_GRANT_WAIT, "a new leader does not wait for the permits that it gave", profile::STALE_READS;
        B9: OLD_ACKS, "a leader counts acknowledgements of earlier epochs", profile::LATE_ACKS;
        B11: ACK_BEFORE_SYNC, "acknowledges before the sync has ended", profile::CRASHES;
        B12: RESUME_AFTER_SURRENDER, "a leader goes on after its surrender", profile::DRAINS;
        B13: READ_WITHOUT_PERMIT, "a leader reads without permits", profile::SWITCHES;
    }
    rules {
        B2: ELECT_OUTSIDE, "elects outside the in-sync set", profile::PROPOSALS;
        B5b: ADD_ANY_INCARNATION, "adds a member whatever run was meant", profile::RETURNS;
        B10: TRUST_ALL, "a restart that cannot prove its copy keeps its place", profile::INTERVAL;
    }
}
