//! Time to live: which rows of a key are still to be seen.
//!
//! Expiry only ever takes from the old end of a list, whatever the kind, so "live" is a number of rows.

use stela_common::table::{Ttl, TtlKind};

use super::list::List;

/// How many rows of the list, from the newest on, have not expired at wall time `now` (ms).
#[must_use]
pub fn live(list: &List, ttl: &Ttl, now: u64) -> usize {
    let by_age = || match ttl.abs {
        0 => list.len(),
        abs => list.newer_than(now.saturating_sub(abs.saturating_mul(60_000))),
    };
    let by_count = || match ttl.lat {
        0 => list.len(),
        lat => usize::try_from(lat).unwrap_or(usize::MAX).min(list.len()),
    };
    match ttl.kind {
        TtlKind::Absolute => by_age(),
        TtlKind::Latest => by_count(),
        TtlKind::AbsAndLat => by_age().max(by_count()),
        TtlKind::AbsOrLat => by_age().min(by_count()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::list::Point;

    proptest! {
        #[test]
        fn agrees_with_the_definition_row_by_row(
            minutes in prop::collection::vec(0u64..12, 1..30), abs in 0u64..8, lat in 0u64..8, now in 0u64..14,
        ) {
            let mut list = List::new(Point { ts: minutes[0] * 60_000, place: 0 });
            for minute in &minutes[1..] {
                list.insert(Point { ts: minute * 60_000, place: 0 });
            }
            for kind in [TtlKind::Absolute, TtlKind::Latest, TtlKind::AbsAndLat, TtlKind::AbsOrLat] {
                let (ttl, now) = (Ttl { kind, abs, lat }, now * 60_000);
                let expired: Vec<bool> =
                    (0u64..).zip(list.from(0)).map(|(position, p)| ttl.expired(p.ts, position, now)).collect();
                let live = live(&list, &ttl, now);
                prop_assert!(expired[..live].iter().all(|e| !e), "{ttl:?} at {now}: {expired:?}, {live}");
                prop_assert!(expired[live..].iter().all(|e| *e), "{ttl:?} at {now}: {expired:?}, {live}");
            }
        }
    }

    #[test]
    fn the_boundaries_are_expired() {
        let list = List::new(Point { ts: 60_000, place: 0 });
        let absolute = Ttl { kind: TtlKind::Absolute, abs: 1, lat: 0 };
        assert_eq!((live(&list, &absolute, 119_999), live(&list, &absolute, 120_000)), (1, 0));
    }
}
