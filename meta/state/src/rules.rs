//! The rules that the simulation can break one at a time, to prove that it would notice.
//!
//! Invariants: the shipped binary uses [`Sound`] only; every switch is a constant, so that nothing of it is left there.

/// Which planted mistakes are in force. Each constant breaks one rule.
pub trait Rules {
    /// B2: elect by the largest offset, also outside the in-sync set (against R13).
    const ELECT_OUTSIDE: bool = false;
    /// B5b: add a member whatever run of its process the proposal meant (against R8).
    const ADD_ANY_INCARNATION: bool = false;
    /// B10: a restart that cannot prove its copy keeps its place unmarked (against R14).
    const TRUST_ALL: bool = false;
}

/// No mistake: what every nameserver runs.
#[derive(Clone, Copy, Debug)]
pub struct Sound;

impl Rules for Sound {}
