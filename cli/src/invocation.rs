//! What is to be started: a subcommand with its own arguments, or a role with flags.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use crate::flags::{self, Flags, Parsed, Role};
use crate::{USAGE, VERSION, admin, demo, fail, import, ns, say, server, sql, tablet};

#[derive(Parser)]
#[command(
    name = "stela demo",
    version,
    about = "A whole cluster on this machine: it takes writes, loses a leader, loses nothing, heals",
    max_term_width = 100
)]
struct DemoLine {
    #[command(flatten)]
    args: demo::Args,
}

#[derive(Parser)]
#[command(
    name = "stela import",
    version,
    about = "A CSV file, or standard input, into a table",
    max_term_width = 100
)]
struct ImportLine {
    #[command(flatten)]
    args: import::Args,
}

#[derive(Parser)]
#[command(name = "stela table", version, about = "The options of a table", max_term_width = 100)]
struct TableLine {
    #[command(subcommand)]
    command: admin::table::Command,
}

#[derive(Parser)]
#[command(
    name = "stela ops",
    version,
    about = "What only an operator decides, and work over many partitions",
    max_term_width = 100
)]
struct OpsLine {
    #[command(subcommand)]
    command: admin::ops::Command,
}

#[derive(Parser)]
#[command(
    name = "stela lost",
    version,
    about = "Tails that replicas set aside when they joined a leader that did not have them",
    max_term_width = 100
)]
struct LostLine {
    #[command(subcommand)]
    command: admin::lost::Command,
}

#[derive(Parser)]
#[command(
    name = "stela inspect",
    version,
    about = "What a tablet's directory holds, and whether all of it can be read",
    max_term_width = 100
)]
struct InspectLine {
    #[command(flatten)]
    args: admin::inspect::Args,
}

/// Runs what `args` ask for (the first one is the program's name) and tells with which status the process ends.
pub fn main_with(args: impl Iterator<Item = String>) -> ExitCode {
    let args: Vec<String> = args.skip(1).collect();
    let Some(first) = args.first() else {
        // Help that nobody asked for, and nobody need read.
        let _ = std::io::stderr().write_all(flags::overview().as_bytes());
        return ExitCode::from(USAGE);
    };
    match first.as_str() {
        "demo" => subcommand("demo", &args, |line: DemoLine| demo::run(line.args)),
        "import" => subcommand("import", &args, |line: ImportLine| import::run(line.args)),
        "table" => subcommand("table", &args, |line: TableLine| admin::table::run(line.command)),
        "lost" => subcommand("lost", &args, |line: LostLine| admin::lost::run(line.command)),
        "inspect" => {
            subcommand("inspect", &args, |line: InspectLine| admin::inspect::run(&line.args))
        }
        "ops" => subcommand("ops", &args, |line: OpsLine| admin::ops::run(line.command)),
        "help" => help(args.get(1).map(String::as_str)),
        word => match Role::parse(word).filter(|_| !word.starts_with('-')) {
            Some(role) => with_role(role, read(&args[1..]), USAGE),
            None if !word.starts_with('-') => {
                fail(&format!("unknown command '{word}'; stela --help lists the commands"), USAGE)
            }
            None => with_flags(read(&args)),
        },
    }
}

fn read(args: &[String]) -> Parsed {
    flags::parse(args, |name| std::env::var(name).ok())
}

/// `--role=...` among the flags.
fn with_flags(parsed: Parsed) -> ExitCode {
    let word = parsed.flags.text("role");
    match Role::parse(word) {
        // Scripts know 1 as the clients' only status for wrong flags.
        Some(role) => with_role(role, parsed, if role.is_client() { 1 } else { USAGE }),
        None if parsed.flags.truth("version") => version(),
        None if parsed.flags.truth("help") && word.is_empty() => help(None),
        None => match (parsed.error, word) {
            (Some(error), _) => fail(&error.to_string(), USAGE),
            (None, "") => fail(
                "no --role is given: name one of nameserver, tablet, ns_client, client, sql_client, or use a command (stela --help)",
                USAGE,
            ),
            (None, word @ "apiserver") => fail(
                &format!("Invalid role: {word}; Stela has no server for SQL: use --role=ns_client"),
                USAGE,
            ),
            (None, word) => fail(
                &format!(
                    "Invalid role: {word}; it is one of nameserver, tablet, ns_client, client, sql_client"
                ),
                USAGE,
            ),
        },
    }
}

fn with_role(role: Role, parsed: Parsed, usage: u8) -> ExitCode {
    let Parsed { flags, error } = parsed;
    if flags.truth("version") {
        return version();
    }
    if flags.truth("help") {
        return help(Some(role.word()));
    }
    if let Some(error) = error {
        return fail(&error.to_string(), usage);
    }
    let other = |word: &str| !word.is_empty() && Role::parse(word) != Some(role);
    if other(flags.text("role")) {
        return fail(
            &format!(
                "--role={} after the command {}; give one of them",
                flags.text("role"),
                role.command()
            ),
            usage,
        );
    }
    start(role, &flags, usage)
}

fn start(role: Role, flags: &Flags, usage: u8) -> ExitCode {
    match role {
        Role::Nameserver => server::nameserver(flags),
        Role::Tablet => server::tablet(flags),
        Role::NsClient => ns::main(flags, usage),
        Role::Client => tablet::main(flags, usage),
        Role::SqlClient => sql::main(flags, usage),
    }
}

fn version() -> ExitCode {
    say(&format!("stela version {VERSION}\n"));
    ExitCode::SUCCESS
}

fn help(about: Option<&str>) -> ExitCode {
    match about {
        None => say(&flags::overview()),
        Some(word @ ("demo" | "import" | "table" | "ops" | "lost")) => {
            return main_with(["stela", word, "--help"].into_iter().map(Into::into));
        }
        Some(word) => match Role::parse(word) {
            Some(role) => say(&flags::role_help(role)),
            None => {
                return fail(
                    &format!("no help for '{word}'; stela --help lists the commands"),
                    USAGE,
                );
            }
        },
    }
    ExitCode::SUCCESS
}

/// A subcommand with arguments of its own.
fn subcommand<L: Parser>(
    name: &str,
    args: &[String],
    run: impl FnOnce(L) -> anyhow::Result<ExitCode>,
) -> ExitCode {
    let program = format!("stela {name}");
    match L::try_parse_from(std::iter::once(&program).chain(&args[1..])) {
        Ok(line) => run(line).unwrap_or_else(|error| fail(&format!("{error:#}"), 1)),
        Err(error) if !error.use_stderr() => {
            // Help, or the version: where standard output is closed, nobody reads it.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        Err(error) => {
            // What it is about stands in the first paragraph, one thing a line.
            let text = error.render().to_string();
            let cause: Vec<&str> =
                text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
            let cause = cause.join(" ");
            let cause = cause.trim_start_matches("error: ");
            fail(&format!("{cause}; stela {name} --help shows the usage"), USAGE)
        }
    }
}
