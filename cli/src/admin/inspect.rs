//! `stela inspect DIR`: what a tablet's directory holds, and whether all of it can be read.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::print::{Answer, Cell, Part, Style, Table, write};

/// Something is damaged.
const DAMAGED: u8 = 1;
/// The directory could not be looked at.
const UNREAD: u8 = 2;

/// Which directory, and how the answer is printed.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Every byte that carries a checksum is read: identity, fences, tables, the log, snapshots, and tails that were set aside.
Nothing is changed. The tablet must not run.

Exit status: 0 all is whole, 1 something is damaged, 2 the directory cannot be looked at.

Example: stela inspect /var/lib/stela/tablet1")]
pub(crate) struct Args {
    /// The tablet's --db_root_path
    dir: PathBuf,
    /// Tables as JSON, for scripts
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// Runs it.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let items = match stela_tablet::inspect::inspect(&args.dir) {
        Ok(items) => items,
        Err(error) => return Ok(crate::fail(&error.to_string(), UNREAD)),
    };
    let mut shown = Table::new(&["kind", "path", "bytes", "state", "detail"]);
    let mut damaged = 0;
    for item in items {
        let path = item.path.strip_prefix(&args.dir).unwrap_or(&item.path).display().to_string();
        let (state, detail) = match item.damage {
            None => ("ok", item.detail),
            Some(why) => {
                damaged += 1;
                ("DAMAGED", why)
            }
        };
        let detail = if detail.is_empty() { "-".to_owned() } else { detail };
        shown.push(vec![
            Cell::text(item.kind),
            Cell::text(path),
            Cell::number(item.bytes),
            Cell::text(state),
            Cell::text(detail),
        ]);
    }
    let answer = Answer { parts: vec![Part::Plain(shown)], ..Answer::default() };
    let style = Style { json: args.output == "json", longest_cell: usize::MAX };
    write(&mut std::io::stdout(), &answer, style)?;
    Ok(match damaged {
        0 => ExitCode::SUCCESS,
        count => {
            crate::complain(&format!(
                "{count} of these are damaged: a replica that is whole elsewhere rebuilds this one when the tablet is started"
            ));
            ExitCode::from(DAMAGED)
        }
    })
}
