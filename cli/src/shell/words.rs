//! A line as words: how `ns_client` splits and reads them.

use std::collections::BTreeSet;
use std::str::FromStr;

/// A command and its arguments: what blanks separate. There is no quoting, and a tab is no blank.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    /// The words of a line.
    pub(crate) fn new(line: &'a str) -> Self {
        Self(line.split(' ').filter(|w| !w.is_empty()).collect())
    }

    /// The command.
    pub(crate) fn command(&self) -> &'a str {
        self.0.first().copied().unwrap_or("")
    }

    /// What follows the command.
    pub(crate) fn args(&self) -> &[&'a str] {
        self.0.get(1..).unwrap_or(&[])
    }
}

/// Arguments of the form `key=value`, in any order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pairs<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Pairs<'a> {
    /// Reads them if the first one names `lead`, else `None`: then the arguments are meant by position. `Some(Err(()))`:
    /// one of them has no value.
    pub(crate) fn read(args: &[&'a str], lead: &str) -> Option<Result<Self, ()>> {
        let pieces =
            |word: &'a str| -> Vec<&'a str> { word.split('=').filter(|p| !p.is_empty()).collect() };
        let first = pieces(args.first()?);
        if first.len() != 2 || first[0] != lead {
            return None;
        }
        let pair = |word: &&'a str| match pieces(word)[..] {
            [key, value, ..] => Ok((key, value)),
            _ => Err(()),
        };
        Some(args.iter().map(pair).collect::<Result<_, _>>().map(Self))
    }

    /// The value of a key; of one that is repeated, the first.
    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
    }
}

/// A number without a sign. OpenMLDB also takes `12abc` for 12; that is not what anybody means.
pub(crate) fn unsigned<N: FromStr>(text: &str) -> Option<N> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Partitions: `3`, `1-5` (both included) or `1,2,3`; sorted, each once. An error is the text to print.
pub(crate) fn pid_group(text: &str) -> Result<Vec<u32>, String> {
    let wrong = || format!("pid group[{text}] format error");
    let number = |text: &str| -> Result<u32, String> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Ok(number),
            _ if digits => Err(format!("Invalid args. pid should be uint32_t\n{}", wrong())),
            _ => Err(wrong()),
        }
    };
    let pids: BTreeSet<u32> = if let Some((from, to)) = text.split_once('-') {
        let (from, to) = (number(from)?, number(to)?);
        if to.saturating_sub(from) >= stela_common::table::limits::PARTITIONS {
            return Err(wrong());
        }
        (from..=to).collect()
    } else {
        text.split(',').map(number).collect::<Result<_, _>>()?
    };
    if pids.is_empty() { Err("has not valid pid".into()) } else { Ok(pids.into_iter().collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_separate_and_nothing_else_does() {
        let words = Words::new("showopstatus   t\t1  \"a b\" ");
        assert_eq!(words.command(), "showopstatus");
        assert_eq!(words.args(), ["t\t1", "\"a", "b\""]);
        assert_eq!(Words::new("").command(), "");
        assert!(Words::new("").args().is_empty());
    }

    #[test]
    fn pairs_are_chosen_by_the_first_word() {
        let read = |line: &'static str| Pairs::read(Words::new(line).args(), "table_name");
        assert_eq!(read("get t k 1"), None);
        assert_eq!(read("get"), None);
        assert_eq!(read("get table_name= k 1"), None);
        assert_eq!(read("get key=k table_name=t"), None);
        let pairs = read("get table_name=t ts==5=6 key=k key=l").unwrap().unwrap();
        assert_eq!(
            (pairs.get("table_name"), pairs.get("ts"), pairs.get("key")),
            (Some("t"), Some("5"), Some("k"))
        );
        assert_eq!(pairs.get("index_name"), None);
        assert_eq!(read("get table_name=t key="), Some(Err(())));
        assert_eq!(read("get table_name=t key"), Some(Err(())));
    }

    #[test]
    fn numbers() {
        assert_eq!(unsigned::<u32>("12"), Some(12));
        for bad in ["", "-1", "+1", "12abc", " 1", "4294967296"] {
            assert_eq!(unsigned::<u32>(bad), None, "{bad}");
        }
    }

    #[test]
    fn pid_groups() {
        assert_eq!(pid_group("3"), Ok(vec![3]));
        assert_eq!(pid_group("1-3"), Ok(vec![1, 2, 3]));
        assert_eq!(pid_group("3,1,3"), Ok(vec![1, 3]));
        assert_eq!(pid_group("5-1"), Err("has not valid pid".into()));
        for bad in ["", "1-3,5", "a", "1,", "-1", "1-2-3", "0-4294967295"] {
            assert_eq!(pid_group(bad), Err(format!("pid group[{bad}] format error")));
        }
        let far = "4294967296";
        assert_eq!(
            pid_group(far),
            Err(format!("Invalid args. pid should be uint32_t\npid group[{far}] format error"))
        );
    }
}
