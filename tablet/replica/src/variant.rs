//! The rules that the simulation can break one at a time, to prove that it would notice.
//!
//! Invariants: tablets run [`Sound`] only; every switch is a constant, so that nothing of it is left there. The names
//! (`B1`...) are those of the table in the rules; what is missing here is broken in the meta group's part.

/// Which planted mistakes are in force. Each constant breaks one rule.
pub trait Variant {
    /// B1: a member does not count from the moment its removal is proposed (against R6).
    const ACK_BEFORE_REMOVAL: bool = false;
    /// B3: a follower judges records by their offsets alone, whoever sends them (against R3, R5).
    const NO_EPOCH_CHECK: bool = false;
    /// B4a: a new leader serves at once, all that is in its log (against R10).
    const SERVE_LOG_END: bool = false;
    /// B4b: a new leader serves at once, up to the commit offset that it had known before (against R10).
    const SERVE_OLD_COMMIT: bool = false;
    /// B5a: a candidate does not count while its addition is open (against R8).
    const FORGET_CANDIDATE: bool = false;
    /// B5c: a leader adds members before its barrier, by a commit offset that it does not know yet (against R8).
    const ADD_BEFORE_BARRIER: bool = false;
    /// B6: a restarted leader goes on in its epoch (against R1).
    const RESUME_EPOCH: bool = false;
    /// B7: a follower obeys every order to cut, also a repeated one (against R4).
    const REPEAT_TRUNCATE: bool = false;
    /// B8: a new leader does not wait for the permits that it gave (against R11).
    const SKIP_GRANT_WAIT: bool = false;
    /// B9: a leader counts acknowledgements of earlier epochs (against R3).
    const OLD_ACKS: bool = false;
    /// B11: what is written counts as stored (against R6, R24).
    const ACK_BEFORE_SYNC: bool = false;
    /// B12: a leader surrenders and goes on (against R12).
    const RESUME_AFTER_SURRENDER: bool = false;
    /// B13: a leader reads without permits (against R11).
    const READ_WITHOUT_PERMIT: bool = false;
}

/// No mistake: what every tablet runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sound;

impl Variant for Sound {}
