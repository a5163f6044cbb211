//! Which tablets are there: signs of life, and what may be concluded from their absence.
//!
//! **Invariants**
//! * By silence nobody is judged before `lease * 1.1` has passed since it was last heard, since this nameserver took
//!   over, and since this nameserver last noticed that it had itself stood still (R17). A tablet that was given a lease
//!   was heard before, so its lease is over by then.
//! * The fast path takes a stream that broke, or never came, *and* a handshake that was made afterwards (R18). What a handshake found is
//!   forgotten when a new stream opens, and when this nameserver stood still for longer than a heartbeat. (A nameserver
//!   whose own listener is new has had no streams that could have ended with the old one: what it knows of contacts
//!   begins with its process.)
//! * Signs of one run say nothing of another.
//!
//! Pure: the time is an input.

use std::collections::BTreeMap;

use stela_common::clock::Millis;
use stela_common::ids::{Incarnation, TabletId};
use stela_meta_state::plan::Seen;
use stela_meta_state::state::State;

use super::PULSE;

/// How long things take, ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// A lease for its holder, from the send time of the heartbeat.
    pub lease: u64,
    /// Between heartbeats of a tablet.
    pub heartbeat: u64,
}

impl Timing {
    /// A lease for its grantor.
    #[must_use]
    pub fn granted(&self) -> u64 {
        self.lease + self.lease / 10
    }

    /// Heard within this time, a tablet can be given a role.
    fn lately(&self) -> u64 {
        self.lease / 2
    }
}

/// Names one heartbeat stream; never used twice in a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StreamId(pub u64);

/// One run of a tablet as it was heard here.
#[derive(Clone, Copy, Debug)]
struct Contact {
    incarnation: Incarnation,
    heard: Millis,
    /// The open stream.
    stream: Option<StreamId>,
    /// There was a stream, and it ended.
    ended: bool,
    /// A handshake after that found nobody, or somebody else.
    refused: bool,
}

impl Contact {
    /// Is it to be looked for? It had a stream, or has had the time to open one since it is known here.
    fn suspect(&self, now: Millis, waits: u64) -> bool {
        self.stream.is_none() && (self.ended || now.since(self.heard) > waits)
    }
}

/// What is known of all tablets.
#[derive(Debug)]
pub struct Judge {
    timing: Timing,
    contacts: BTreeMap<TabletId, Contact>,
    /// Nobody is judged by a silence that began before.
    since: Millis,
    /// The last tick.
    ticked: Millis,
    /// When this nameserver was last seen to have stood still for longer than a heartbeat.
    awake: Millis,
    /// The tablets of this reign's beginning were looked at.
    acquainted: bool,
}

impl Judge {
    /// A nameserver that takes over at `now` and has heard nobody.
    #[must_use]
    pub fn new(timing: Timing, now: Millis) -> Self {
        Self {
            timing,
            contacts: BTreeMap::new(),
            since: now,
            ticked: now,
            awake: now,
            acquainted: false,
        }
    }

    /// Time passes. Called every [`PULSE`]; a gap means that this nameserver stood still, and so could not
    /// hear what was said to it. Answers whether the grace of all begins again (R19).
    pub fn tick(&mut self, now: Millis) -> bool {
        let gap = now.since(self.ticked);
        self.ticked = now;
        // A late tick is no gap, however short the lease is.
        let gap = if gap > 2 * u64::from(PULSE.subsec_millis()) { gap } else { 0 };
        let long = gap > self.timing.lease / 2;
        if long {
            self.since = now;
        }
        if gap > self.timing.heartbeat {
            self.awake = now;
            self.contacts.values_mut().for_each(|c| c.refused = false);
        }
        long
    }

    /// A run is registered: a sign of life, and the end of its predecessor.
    pub fn registered(&mut self, tablet: TabletId, incarnation: Incarnation, now: Millis) {
        self.contact(tablet, incarnation, now).heard = now;
    }

    /// A stream of a registered run opens, with its first heartbeat.
    pub fn opened(
        &mut self,
        tablet: TabletId,
        incarnation: Incarnation,
        stream: StreamId,
        now: Millis,
    ) {
        *self.contact(tablet, incarnation, now) =
            Contact { incarnation, heard: now, stream: Some(stream), ended: false, refused: false };
    }

    /// A heartbeat came on a stream of the run that is registered. Without an open stream it is the one: of two that were
    /// attended to at the same time the one that is over may have been noted last.
    pub fn heard(&mut self, tablet: TabletId, stream: StreamId, now: Millis) {
        let Some(contact) = self.contacts.get_mut(&tablet) else { return };
        if contact.stream.is_none() {
            (contact.stream, contact.ended, contact.refused) = (Some(stream), false, false);
        }
        if contact.stream == Some(stream) {
            contact.heard = now;
        }
    }

    /// A stream ended. `true` if it was the tablet's current one: now it is to be probed.
    pub fn closed(&mut self, tablet: TabletId, stream: StreamId) -> bool {
        let Some(contact) = self.contacts.get_mut(&tablet).filter(|c| c.stream == Some(stream))
        else {
            return false;
        };
        contact.stream = None;
        contact.ended = true;
        true
    }

    /// A handshake, begun at that time while the tablet was a [suspect](Self::suspects), found its port closed or another
    /// run behind it. One from before this nameserver stood still says nothing (R18).
    pub fn refused(&mut self, tablet: TabletId, incarnation: Incarnation, begun: Millis) {
        if begun < self.awake {
            return;
        }
        let waits = self.timing.heartbeat * 2;
        let ticked = self.ticked;
        let suspect = |c: &&mut Contact| c.incarnation == incarnation && c.suspect(ticked, waits);
        if let Some(contact) = self.contacts.get_mut(&tablet).filter(suspect) {
            contact.refused = true;
        }
    }

    /// Runs whose stream ended, or who have not opened one in two heartbeats as those do who live when a nameserver takes
    /// over, and of which no handshake has found yet that they are gone.
    #[must_use]
    pub fn suspects(&self) -> Vec<(TabletId, Incarnation)> {
        let suspect = |(id, c): (&TabletId, &Contact)| {
            let suspect = c.suspect(self.ticked, self.timing.heartbeat * 2);
            (suspect && !c.refused).then_some((*id, c.incarnation))
        };
        self.contacts.iter().filter_map(suspect).collect()
    }

    /// Makes every registered run known. One that registers during a reign has a whole lease to be heard, whoever took its
    /// registration and whatever became of the answer; those of before have it from the take-over on.
    pub fn acquaint(&mut self, state: &State, now: Millis) {
        let known = if self.acquainted { now } else { self.since };
        for (id, tablet) in &state.tablets {
            self.contact(*id, tablet.incarnation, known);
        }
        self.acquainted = true;
    }

    /// What is observed of every tablet that is registered.
    #[must_use]
    pub fn seen(&self, state: &State, now: Millis) -> BTreeMap<TabletId, Seen> {
        state
            .tablets
            .iter()
            .map(|(id, tablet)| (*id, self.seen_as(*id, tablet.incarnation, now)))
            .collect()
    }

    /// What is observed of that run.
    #[must_use]
    pub fn seen_as(&self, tablet: TabletId, incarnation: Incarnation, now: Millis) -> Seen {
        let contact = self.contacts.get(&tablet).filter(|c| c.incarnation == incarnation);
        let heard = contact.map_or(self.since, |c| c.heard.max(self.since));
        let silence = contact.map_or(u64::MAX, |c| now.since(c.heard));
        Seen {
            incarnation,
            alive: contact.is_some_and(|c| c.stream.is_some()) && silence <= self.timing.lately(),
            silent: now.since(heard) > self.timing.granted(),
            refused: contact.is_some_and(|c| c.refused),
        }
    }

    /// The contact of that run; a new one replaces that of another run.
    fn contact(&mut self, tablet: TabletId, incarnation: Incarnation, now: Millis) -> &mut Contact {
        let fresh = Contact { incarnation, heard: now, stream: None, ended: false, refused: false };
        let contact = self.contacts.entry(tablet).or_insert(fresh);
        if contact.incarnation != incarnation {
            *contact = fresh;
        }
        contact
    }
}

#[cfg(test)]
mod tests {
    use stela_meta_state::state::Tablet;

    use super::*;

    const T: TabletId = TabletId(1);
    const RUN: Incarnation = Incarnation(10);
    const NEXT: Incarnation = Incarnation(11);
    const TIMING: Timing = Timing { lease: 2000, heartbeat: 200 };

    fn ms(at: u64) -> Millis {
        Millis(1_000_000 + at)
    }

    fn state(incarnation: Incarnation) -> State {
        let tablet = Tablet {
            endpoint: "t:1".into(),
            incarnation,
            starts: vec![incarnation],
            dir_uuid: String::new(),
            boot_id: String::new(),
            healthy: true,
            since: 0,
            version: 1.into(),
            past: Vec::new(),
            leaving: false,
            sdk_endpoint: String::new(),
        };
        State { tablets: BTreeMap::from([(T, tablet)]), ..State::default() }
    }

    /// Ticks every 100 ms up to `to`.
    fn run(judge: &mut Judge, from: u64, to: u64) {
        for at in (from..=to).step_by(100) {
            judge.tick(ms(at));
        }
    }

    fn seen(judge: &Judge, at: u64) -> Seen {
        judge.seen(&state(RUN), ms(at))[&T]
    }

    #[test]
    fn one_that_was_never_heard_has_a_lease_and_a_tenth_from_the_take_over() {
        let mut judge = Judge::new(TIMING, ms(0));
        run(&mut judge, 0, 2200);
        assert_eq!(seen(&judge, 2200), Seen { incarnation: RUN, ..Seen::default() });
        assert!(seen(&judge, 2201).silent);
    }

    #[test]
    fn one_that_registers_during_a_reign_has_a_lease_and_a_tenth_to_be_heard() {
        let mut judge = Judge::new(TIMING, ms(0));
        judge.acquaint(&state(RUN), ms(100));
        run(&mut judge, 0, 5000);
        judge.acquaint(&state(NEXT), ms(5000));
        let silent = |judge: &Judge, at| judge.seen(&state(NEXT), ms(at))[&T].silent;
        assert!(!silent(&judge, 7200) && silent(&judge, 7201));
        let mut judge = Judge::new(TIMING, ms(0));
        judge.acquaint(&state(RUN), ms(2000));
        assert!(seen(&judge, 2201).silent, "it was there when this nameserver took over");
    }

    #[test]
    fn silence_counts_from_the_last_heartbeat() {
        let mut judge = Judge::new(TIMING, ms(0));
        judge.opened(T, RUN, StreamId(1), ms(100));
        run(&mut judge, 0, 5000);
        judge.heard(T, StreamId(1), ms(3000));
        assert!(
            seen(&judge, 4000).alive && !seen(&judge, 4001).alive,
            "half a lease without a word: no candidate"
        );
        assert!(!seen(&judge, 5200).silent && seen(&judge, 5201).silent);
        judge.heard(T, StreamId(9), ms(5200));
        assert!(seen(&judge, 5201).silent, "what came on another stream does not count");
    }

    #[test]
    fn a_nameserver_that_stood_still_begins_the_grace_again() {
        let mut judge = Judge::new(TIMING, ms(0));
        run(&mut judge, 0, 1000);
        judge.tick(ms(2001));
        assert!(!seen(&judge, 4201).silent && seen(&judge, 4202).silent);
        // A gap of half a lease is none.
        run(&mut judge, 2001, 4201);
        judge.tick(ms(5201));
        assert!(seen(&judge, 5201).silent);
    }

    #[test]
    fn the_fast_path_takes_a_broken_stream_and_then_a_refusal() {
        let mut judge = Judge::new(TIMING, ms(0));
        judge.opened(T, RUN, StreamId(1), ms(0));
        judge.refused(T, RUN, ms(0));
        assert!(!seen(&judge, 10).refused, "its stream is open");
        assert!(judge.suspects().is_empty());
        assert!(judge.closed(T, StreamId(1)));
        assert!(!judge.closed(T, StreamId(1)));
        assert_eq!(judge.suspects(), [(T, RUN)]);
        assert!(!seen(&judge, 10).alive && !seen(&judge, 10).refused);
        judge.refused(T, NEXT, ms(0));
        assert!(!seen(&judge, 10).refused);
        judge.refused(T, RUN, ms(0));
        assert!(seen(&judge, 10).refused && judge.suspects().is_empty());
        // It comes back.
        judge.opened(T, RUN, StreamId(2), ms(20));
        assert!(seen(&judge, 20).alive && !seen(&judge, 20).refused);
        assert!(!judge.closed(T, StreamId(1)), "the end of an old stream is no news");
    }

    /// D3: the leading nameserver and a tablet die together. The next one never had a stream of that tablet.
    #[test]
    fn one_that_opens_no_stream_when_a_nameserver_takes_over_is_looked_for() {
        let mut judge = Judge::new(TIMING, ms(0));
        judge.acquaint(&state(RUN), ms(100));
        run(&mut judge, 0, 400);
        assert!(judge.suspects().is_empty(), "it has had two heartbeats to come");
        judge.tick(ms(500));
        assert_eq!(judge.suspects(), [(T, RUN)]);
        assert!(!seen(&judge, 500).refused);
        judge.refused(T, RUN, ms(0));
        assert!(seen(&judge, 500).refused && !seen(&judge, 500).silent);
        judge.opened(T, RUN, StreamId(1), ms(600));
        assert!(!seen(&judge, 600).refused && judge.suspects().is_empty());
    }

    #[test]
    fn a_nameserver_that_stood_still_makes_the_handshake_again() {
        let mut judge = Judge::new(TIMING, ms(0));
        judge.opened(T, RUN, StreamId(1), ms(0));
        judge.closed(T, StreamId(1));
        judge.refused(T, RUN, ms(0));
        judge.tick(ms(200));
        assert!(seen(&judge, 200).refused);
        judge.tick(ms(401));
        assert!(!seen(&judge, 401).refused);
        assert_eq!(judge.suspects(), [(T, RUN)]);
        judge.refused(T, RUN, ms(400));
        assert!(!seen(&judge, 401).refused, "it was begun before (R18)");
        judge.refused(T, RUN, ms(401));
        assert!(seen(&judge, 401).refused);
    }

    #[test]
    fn signs_of_one_run_say_nothing_of_another() {
        let mut judge = Judge::new(TIMING, ms(0));
        judge.opened(T, RUN, StreamId(1), ms(0));
        judge.registered(T, NEXT, ms(100));
        assert!(!seen(&judge, 100).alive);
        let next = judge.seen(&state(NEXT), ms(100))[&T];
        assert_eq!(
            next,
            Seen { incarnation: NEXT, ..Seen::default() },
            "registered, and its stream is not there yet"
        );
        assert!(
            !judge.closed(T, StreamId(1)),
            "the old stream ends: no suspicion against the new run"
        );
        run(&mut judge, 0, 2300);
        let next = judge.seen(&state(NEXT), ms(2301))[&T];
        assert!(next.silent, "it registered and was not heard again");
    }

    /// Found by the simulation: a nameserver that stood still attends to a stream that its tablet has given up after the one
    /// that took its place, and took the tablet for silent for as long as it spoke.
    #[test]
    fn who_speaks_on_the_newer_stream_is_alive_though_the_older_one_was_noted_last() {
        let mut judge = Judge::new(TIMING, ms(0));
        judge.opened(T, RUN, StreamId(2), ms(10));
        judge.opened(T, RUN, StreamId(1), ms(11));
        assert!(judge.closed(T, StreamId(1)));
        judge.refused(T, RUN, ms(12));
        judge.heard(T, StreamId(2), ms(200));
        run(&mut judge, 0, 200);
        assert_eq!(seen(&judge, 200), Seen { incarnation: RUN, alive: true, ..Seen::default() });
        assert!(judge.closed(T, StreamId(2)), "it is the stream that counts");
    }
}
