//! A table's options as words: `ack=all|leader`, `sync=commit|interval:MS`, `min_insync=N`, `read=permit|confirm`.

use stela_common::table::{Ack, Options, Read, Sync};

/// The options that some words name; the others stay as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Words {
    /// Who must have a write before it is acknowledged.
    pub(crate) ack: Option<Ack>,
    /// When a write counts as stored.
    pub(crate) sync: Option<Sync>,
    /// Writes are refused while fewer replicas are in sync.
    pub(crate) min_insync: Option<u32>,
    /// How reads at the leader are made safe.
    pub(crate) read: Option<Read>,
}

impl Words {
    /// `options` with what the words change.
    pub(crate) fn over(self, options: Options) -> Options {
        Options {
            ack: self.ack.unwrap_or(options.ack),
            sync: self.sync.unwrap_or(options.sync),
            min_insync: self.min_insync.unwrap_or(options.min_insync),
            read: self.read.unwrap_or(options.read),
        }
    }
}

/// Does the word name an option?
pub(crate) fn is(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| ["ack", "sync", "min_insync", "read"].contains(&name))
}

/// Reads the words.
///
/// # Errors
/// Which word is wrong, and what it should be.
pub(crate) fn read(words: &[impl AsRef<str>]) -> Result<Words, String> {
    let mut read = Words::default();
    for word in words.iter().map(AsRef::as_ref) {
        let wrong = |want: &str| Err(format!("'{word}' is wrong: it takes {want}"));
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match (name, value, value.split_once(':')) {
            ("ack", "all", _) => set(&mut read.ack, Ack::All, word)?,
            ("ack", "leader", _) => set(&mut read.ack, Ack::Leader, word)?,
            ("ack", ..) => return wrong("ack=all or ack=leader"),
            ("sync", "commit", _) => set(&mut read.sync, Sync::Commit, word)?,
            ("sync", _, Some(("interval", ms))) => match ms.parse() {
                Ok(ms @ 1..=60_000) => set(&mut read.sync, Sync::Interval(ms), word)?,
                _ => return wrong("sync=interval:MS with 1 to 60000 ms"),
            },
            ("sync", ..) => return wrong("sync=commit or sync=interval:MS"),
            ("min_insync", number, _) => match number.parse() {
                Ok(number @ 1..) => set(&mut read.min_insync, number, word)?,
                _ => return wrong("min_insync=N with a number of replicas from 1"),
            },
            ("read", "permit", _) => set(&mut read.read, Read::Permit, word)?,
            ("read", "confirm", _) => set(&mut read.read, Read::Confirm, word)?,
            ("read", ..) => return wrong("read=permit or read=confirm"),
            _ => {
                return wrong(
                    "ack=all|leader, sync=commit|interval:MS, min_insync=N or read=permit|confirm",
                );
            }
        }
    }
    Ok(read)
}

fn set<T>(place: &mut Option<T>, value: T, word: &str) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("'{word}' says again what another word says; give one of them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_change_what_they_name() {
        let words = read(&["sync=interval:100", "min_insync=2", "read=confirm"]).unwrap();
        let changed = words.over(Options { ack: Ack::Leader, ..Options::default() });
        let sync = Sync::Interval(100);
        let wanted = Options { ack: Ack::Leader, sync, min_insync: 2, read: Read::Confirm };
        assert_eq!(changed, wanted);
        assert_eq!(read(&[""; 0]).unwrap(), Words::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (word, text) in [
            ("ack=some", "'ack=some' is wrong: it takes ack=all or ack=leader"),
            ("sync=interval", "sync=commit or sync=interval:MS"),
            ("sync=interval:0", "1 to 60000 ms"),
            ("sync=interval:60001", "1 to 60000 ms"),
            ("min_insync=0", "a number of replicas from 1"),
            ("min_insync=many", "a number of replicas from 1"),
            ("read=maybe", "read=permit or read=confirm"),
            ("ttl=4", "ack=all|leader"),
            ("x", "ack=all|leader"),
        ] {
            let error = read(&[word]).unwrap_err();
            assert!(error.contains(text), "{word}: {error}");
        }
        let twice = read(&["ack=all", "ack=leader"]).unwrap_err();
        assert!(twice.contains("says again"), "{twice}");
    }
}
