//! The commands that do by hand what the cluster does by itself.
//!
//! While `auto_failover` is on they are refused, as operators know it. With it off they are not part of this version: the
//! arguments are checked and the answer is in the words of each command all the same.

use stela_common::code::{Code, Refusal};

use super::{Session, later};
use crate::print::Answer;
use crate::shell::{pid_group, unsigned};

const PID: &str = "Invalid args. pid should be uint32_t";

/// Answers a manual command; `None` if `name` is not one.
pub(super) async fn command(session: &Session, name: &str, args: &[&str]) -> Option<Answer> {
    let (checked, failed) = match name {
        "offlineendpoint" => (offlineendpoint(args), "failed to offline endpoint. error msg: "),
        "recoverendpoint" => (recoverendpoint(args), "failed to recover endpoint. error msg: "),
        "recovertable" => (recovertable(args), "Fail to recover table. error msg:"),
        "changeleader" => (changeleader(args), "failed to change leader. error msg: "),
        "migrate" => (migrate(args), "failed to migrate partition. error msg: "),
        "updatetablealive" => (updatetablealive(args), "Fail to update table alive. error msg: "),
        "settablepartition" => (at_least(2, args), "Fail to set table partition. error msg: "),
        "cancelop" => (cancelop(args), "Cancel op failed, error msg: "),
        _ => return None,
    };
    if let Err(text) = checked {
        return Some(Answer::failed(text));
    }
    let refusal = refusal(session, name).await;
    Some(match name {
        // It prints the code, too; of an answer that did not come, that of the client's own.
        "cancelop" => {
            Answer::failed(format!("{failed}ReturnCode[{}]{}", refusal.code as i32, refusal.text))
        }
        // These print the client's own words where no server said anything.
        "recovertable" | "changeleader" | "migrate" | "updatetablealive" => {
            Answer::failed(format!("{failed}{}", refusal.text))
        }
        _ => Answer::refused(failed, &refusal),
    })
}

async fn refusal(session: &Session, name: &str) -> Refusal {
    match session.client.admin().conf_get("auto_failover").await {
        Err(e) => e,
        Ok(reply) if reply.rows.iter().any(|r| r.key == "auto_failover" && r.value == "true") => {
            Code::AutoFailoverEnabled.into()
        }
        Ok(_) => Refusal::new(Code::InvalidParameter, later::text(name)),
    }
}

fn at_least(count: usize, args: &[&str]) -> Result<(), String> {
    if args.len() < count { Err("Bad format".into()) } else { Ok(()) }
}

fn pid(text: &str) -> Result<u32, String> {
    unsigned(text).ok_or_else(|| PID.into())
}

fn offlineendpoint(args: &[&str]) -> Result<(), String> {
    at_least(1, args)?;
    match args.get(1).map(|text| text.parse::<i32>()) {
        None | Some(Ok(1..)) => Ok(()),
        Some(Ok(_)) => Err("Invalid args. concurrency should be greater than 0".into()),
        Some(Err(_)) => Err("Invalid args. concurrency should be uint32_t".into()),
    }
}

fn recoverendpoint(args: &[&str]) -> Result<(), String> {
    at_least(1, args)?;
    if args
        .get(1)
        .is_some_and(|t| !t.eq_ignore_ascii_case("true") && !t.eq_ignore_ascii_case("false"))
    {
        return Err("Invalid args. need_restore should be true or false".into());
    }
    if args.get(2).is_some_and(|t| unsigned::<u32>(t).is_none()) {
        return Err("Invalid args. concurrency should be uint32".into());
    }
    Ok(())
}

fn recovertable(args: &[&str]) -> Result<(), String> {
    at_least(3, args)?;
    pid(args[1]).map(drop)
}

fn changeleader(args: &[&str]) -> Result<(), String> {
    at_least(2, args)?;
    pid(args[1]).map(drop)
}

fn migrate(args: &[&str]) -> Result<(), String> {
    let [from, _, pids, to, ..] = args else {
        return Err("Bad format. eg, migrate 127.0.0.1:9991 table1 1-10 127.0.0.1:9992".into());
    };
    if from == to {
        return Err("migrate error. src_endpoint is same as des_endpoint".into());
    }
    pid_group(pids).map(drop)
}

fn updatetablealive(args: &[&str]) -> Result<(), String> {
    at_least(4, args)?;
    if args[3] != "yes" && args[3] != "no" {
        return Err("is_alive should be yes or no".into());
    }
    if args[1] == "*" { Ok(()) } else { pid(args[1]).map(drop) }
}

fn cancelop(args: &[&str]) -> Result<(), String> {
    let Some(id) = args.first() else { return Err("bad cancelop format, eg cancelop 1002".into()) };
    unsigned::<u64>(id).map(drop).ok_or_else(|| "Invalid args. op_id should be uint64_t".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::Words;

    #[test]
    fn arguments_are_checked_in_the_words_of_each_command() {
        let check = |line: &str| {
            let words = Words::new(line);
            let args = words.args();
            match words.command() {
                "offlineendpoint" => offlineendpoint(args),
                "recoverendpoint" => recoverendpoint(args),
                "recovertable" => recovertable(args),
                "changeleader" => changeleader(args),
                "migrate" => migrate(args),
                "updatetablealive" => updatetablealive(args),
                "cancelop" => cancelop(args),
                other => panic!("{other}"),
            }
        };
        for good in [
            "offlineendpoint e",
            "offlineendpoint e 2",
            "recoverendpoint e TRUE 2",
            "recovertable t 1 e",
            "changeleader t 1 auto",
            "migrate a t 1-5 b",
            "updatetablealive t * e no",
            "cancelop 7",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, text) in [
            ("offlineendpoint", "Bad format"),
            ("offlineendpoint e 0", "Invalid args. concurrency should be greater than 0"),
            ("offlineendpoint e x", "Invalid args. concurrency should be uint32_t"),
            ("recoverendpoint e maybe", "Invalid args. need_restore should be true or false"),
            ("recoverendpoint e true x", "Invalid args. concurrency should be uint32"),
            ("recovertable t 1", "Bad format"),
            ("recovertable t x e", PID),
            ("changeleader t", "Bad format"),
            ("changeleader t x", PID),
            ("migrate a t 1", "Bad format. eg, migrate 127.0.0.1:9991 table1 1-10 127.0.0.1:9992"),
            ("migrate a t 1 a", "migrate error. src_endpoint is same as des_endpoint"),
            ("migrate a t 1-3,5 b", "pid group[1-3,5] format error"),
            ("updatetablealive t x e maybe", "is_alive should be yes or no"),
            ("updatetablealive t x e yes", PID),
            ("cancelop", "bad cancelop format, eg cancelop 1002"),
            ("cancelop x", "Invalid args. op_id should be uint64_t"),
        ] {
            assert_eq!(check(bad), Err(text.into()), "{bad}");
        }
    }
}
