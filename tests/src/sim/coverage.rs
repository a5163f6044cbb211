//! What a run has tried: a run that did not meet a fault in a role says nothing about it.

use std::collections::BTreeMap;
use std::fmt;

use super::fault::{Fault, Role};
use super::point::Point;

/// Counters of one run or of many.
#[derive(Clone, Debug)]
pub struct Coverage {
    faults: BTreeMap<(Fault, Role), u64>,
    points: [u64; Point::ALL.len()],
    crashed: [u64; Point::ALL.len()],
    /// Events.
    pub steps: u64,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Elections that made another tablet the leader.
    pub switches: u64,
    /// Reads that were served by a leader.
    pub reads: u64,
    /// Reads that were served by a follower.
    pub follower_reads: u64,
    /// Divergent entries that were cut.
    pub cut: u64,
    /// Records that a power cut took.
    pub lost_records: u64,
    /// Records that were on disk behind one that a power cut took, and are void.
    pub holes: u64,
    /// Acknowledged writes that were lost with the disks of all who had them, as was promised.
    pub lost_writes: u64,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            faults: BTreeMap::new(),
            points: [0; Point::ALL.len()],
            crashed: [0; Point::ALL.len()],
            steps: 0,
            acknowledged: 0,
            switches: 0,
            reads: 0,
            follower_reads: 0,
            cut: 0,
            lost_records: 0,
            holes: 0,
            lost_writes: 0,
        }
    }
}

impl Coverage {
    /// A fault hits a tablet that has that role for some partition.
    pub fn hit(&mut self, fault: Fault, role: Role) {
        *self.faults.entry((fault, role)).or_default() += 1;
    }

    /// A point of the protocol was reached.
    pub fn reached(&mut self, point: Point) {
        self.points[point as usize] += 1;
    }

    /// A process ended because it was at that point.
    pub fn crashed_at(&mut self, point: Point) {
        self.crashed[point as usize] += 1;
    }

    /// How often a point of the protocol was reached.
    pub fn times(&self, point: Point) -> u64 {
        self.points[point as usize]
    }

    /// How often a fault hit anybody.
    fn hits(&self, fault: Fault) -> u64 {
        Role::ALL.iter().map(|r| self.faults.get(&(fault, *r)).copied().unwrap_or(0)).sum()
    }

    /// How often a process ended otherwise than by a clean stop.
    pub fn crashes(&self) -> u64 {
        self.hits(Fault::Kill) + self.hits(Fault::PowerCut)
    }

    /// What was never met.
    pub fn missing(&self) -> Vec<String> {
        let all = Fault::ALL.iter().flat_map(|f| Role::ALL.iter().map(|r| (*f, *r)));
        let unmet = all.filter(|(f, r)| f.befalls(*r) && !self.faults.contains_key(&(*f, *r)));
        let unmet = unmet.map(|(fault, role)| format!("{fault} of a {role}"));
        let points = Point::ALL.iter().filter(|p| self.crashed[**p as usize] == 0);
        unmet.chain(points.map(|p| format!("a crash at: {}", p.name()))).collect()
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (key, times) in &other.faults {
            *self.faults.entry(*key).or_default() += times;
        }
        for point in Point::ALL {
            self.points[*point as usize] += other.points[*point as usize];
            self.crashed[*point as usize] += other.crashed[*point as usize];
        }
        self.steps += other.steps;
        self.acknowledged += other.acknowledged;
        self.switches += other.switches;
        self.reads += other.reads;
        self.follower_reads += other.follower_reads;
        self.cut += other.cut;
        self.lost_records += other.lost_records;
        self.holes += other.holes;
        self.lost_writes += other.lost_writes;
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<25}", "fault")?;
        for role in Role::ALL {
            write!(f, "{role:>11}")?;
        }
        for fault in Fault::ALL {
            write!(f, "\n{fault:<25}")?;
            for role in Role::ALL {
                match self.faults.get(&(*fault, role)) {
                    Some(times) => write!(f, "{times:>11}")?,
                    None if fault.befalls(role) => write!(f, "{:>11}", 0)?,
                    None => write!(f, "{:>11}", "-")?,
                }
            }
        }
        write!(f, "\n{:<28}{:>11}{:>11}", "point", "passed", "crashes")?;
        for point in Point::ALL {
            let (passed, crashed) = (self.points[*point as usize], self.crashed[*point as usize]);
            write!(f, "\n{:<28}{passed:>11}{crashed:>11}", point.name())?;
        }
        write!(
            f,
            "\n{} divergent entries cut; {} unsynced records lost, {} behind them void; {} acknowledged writes lost with \
             all disks that had them",
            self.cut, self.lost_records, self.holes, self.lost_writes
        )
    }
}
