//! Protobuf's text format, as far as a description of a table needs it: `name: value`, `name { .. }`, comments.

/// The fields of a message, in their order.
pub(super) type Message = Vec<(String, Value)>;

/// A value of a field.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    /// A number, a truth value, an enumeration's word, or a quoted string.
    Word(String),
    /// A message.
    Message(Message),
}

/// Messages within messages within messages.
const DEEPEST: usize = 16;

/// Reads a whole text; `None`: it is not in the format.
pub(super) fn parse(text: &str) -> Option<Message> {
    let mut rest = text;
    let message = fields(&mut rest, 0)?;
    rest.is_empty().then_some(message)
}

/// Fields up to a `}` or the end, neither of which is taken.
fn fields(rest: &mut &str, depth: usize) -> Option<Message> {
    let mut message = Message::new();
    loop {
        skip(rest);
        if rest.is_empty() || rest.starts_with('}') || rest.starts_with('>') {
            return Some(message);
        }
        let name = word(rest)?;
        skip(rest);
        let colon = take(rest, ':');
        skip(rest);
        if take(rest, '[') {
            if !colon {
                return None;
            }
            loop {
                skip(rest);
                message.push((name.clone(), value(rest, depth)?));
                skip(rest);
                if take(rest, ']') {
                    break;
                }
                take(rest, ',').then_some(())?;
            }
        } else {
            if !colon && !rest.starts_with(['{', '<']) {
                return None;
            }
            message.push((name, value(rest, depth)?));
        }
        skip(rest);
        let _separator = take(rest, ',') || take(rest, ';');
    }
}

fn value(rest: &mut &str, depth: usize) -> Option<Value> {
    for (open, close) in [('{', '}'), ('<', '>')] {
        if take(rest, open) {
            if depth == DEEPEST {
                return None;
            }
            let message = fields(rest, depth + 1)?;
            return take(rest, close).then_some(Value::Message(message));
        }
    }
    for quote in ['"', '\''] {
        if take(rest, quote) {
            return quoted(rest, quote).map(Value::Word);
        }
    }
    word(rest).map(Value::Word)
}

fn quoted(rest: &mut &str, quote: char) -> Option<String> {
    let mut text = String::new();
    let mut letters = rest.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => text.push(match letters.next()?.1 {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            '\n' => return None,
            _ if letter == quote => {
                *rest = &rest[at + quote.len_utf8()..];
                return Some(text);
            }
            _ => text.push(letter),
        }
    }
    None
}

fn word(rest: &mut &str) -> Option<String> {
    let end = rest
        .find(|c: char| !c.is_ascii_alphanumeric() && !"_-+.".contains(c))
        .unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    (!word.is_empty()).then(|| word.to_owned())
}

fn take(rest: &mut &str, letter: char) -> bool {
    let after = rest.strip_prefix(letter);
    *rest = after.unwrap_or(rest);
    after.is_some()
}

/// Passes over blanks and comments.
fn skip(rest: &mut &str) {
    loop {
        *rest = rest.trim_start();
        let Some(comment) = rest.strip_prefix('#') else { return };
        *rest = comment.find('\n').map_or("", |at| &comment[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let word = |w: &str| Value::Word(w.into());
        let got = parse("# a table\nname: \"t\\\"1\" partition_num : 8\nttl { ttl_type: kLatestTime, lat_ttl: 3 }\nc: ['a', 'b']; d < x: -1 >")
            .unwrap();
        assert_eq!(
            got,
            [
                ("name".into(), word("t\"1")),
                ("partition_num".into(), word("8")),
                (
                    "ttl".into(),
                    Value::Message(vec![
                        ("ttl_type".into(), word("kLatestTime")),
                        ("lat_ttl".into(), word("3"))
                    ])
                ),
                ("c".into(), word("a")),
                ("c".into(), word("b")),
                ("d".into(), Value::Message(vec![("x".into(), word("-1"))])),
            ]
        );
        assert_eq!(parse(""), Some(vec![]));
    }

    #[test]
    fn what_is_none() {
        for bad in [
            "name",
            "name \"t\"",
            "name: ",
            "a { b: 1",
            "a: 1 }",
            "a: \"x",
            "a: [1, 2",
            "a [1]",
            ": 1",
            "a: \"x\ny\"",
            "é: 1",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&"a {".repeat(100)), None);
    }
}
