//! Commands that operators know and that Stela does not have: replication between clusters, and OpenMLDB's test hooks for
//! ZooKeeper. Arguments are checked in the words of each command; then it is refused in one clear line.

use crate::print::Answer;
use crate::shell::{Ask, unsigned};

const WHY: &str = "replication between clusters is not supported yet";

/// Refuses a command, if it is one. Tools look for `error msg` to tell a failure.
pub(super) fn command(name: &str, args: &[&str], ask: &mut dyn Ask) -> Option<Answer> {
    let refused = |failed: &str| Answer::failed(format!("{failed} error msg: {WHY}"));
    let usage = |text: &str| Answer::failed(text.to_owned());
    Some(match (name, args) {
        ("addrepcluster", [_, _, _]) => refused("addrepcluster failed."),
        ("addrepcluster", _) => {
            usage("addrepcluster format error. eg: addrepcluster zk_endpoints zk_path alias_name")
        }
        ("showrepcluster", _) => refused("Fail to show replica."),
        ("removerepcluster", []) => usage("Bad format. eg removerepcluster dc2"),
        ("removerepcluster", [alias, ..]) => {
            if ask.yes(&format!("Drop replica {alias}? yes/no")) {
                refused("remove failed.")
            } else {
                usage(&format!("'drop {alias}' cmd is canceled!"))
            }
        }
        ("switchmode", []) => usage("Bad format"),
        ("switchmode", ["normal", ..]) => Answer::done("switchmode ok"),
        ("switchmode", ["leader", ..]) => refused("Fail to switch mode."),
        ("switchmode", _) => usage("invalid mode type"),
        ("synctable", [_, _, pid]) if unsigned::<u32>(pid).is_none() => {
            usage("Invalid args. pid should be uint32_t")
        }
        ("synctable", [_, _] | [_, _, _]) => refused("failed to synctable."),
        ("synctable", _) => {
            usage("Bad format for synctable! eg. synctable table_name cluster_alias [pid]")
        }
        ("connectzk", _) => usage("Fail to connect zk").because("Stela has no ZooKeeper"),
        ("disconnectzk", _) => usage("Fail to disconnect zk").because("Stela has no ZooKeeper"),
        _ => return None,
    })
}
