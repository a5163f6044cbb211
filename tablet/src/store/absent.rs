//! Is a row there already? That of a put of what is absent: the same bytes, under the same key and time.

use stela_common::log::Log;
use stela_common::table::Ttl;

use super::Store;
use super::entry::Dimension;
use super::list::Point;

impl Store {
    /// Whether that row can be seen at wall time `now`, by that time to live: those that its leader wrote down, so that all
    /// replicas find the same.
    ///
    /// # Errors
    /// A value that has to be compared cannot be read.
    pub(super) fn is_there(
        &mut self,
        log: &Log,
        dimension: &Dimension<'_>,
        value: &[u8],
        ttl: &Ttl,
        now: u64,
    ) -> Result<bool, String> {
        if !self.settle(dimension.index, dimension.key, ttl, now) {
            return Ok(false);
        }
        let Some(list) = self.indexes[dimension.index].get(dimension.key) else { return Ok(false) };
        let first = list.newer_than(dimension.ts);
        let same: Vec<Point> =
            list.from(first).take_while(|point| point.ts == dimension.ts).collect();
        for point in same {
            if self.see(log, point, |stored| stored == value)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
