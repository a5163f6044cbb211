//! The commit set (R6): whose acknowledgements a write waits for.
//!
//! Invariants: it holds every member of every in-sync set that the meta group may have by now, as far as the leader can
//! know: the set last decided, and the one that it has proposed and whose fate it does not know. So whoever may be
//! elected has every acknowledged write. A member counts as one run of its process (R8).

use stela_common::ids::TabletId;
use stela_common::wire::Member;

use crate::variant::Variant;

/// An in-sync set that was proposed and whose fate is not known (R7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Proposed {
    /// Somebody comes.
    Addition(Vec<Member>),
    /// Somebody goes, or is marked as one that lost what it had acknowledged.
    Removal(Vec<Member>),
}

impl Proposed {
    /// The set.
    pub(crate) fn in_sync(&self) -> &[Member] {
        match self {
            Self::Addition(set) | Self::Removal(set) => set,
        }
    }
}

/// The commit set of a leader, without itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct CommitSet {
    others: Vec<Member>,
}

impl CommitSet {
    /// Of the leader `me`, by the set last decided and the one that is proposed.
    pub(crate) fn new<V: Variant>(
        me: TabletId,
        decided: &[Member],
        proposed: Option<&Proposed>,
    ) -> Self {
        let sets: [&[Member]; 2] = match proposed {
            None => [decided, &[]],
            Some(Proposed::Removal(set)) if V::ACK_BEFORE_REMOVAL => [set, &[]],
            Some(Proposed::Addition(_)) if V::FORGET_CANDIDATE => [decided, &[]],
            Some(open) => [decided, open.in_sync()],
        };
        let mut others: Vec<Member> = Vec::with_capacity(decided.len() + 1);
        for member in sets.into_iter().flatten().filter(|m| m.tablet != me) {
            if others.iter().all(|known| known.tablet != member.tablet) {
                others.push(*member);
            }
        }
        Self { others }
    }

    /// Its members beside the leader.
    pub(crate) fn others(&self) -> &[Member] {
        &self.others
    }

    /// The member on that tablet.
    pub(crate) fn member(&self, tablet: TabletId) -> Option<&Member> {
        self.others.iter().find(|m| m.tablet == tablet)
    }

    /// Is the leader the only member?
    pub(crate) fn is_alone(&self) -> bool {
        self.others.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use stela_common::ids::Incarnation;

    use super::*;
    use crate::variant::Sound;

    struct B1;
    impl Variant for B1 {
        const ACK_BEFORE_REMOVAL: bool = true;
    }
    struct B5a;
    impl Variant for B5a {
        const FORGET_CANDIDATE: bool = true;
    }

    fn members(tablets: &[u32]) -> Vec<Member> {
        let member = |t: &u32| Member {
            tablet: TabletId(*t),
            incarnation: Incarnation(9),
            untrusted: false,
        };
        tablets.iter().map(member).collect()
    }

    fn others<V: Variant>(decided: &[u32], proposed: Option<Proposed>) -> Vec<u32> {
        let set = CommitSet::new::<V>(TabletId(1), &members(decided), proposed.as_ref());
        assert_eq!(set.is_alone(), set.others().is_empty());
        set.others().iter().map(|m| m.tablet.0).collect()
    }

    #[test]
    fn counts_whoever_is_or_may_come_to_be_in_the_set() {
        assert_eq!(others::<Sound>(&[1, 2], None), [2]);
        assert_eq!(others::<Sound>(&[1, 2, 3], Some(Proposed::Removal(members(&[1, 3])))), [2, 3]);
        assert_eq!(others::<Sound>(&[1, 2], Some(Proposed::Addition(members(&[1, 2, 3])))), [2, 3]);
        assert_eq!(others::<Sound>(&[1], None), [] as [u32; 0]);
    }

    #[test]
    fn planted_mistakes_count_too_few() {
        assert_eq!(others::<B1>(&[1, 2, 3], Some(Proposed::Removal(members(&[1, 3])))), [3]);
        assert_eq!(others::<B5a>(&[1, 2], Some(Proposed::Addition(members(&[1, 2, 3])))), [2]);
    }
}
