//! Clients: writers that repeat a write with its request id until it is acknowledged, and readers that ask whoever
//! leads, or once did.

use stela_common::ids::PartitionKey;

use super::clock::MS;
use super::disk::Id;
use super::random::Random;
use super::scene::{Event, Scene};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// To store a value.
    Put(Id),
    /// To show all.
    Get,
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
    /// Acknowledged, or shown.
    Done,
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
    key: PartitionKey,
    seq: u64,
    /// What is asked now.
    pub asking: Option<Ask>,
    attempt: u64,
    target: usize,
}

impl Client {
    /// A client of a partition.
    pub fn new(at: usize, writes: bool, key: PartitionKey) -> Self {
        Self { at, writes, key, seq: 0, asking: None, attempt: 0, target: 0 }
    }

    /// Acts.
    pub fn go_on(&mut self, event: ClientEvent, scene: &mut Scene) {
        match event {
            ClientEvent::Go if self.asking.is_none() => {
                self.asking = Some(if self.writes {
                    self.seq += 1;
                    Ask::Put(Id { session: self.at as u64 + 1, seq: self.seq })
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
        if !self.writes && scene.random.chance(400) {
            self.target = scene.random.index(scene.profile.tablets);
        }
        let request = Request { client: self.at, attempt: self.attempt, key: self.key, ask };
        let delay = scene.latency();
        scene.after(delay, Event::Asked(self.target, request));
        let patience = if self.writes { scene.random.between(100, 800) } else { 1200 };
        scene.after(patience * MS, Event::Client(self.at, ClientEvent::Again(self.attempt)));
    }

    /// An answer arrives.
    pub fn answered(&mut self, reply: Reply, scene: &mut Scene) {
        let request = reply.request;
        match (self.asking, reply.outcome) {
            // A late answer to an earlier try of the same write is as good.
            (Some(Ask::Put(id)), Outcome::Done) if matches!(request.ask, Ask::Put(of) if of == id) => {
                self.done(scene)
            }
            (Some(Ask::Get), Outcome::Done) if request.attempt == self.attempt => self.done(scene),
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
