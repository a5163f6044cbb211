//! How an empty directory becomes a member of a group: it founds one with the others of its list, or is taken in by one.
//!
//! **Invariants**
//! * A group is founded once, by one: the first of the list in sorted order, and only when every other of the list has
//!   answered, in one round, that its directory is empty, that its list is the same set and that it is to found, too. The
//!   others never found; they come in when a nameserver tells them that their directory is named in its group. So there
//!   is one first entry, whatever is wiped or restarted meanwhile.
//! * As soon as one of the list has a group, an empty directory founds nothing. It waits until the group names it.
//! * Crash story: the number is on disk before the first message is sent or taken in its name; the directory counts as
//!   empty until a vote or an entry is written, which is after that. Before, it is asked again as an empty one; after, it
//!   is a member.
//! * Whom it waits for is told, again only when that changes or after a long time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use stela_proto::raft as pb;
use tokio::time::{Instant, timeout};

use crate::config::Config;
use crate::error::StartError;
use crate::identity::Identity;
use crate::raft::channels::{Channels, Lane};
use crate::raft::seat::Seat;
use crate::raft::types::Peer;

/// Between rounds of questions.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one nameserver may take to answer.
const ANSWER: Duration = Duration::from_millis(600);
/// The same wait is told again after so long.
const REPEAT: Duration = Duration::from_secs(30);

/// What the nameservers of the list, but for this one, answered.
type Answers = BTreeMap<String, Option<pb::IntroduceReply>>;

/// What an empty directory does next.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    /// Found the group with these members.
    Found(BTreeMap<u64, Peer>),
    /// Come in under this number.
    Join(u64),
    /// Wait; for whom or what.
    Wait(String),
}

/// Asks the others for their cluster, before anything is touched; those that do not answer are passed over.
///
/// # Errors
/// One is of another cluster.
pub async fn check_cluster(config: &Config) -> Result<(), StartError> {
    let asker = pb::IntroduceRequest {
        from: Some(pb::Identity { cluster: config.cluster.clone(), ..Default::default() }),
        ..Default::default()
    };
    let answers = ask(&Channels::default(), config, &asker).await;
    same_cluster(config, &answers)
}

/// Waits until the empty directory of this seat is a member, and starts it as that. Ends only then.
///
/// # Errors
/// The list is wrong, the disk refuses, or the group does not start.
pub async fn become_member(
    seat: &Arc<Seat>,
    config: &Config,
    identity: &mut Identity,
) -> Result<(), StartError> {
    let channels = Channels::default();
    let mut told = Instant::now();
    loop {
        let asker = pb::IntroduceRequest {
            from: Some(pb::Identity {
                cluster: config.cluster.clone(),
                dir_uuid: identity.dir_uuid.clone(),
                ..Default::default()
            }),
            nameservers: config.list().into_iter().collect(),
            bootstrap: config.bootstrap,
            endpoint: config.endpoint.clone(),
        };
        let answers = ask(&channels, config, &asker).await;
        same_cluster(config, &answers)?;
        match decide(config, identity, &answers)? {
            Step::Found(members) => {
                let own = members
                    .iter()
                    .find(|(_, peer)| peer.dir_uuid == identity.dir_uuid)
                    .map_or(0, |(id, _)| *id);
                tracing::info!(
                    cluster = config.cluster,
                    members = members.len(),
                    "founds the group of nameservers"
                );
                start(seat, config, identity, own).await?;
                return seat.found(members).await;
            }
            Step::Join(id) => {
                tracing::info!(cluster = config.cluster, id, "comes into the group of nameservers");
                return start(seat, config, identity, id).await;
            }
            Step::Wait(what) => {
                if seat.set_waiting(what.clone()) || told.elapsed() > REPEAT {
                    tracing::warn!(endpoint = config.endpoint, "waits: {what}");
                    told = Instant::now();
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The number first, on disk; then the member.
async fn start(
    seat: &Arc<Seat>,
    config: &Config,
    identity: &mut Identity,
    id: u64,
) -> Result<(), StartError> {
    identity.node = id;
    identity.write(&config.dir)?;
    seat.start(id).await
}

async fn ask(channels: &Channels, config: &Config, asker: &pb::IntroduceRequest) -> Answers {
    let others = config.list().into_iter().filter(|e| *e != config.endpoint);
    let questions = others.map(|endpoint| async move {
        let answer = match channels.client(&endpoint, Lane::Talk) {
            Ok(mut client) => {
                let mut request = tonic::Request::new(asker.clone());
                request.set_timeout(ANSWER);
                timeout(ANSWER, client.introduce(request))
                    .await
                    .ok()
                    .and_then(Result::ok)
                    .map(tonic::Response::into_inner)
            }
            Err(_) => None,
        };
        (endpoint, answer)
    });
    join_all(questions).await.into_iter().collect()
}

fn same_cluster(config: &Config, answers: &Answers) -> Result<(), StartError> {
    let other = answers.iter().find_map(|(endpoint, answer)| {
        let theirs = &answer.as_ref()?.cluster;
        (*theirs != config.cluster).then(|| (endpoint.clone(), theirs.clone()))
    });
    match other {
        None => Ok(()),
        Some((endpoint, theirs)) => {
            Err(StartError::OtherCluster { endpoint, theirs, ours: config.cluster.clone() })
        }
    }
}

fn decide(config: &Config, identity: &Identity, answers: &Answers) -> Result<Step, StartError> {
    let present =
        || answers.iter().filter_map(|(endpoint, answer)| answer.as_ref().map(|a| (endpoint, a)));
    if let Some((_, answer)) = present().find(|(_, a)| a.admitted != 0) {
        return Ok(Step::Join(answer.admitted));
    }
    let mut seen = BTreeMap::from([(identity.dir_uuid.as_str(), config.endpoint.as_str())]);
    for (endpoint, answer) in present() {
        if let Some(twice) = seen.insert(&answer.dir_uuid, endpoint) {
            return Err(StartError::Config(format!(
                "{twice} and {endpoint} are the same nameserver; name each one once in --nameservers"
            )));
        }
    }
    if let Some((endpoint, _)) = present().find(|(_, a)| a.state() == pb::DirState::Group) {
        return Ok(Step::Wait(format!(
            "{endpoint} has a group already; this empty directory comes in as a learner when the group's leader takes it in"
        )));
    }
    if !config.bootstrap {
        return Ok(Step::Wait("the directory is empty and no group takes it in; to found one, start it with --bootstrap".into()));
    }
    let list = config.list();
    let reasons: Vec<String> = answers
        .iter()
        .filter_map(|(endpoint, answer)| {
            let Some(answer) = answer else { return Some(format!("{endpoint} (does not answer)")) };
            let theirs: BTreeSet<String> = answer.nameservers.iter().cloned().collect();
            if theirs != list {
                let theirs: Vec<_> = theirs.into_iter().collect();
                return Some(format!(
                    "{endpoint} (was started with the list {})",
                    theirs.join(",")
                ));
            }
            (!answer.bootstrap).then(|| format!("{endpoint} (was started without --bootstrap)"))
        })
        .collect();
    if !reasons.is_empty() {
        return Ok(Step::Wait(format!("to found the group it waits for {}", reasons.join(", "))));
    }
    match list.first() {
        Some(first) if *first != config.endpoint => {
            Ok(Step::Wait(format!("{first} is about to found the group")))
        }
        _ => Ok(Step::Found(members(config, identity, answers))),
    }
}

/// The members of a new group: numbers by sorted endpoint, from 1.
fn members(config: &Config, identity: &Identity, answers: &Answers) -> BTreeMap<u64, Peer> {
    let uuid = |endpoint: &String| match answers.get(endpoint) {
        Some(Some(answer)) => answer.dir_uuid.clone(),
        _ => identity.dir_uuid.clone(),
    };
    let peers =
        config.list().into_iter().map(|endpoint| Peer { dir_uuid: uuid(&endpoint), endpoint });
    (1..).zip(peers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(own: &str) -> Config {
        let list = ["c:1", "a:1", "b:1"].map(String::from).to_vec();
        Config { bootstrap: true, ..Config::new(own.into(), list, "/nowhere".into(), "c".into()) }
    }

    fn empty(uuid: &str) -> pb::IntroduceReply {
        pb::IntroduceReply {
            cluster: "c".into(),
            dir_uuid: uuid.into(),
            nameservers: ["b:1", "c:1", "a:1"].map(String::from).to_vec(),
            bootstrap: true,
            ..Default::default()
        }
    }

    fn answers(of: &[(&str, Option<pb::IntroduceReply>)]) -> Answers {
        of.iter().map(|(e, a)| ((*e).to_owned(), a.clone())).collect()
    }

    fn step(own: &str, of: &[(&str, Option<pb::IntroduceReply>)]) -> Step {
        let config = config(own);
        let identity = Identity { dir_uuid: format!("u{own}"), ..Identity::draw(&config) };
        decide(&config, &identity, &answers(of)).unwrap()
    }

    fn waits_for(step: &Step, text: &str) {
        assert!(
            matches!(step, Step::Wait(what) if what.contains(text)),
            "{step:?} does not name {text}"
        );
    }

    #[test]
    fn the_first_of_the_list_founds_when_all_others_are_empty_and_have_the_same_list() {
        let Step::Found(members) =
            step("a:1", &[("b:1", Some(empty("ub"))), ("c:1", Some(empty("uc")))])
        else {
            panic!("not founded")
        };
        let shown: Vec<_> =
            members.iter().map(|(id, p)| (*id, p.endpoint.as_str(), p.dir_uuid.as_str())).collect();
        assert_eq!(shown, [(1, "a:1", "ua:1"), (2, "b:1", "ub"), (3, "c:1", "uc")]);
        waits_for(
            &step("b:1", &[("a:1", Some(empty("ua"))), ("c:1", Some(empty("uc")))]),
            "a:1 is about to found",
        );
    }

    #[test]
    fn it_waits_and_says_for_whom() {
        waits_for(
            &step("a:1", &[("b:1", Some(empty("ub"))), ("c:1", None)]),
            "c:1 (does not answer)",
        );
        let other =
            pb::IntroduceReply { nameservers: vec!["a:1".into(), "b:1".into()], ..empty("uc") };
        waits_for(
            &step("a:1", &[("b:1", Some(empty("ub"))), ("c:1", Some(other))]),
            "c:1 (was started with the list a:1,b:1)",
        );
        let plain = pb::IntroduceReply { bootstrap: false, ..empty("uc") };
        waits_for(
            &step("a:1", &[("b:1", Some(empty("ub"))), ("c:1", Some(plain))]),
            "c:1 (was started without",
        );
    }

    #[test]
    fn where_there_is_a_group_it_founds_nothing() {
        let group = pb::IntroduceReply { state: pb::DirState::Group.into(), ..empty("uc") };
        waits_for(
            &step("a:1", &[("b:1", Some(empty("ub"))), ("c:1", Some(group.clone()))]),
            "c:1 has a group",
        );
        let named = pb::IntroduceReply { admitted: 3, ..group };
        assert_eq!(step("a:1", &[("b:1", None), ("c:1", Some(named))]), Step::Join(3));
    }

    #[test]
    fn one_server_under_two_names_and_another_cluster_are_refused() {
        let config = config("a:1");
        let identity = Identity { dir_uuid: "ua".into(), ..Identity::draw(&config) };
        let twice = answers(&[("b:1", Some(empty("ub"))), ("c:1", Some(empty("ub")))]);
        let refused = decide(&config, &identity, &twice).unwrap_err().to_string();
        assert!(refused.contains("b:1 and c:1 are the same nameserver"), "{refused}");
        let other = pb::IntroduceReply { cluster: "d".into(), ..empty("ub") };
        let refused = same_cluster(&config, &answers(&[("b:1", Some(other)), ("c:1", None)]))
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("b:1") && refused.contains("'d'") && refused.contains("--cluster"),
            "{refused}"
        );
    }
}
