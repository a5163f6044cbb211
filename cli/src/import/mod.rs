//! `stela import`: rows of a CSV file, or of standard input, into a table.
//!
//! ```text
//! source (records, lines) -> mapping (record -> row) -> batches ==bounded channel==> sender (several at once) -> report
//!          one thread                                                        the client
//! ```
//!
//! Invariants:
//! * Memory is bounded: by the batches on their way and by the longest record that is taken, not by the file.
//! * Every row of the file ends up in one count: stored, bad, or in a range of lines whose outcome is said. A bad row is
//!   told by its line number and stops nothing, unless `--strict`.
//! * The status is 0 only if every row that was not bad is stored.

mod batch;
mod columns;
mod mapping;
mod report;
mod send;
mod source;
pub(crate) mod time;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use stela_common::client::{Client, Options};
use stela_common::code::Code;

use self::columns::Columns;
use self::mapping::{Mapping, Wanted};
use self::report::Report;
use self::source::Source;

/// How long a batch is tried before its outcome is called unknown: longer than any failover.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `stela import` is asked for.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Columns are named by the file's header, or by --columns, or by their number from 1. \
A table without a schema takes --key, --time and --value (by default the columns key, time and value). \
A table with a schema takes for each of its columns the file's column of the same name; where the names differ, \
--key, --time and --value name the file's columns for its key, its time and its one other column.

Times are milliseconds since 1970, 2024-02-29, '2024-02-29 13:14:15[.678]', or RFC 3339 such as \
2024-02-29T13:14:15+01:00; without an offset they are UTC. \
An empty field is null, in a string column an empty string.

The status is 0 if every row that was not bad is stored, and 1 otherwise, or if all rows were bad.")]
pub struct Args {
    /// The CSV file; without it, or as -, standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The cluster's nameservers; one that answers is enough
    #[arg(
        long,
        alias = "zk_cluster",
        value_name = "HOST:PORT,...",
        required = true,
        value_delimiter = ','
    )]
    nameservers: Vec<String>,
    /// The cluster that is meant (default: the one that answers)
    #[arg(long, alias = "zk_root_path", value_name = "NAME")]
    cluster: Option<String>,
    /// The table's database
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    db: String,
    /// The table
    #[arg(long, value_name = "NAME")]
    table: String,
    /// The column of the key
    #[arg(long, value_name = "COL")]
    key: Option<String>,
    /// The column of the time
    #[arg(long, value_name = "COL")]
    time: Option<String>,
    /// The column of the value
    #[arg(long, value_name = "COL")]
    value: Option<String>,
    /// Names for the file's columns, instead of those in its header
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    columns: Vec<String>,
    /// The first line is a row and no header
    #[arg(long)]
    no_header: bool,
    /// What stands between fields: one character, or \t or tab
    #[arg(long, value_name = "CHAR", default_value = ",", value_parser = delimiter)]
    delimiter: u8,
    /// Stop at the first bad row
    #[arg(long)]
    strict: bool,
    /// Rows that are sent together
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// Show progress also where standard error is no terminal
    #[arg(long, conflicts_with = "quiet")]
    progress: bool,
    /// Show no progress, and only count bad rows
    #[arg(long, short)]
    quiet: bool,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        br"\t" | b"tab" => Ok(b'\t'),
        [b'\n' | b'\r' | b'"'] => Err("a line end or a quote cannot stand between fields".into()),
        [one] if one.is_ascii() => Ok(*one),
        _ => Err(r"give one ASCII character, or \t for a tab".into()),
    }
}

/// Runs it. The summary goes to standard output, all else to standard error.
///
/// # Errors
/// Nothing could be imported: the text names the cause and the cure.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut source = Source::open(args.file.as_deref(), args.delimiter)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(Box::pin(async {
        let cluster = args.cluster.as_deref().map(|name| name.trim_start_matches('/').to_owned());
        let options =
            Options { cluster, timeout: PATIENCE, ..Options::new(args.nameservers.clone()) };
        let client = Client::connect(options).await?;
        let table =
            client.table(&args.db, &args.table).await.map_err(|refusal| match refusal.code {
                Code::TableNotFound => anyhow!(
                    "{}: create it with ns_client, or correct --db and --table",
                    refusal.text
                ),
                Code::DatabaseNotFound => {
                    anyhow!("database {}: {}: correct --db", args.db, refusal.text)
                }
                _ => anyhow!("{refusal}"),
            })?;
        let columns = Columns::of(&mut source, args.no_header, &args.columns)?;
        let wanted = Wanted {
            key: args.key.as_deref(),
            time: args.time.as_deref(),
            value: args.value.as_deref(),
        };
        let mapping = Mapping::new(table.table(), &columns, &wanted)?;
        let mut report = Report::new(&args.db, &args.table, args.progress, args.quiet);
        report.unused(&mapping.unused(&columns));
        let batches =
            batch::read(source, mapping, table.clone(), args.batch as usize, args.strict)?;
        send::all(&client, &table, batches, &mut report).await?;
        Ok(report.conclude()?)
    }))
}

#[cfg(test)]
mod fake;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters() {
        assert_eq!(delimiter(";"), Ok(b';'));
        assert_eq!(delimiter(r"\t"), Ok(b'\t'));
        assert_eq!(delimiter("tab"), Ok(b'\t'));
        for bad in ["", ";;", "\"", "\n", "§"] {
            assert!(delimiter(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_flags_of_old_scripts_are_taken() {
        use clap::{Args as _, FromArgMatches as _};
        let parse = |args: &[&str]| {
            let command = Args::augment_args(clap::Command::new("import"));
            command.try_get_matches_from(args).map(|m| Args::from_arg_matches(&m).unwrap())
        };
        let args =
            parse(&["import", "--zk_cluster=a:1,b:2", "--zk_root_path", "/x", "--table", "t", "-"])
                .unwrap();
        assert_eq!((args.nameservers.len(), args.cluster.as_deref()), (2, Some("/x")));
        assert!(parse(&["import", "--table", "t"]).is_err());
        assert!(parse(&["import", "--nameservers=a:1", "--table=t", "--batch=0"]).is_err());
        assert!(
            parse(&["import", "--nameservers=a:1", "--table=t", "--quiet", "--progress"]).is_err()
        );
    }
}
