//! What a run has tried: a run that did not meet a fault in a role says nothing about it.

use std::collections::BTreeMap;
use std::fmt;

use super::fault::{Fault, Point, Role};

/// Counters of one run or of many.
#[derive(Clone, Default, Debug)]
pub struct Coverage {
    faults: BTreeMap<(Fault, Role), u64>,
    points: BTreeMap<Point, u64>,
    /// Events.
    pub steps: u64,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Reads that were served by a leader.
    pub reads: u64,
    /// Divergent entries that were cut.
    pub cut: u64,
    /// Records that a power cut took.
    pub lost_records: u64,
}

impl Coverage {
    /// A fault hits a tablet that has that role for some partition.
    pub fn hit(&mut self, fault: Fault, role: Role) {
        *self.faults.entry((fault, role)).or_default() += 1;
    }

    /// A point of the protocol was reached.
    pub fn reached(&mut self, point: Point) {
        *self.points.entry(point).or_default() += 1;
    }

    /// How often a point of the protocol was reached.
    pub fn times(&self, point: Point) -> u64 {
        self.points.get(&point).copied().unwrap_or(0)
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
    pub fn missing(&self) -> Vec<(Fault, Role)> {
        let all = Fault::ALL.iter().flat_map(|f| Role::ALL.iter().map(|r| (*f, *r)));
        all.filter(|(f, r)| f.befalls(*r) && !self.faults.contains_key(&(*f, *r))).collect()
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (key, times) in &other.faults {
            *self.faults.entry(*key).or_default() += times;
        }
        for (point, times) in &other.points {
            *self.points.entry(*point).or_default() += times;
        }
        self.steps += other.steps;
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.cut += other.cut;
        self.lost_records += other.lost_records;
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<22}", "fault")?;
        for role in Role::ALL {
            write!(f, "{role:>11}")?;
        }
        for fault in Fault::ALL {
            write!(f, "\n{fault:<22}")?;
            for role in Role::ALL {
                match self.faults.get(&(fault, role)) {
                    Some(times) => write!(f, "{times:>11}")?,
                    None if fault.befalls(role) => write!(f, "{:>11}", 0)?,
                    None => write!(f, "{:>11}", "-")?,
                }
            }
        }
        writeln!(f)?;
        for point in Point::ALL {
            write!(f, "{} {}; ", self.times(point), point.name())?;
        }
        write!(f, "{} divergent entries cut; {} unsynced records lost", self.cut, self.lost_records)
    }
}
