//! What each command prints, against a cluster in memory.

mod catalog;
mod cluster;
mod rows;

use std::time::Duration;

use super::*;
use crate::fake::{self, Fake};
use crate::print::{self, Style};

struct Answers {
    yes: bool,
    asked: Vec<String>,
}

impl Ask for Answers {
    fn yes(&mut self, question: &str) -> bool {
        self.asked.push(question.into());
        self.yes
    }
}

struct Bench {
    fake: Fake,
    session: Session,
    answers: Answers,
    json: bool,
    /// Of the last command.
    failed: bool,
    causes: Vec<String>,
}

async fn bench(layout: Layout) -> Bench {
    let fake = fake::start().await;
    let options = Cluster {
        cluster: None,
        timeout: Duration::from_millis(1000),
        ..Cluster::new(vec![fake.nameserver.clone()])
    };
    let client = Client::connect(options).await.unwrap();
    let session = Session {
        client,
        leader: "NS".into(),
        by_list: true,
        db: Arc::default(),
        layout,
        preview: PreviewLimits { default: 100, most: 1000 },
    };
    let answers = Answers { yes: true, asked: vec![] };
    Bench { fake, session, answers, json: false, failed: false, causes: vec![] }
}

impl Bench {
    async fn say(&mut self, line: &str) -> String {
        let answer = self.session.command(&Words::new(line), &mut self.answers).await;
        let mut out = Vec::new();
        print::write(&mut out, &answer, Style { json: self.json, longest_cell: 256 }).unwrap();
        (self.failed, self.causes) = (answer.failed, answer.causes);
        self.fake.mask(&String::from_utf8(out).unwrap())
    }

    /// Lines without the blanks at their ends.
    async fn lines(&mut self, line: &str) -> Vec<String> {
        self.say(line).await.lines().map(|l| l.trim_end().to_owned()).collect()
    }

    /// Each line's answer, which is one line.
    async fn each(&mut self, script: &[(&str, &str)]) {
        for (line, want) in script {
            assert_eq!(self.say(line).await, format!("{want}\n"), "{line}");
        }
    }
}
