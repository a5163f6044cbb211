//! Clients: writers that repeat a write with its request id until it is acknowledged, and readers that ask whoever
//! leads, or once did; both ask followers, too, and want to see there what they have seen to be done (R35). Most of the
//! time a client is about one partition, and now and then about another one that is there.

use std::collections::BTreeMap;

use stela_common::ids::PartitionKey;
use stela_common::table::Ack;

use super::clock::MS;
use super::disk::Id;
use super::fault::Fault;
use super::ghost::Token;
use super::random::Random;
use super::scene::{Event, Scene};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// To store a value, as soon as those have it that the level names.
    Put(Id, Ack),
    /// To show all.
    Get,
    /// To show all that is known there, and not less than that (R35).
    Follow(Token),
}

/// A request as it arrives at a tablet.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Who asks.
    pub client: usize,
    /// Which try of his.
    pub attempt: u64,
    /// About which partition.
    pub key: PartitionKey,
    /// What.
    pub ask: Ask,
}

/// How a try ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// Acknowledged, or shown, up to there.
    Done(Token),
    /// Not by this tablet, perhaps by that one; or nobody knows.
    Refused(Option<usize>),
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// To what.
    pub request: Request,
    /// What.
    pub outcome: Outcome,
}

/// What a client does next.
#[derive(Clone, Copy, Debug)]
pub enum ClientEvent {
    /// Asks the next thing.
    Go,
    /// Asks again where the last answer to that try pointed.
    Follow(u64),
    /// Asks again somewhere, if that try has no answer.
    Again(u64),
}

/// A client.
pub struct Client {
    at: usize,
    writes: bool,
    home: PartitionKey,
    key: PartitionKey,
    seq: u64,
    /// What is asked now.
    pub asking: Option<Ask>,
    attempt: u64,
    target: usize,
    /// What was seen to be done.
    seen: BTreeMap<PartitionKey, Token>,
}

impl Client {
    /// A client of a partition.
    pub fn new(at: usize, writes: bool, key: PartitionKey) -> Self {
        let seen = BTreeMap::new();
        Self { at, writes, home: key, key, seq: 0, asking: None, attempt: 0, target: 0, seen }
    }

    /// Acts.
    pub fn go_on(&mut self, event: ClientEvent, scene: &mut Scene) {
        if self.asking.is_some() && !scene.live.contains(&self.key) {
            // Its table was dropped.
            return self.done(scene);
        }
        match event {
            ClientEvent::Go if self.asking.is_none() => {
                self.key = self.home;
                if scene.random.chance(150) {
                    self.key = scene.random.pick(&scene.live).copied().unwrap_or(self.home);
                }
                let follows = scene.random.chance(if self.writes { 100 } else { 350 });
                self.asking = Some(if follows {
                    Ask::Follow(self.seen.get(&self.key).copied().unwrap_or_default())
                } else if self.writes {
                    self.seq += 1;
                    let level = if scene.random.chance(80) { Ack::Leader } else { Ack::All };
                    Ask::Put(Id { session: self.at as u64 + 1, seq: self.seq }, level)
                } else {
                    Ask::Get
                });
                self.send(scene);
            }
            ClientEvent::Follow(attempt) if attempt == self.attempt && self.asking.is_some() => {
                self.send(scene)
            }
            ClientEvent::Again(attempt) if attempt == self.attempt && self.asking.is_some() => {
                self.target = scene.random.index(scene.profile.tablets);
                self.send(scene);
            }
            _ => {}
        }
    }

    fn send(&mut self, scene: &mut Scene) {
        let Some(ask) = self.asking else { return };
        self.attempt += 1;
        let anywhere = matches!(ask, Ask::Follow(_)) || (!self.writes && scene.random.chance(400));
        if anywhere {
            self.target = scene.random.index(scene.profile.tablets);
        }
        let request = Request { client: self.at, attempt: self.attempt, key: self.key, ask };
        let target = self.target;
        if !scene.befalls(Fault::LoseRequest, target, self.key) {
            let delay = scene.latency();
            scene.after(delay, Event::Asked(target, request));
        }
        if scene.befalls(Fault::RepeatRequest, target, self.key) {
            let delay = scene.random.between(MS, 1500 * MS);
            scene.after(delay, Event::Asked(target, request));
        }
        let patience = if self.writes { scene.random.between(100, 800) } else { 1200 };
        scene.after(patience * MS, Event::Client(self.at, ClientEvent::Again(self.attempt)));
    }

    /// An answer arrives.
    pub fn answered(&mut self, reply: Reply, scene: &mut Scene) {
        let request = reply.request;
        match (self.asking, reply.outcome) {
            // A late answer to an earlier try of the same write is as good.
            (Some(Ask::Put(id, _)), Outcome::Done(token)) if matches!(request.ask, Ask::Put(of, _) if of == id) =>
            {
                self.has_seen(request.key, token);
                self.done(scene)
            }
            (Some(Ask::Get | Ask::Follow(_)), Outcome::Done(token))
                if request.attempt == self.attempt =>
            {
                self.has_seen(request.key, token);
                self.done(scene)
            }
            (Some(_), Outcome::Refused(hint)) if request.attempt == self.attempt => match hint {
                Some(hint) if hint < scene.profile.tablets => {
                    self.target = hint;
                    scene.after(2 * MS, Event::Client(self.at, ClientEvent::Follow(self.attempt)));
                }
                _ => {
                    let delay = scene.random.between(5 * MS, 40 * MS);
                    scene.after(delay, Event::Client(self.at, ClientEvent::Again(self.attempt)));
                }
            },
            _ => {}
        }
    }

    fn has_seen(&mut self, key: PartitionKey, token: Token) {
        let seen = self.seen.entry(key).or_default();
        *seen = token.max(*seen);
    }

    fn done(&mut self, scene: &mut Scene) {
        self.asking = None;
        let pause = pause(&mut scene.random);
        scene.after(pause, Event::Client(self.at, ClientEvent::Go));
    }
}

/// Between two things that a client asks.
fn pause(random: &mut Random) -> u64 {
    if random.chance(500) { random.between(0, MS) } else { random.between(MS, 40 * MS) }
}
