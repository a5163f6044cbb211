//! Help, made from the table of flags.

use super::table::{FLAGS, Kind, Role};

/// `stela --help`.
pub(crate) fn overview() -> String {
    "\
Stela: a replicated time-series key-value store.

Usage: stela COMMAND [--FLAG=VALUE ...]
       stela --role=ROLE [--FLAG=VALUE ...]

Commands:
  demo         a whole cluster on this machine: it takes writes, loses a leader, loses nothing, heals
  import       a CSV file, or standard input, into a table
  nameserver   run a nameserver                      (--role=nameserver)
  tablet       run a tablet                          (--role=tablet)
  ns-client    commands for a cluster                (--role=ns_client)
  client       commands for one tablet               (--role=client)
  sql-client   show table status, and nothing else   (--role=sql_client)
  table        the options of a table: ack, sync, min_insync, read
  ops          an unclean election, when nobody else is left
  lost         tails that were set aside: list, show, insert again
  inspect      a tablet's directory: what it holds, and whether all of it can be read

Flags that every role has:
  --flagfile=PATH   read flags from a file: one per line, # begins a comment
  --help            help; `stela COMMAND --help` shows the flags of a command
  --version         the version

Any flag may also be given as an environment variable: --layout=classic is STELA_LAYOUT=classic.
Flags of OpenMLDB's servers that mean nothing here are accepted, so that flag files can be shared.

Examples:
  stela demo
  stela nameserver --endpoint=10.0.0.1:6527 --nameservers=10.0.0.1:6527,10.0.0.2:6527,10.0.0.3:6527 \\
      --db_root_path=/var/lib/stela/nameserver --bootstrap
  stela tablet --endpoint=10.0.0.1:9527 --nameservers=10.0.0.1:6527,10.0.0.2:6527,10.0.0.3:6527 \\
      --db_root_path=/var/lib/stela/tablet
  stela --zk_cluster=10.0.0.1:6527 --role=ns_client --interactive=false --cmd=showtablet
"
    .into()
}

/// `stela tablet --help` and the like.
pub(crate) fn role(role: Role) -> String {
    let mut text = format!(
        "{}\n\nUsage: stela {} [--FLAG=VALUE ...]\n\nFlags:\n",
        about(role),
        role.command()
    );
    for flag in FLAGS.iter().filter(|f| f.roles.contains(&role) && f.name != "role") {
        let value = match flag.kind {
            Kind::Truth => "",
            Kind::Number => "=N",
            Kind::Text | Kind::Word(_) => "=X",
        };
        let words = if let Kind::Word(words) = flag.kind {
            format!(" ({})", words.join("|"))
        } else {
            String::new()
        };
        let default = match (flag.kind, flag.default) {
            (_, "") | (Kind::Truth, "false") => String::new(),
            (_, default) => format!(" [{default}]"),
        };
        text.push_str(&format!("  --{}{value}{words}{default}\n", flag.name));
        for line in wrap(flag.help, 92) {
            text.push_str(&format!("        {line}\n"));
        }
    }
    text.push_str(&format!("\nExamples:\n{}", examples(role)));
    text
}

fn about(role: Role) -> &'static str {
    match role {
        Role::Nameserver => {
            "A nameserver: a member of the group that holds the cluster's metadata and directs failover."
        }
        Role::Tablet => {
            "A tablet: it holds replicas of partitions, and serves and replicates them."
        }
        Role::NsClient => {
            "Commands for a cluster. Without --cmd they are read from a prompt, or line by line from a pipe."
        }
        Role::Client => {
            "Commands for one tablet. Without --cmd they are read from a prompt, or line by line from a pipe."
        }
        Role::SqlClient => {
            "The one statement of SQL that operators' tools ask for: show table status [like '<database>'];"
        }
    }
}

fn examples(role: Role) -> &'static str {
    match role {
        Role::Nameserver => "\
  stela nameserver --endpoint=127.0.0.1:6527 --nameservers=127.0.0.1:6527 --db_root_path=ns --bootstrap
  stela nameserver --flagfile=conf/nameserver.flags
",
        Role::Tablet => "\
  stela tablet --endpoint=127.0.0.1:9527 --nameservers=127.0.0.1:6527 --db_root_path=tablet
  stela tablet --flagfile=conf/tablet.flags
",
        Role::NsClient => "\
  stela ns-client --nameservers=127.0.0.1:6527
  stela ns-client --nameservers=127.0.0.1:6527 --cmd='showtable' --database=db1 --interactive=false
  echo showtablet | stela ns-client --nameservers=127.0.0.1:6527 --output=json
",
        Role::Client => "\
  stela client --endpoint=127.0.0.1:9527
  stela client --endpoint=127.0.0.1:9527 --interactive=false --cmd='gettablestatus 1 0'
",
        Role::SqlClient => "\
  stela sql-client --nameservers=127.0.0.1:6527 --interactive=false --cmd=\"show table status like 'db%';\"
",
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let full = lines.last().is_some_and(|l| !l.is_empty() && l.len() + 1 + word.len() > width);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
