//! COPY's CSV format.

use std::borrow::Cow;

use super::{Fields, Found, Options, State};

/// Finds a line's end: a newline outside of quotes.
pub(super) fn inspect(data: &[u8], from: usize, state: &mut State, options: &Options) -> Found {
    let mut at = from;
    while let Some(byte) = data.get(at) {
        if state.quoted && *byte == options.escape && options.escape != options.quote {
            if at + 1 >= data.len() {
                return Found::More(at);
            }
            at += 2;
            continue;
        }
        // A doubled quote closes and opens again, which comes to the same.
        if *byte == options.quote {
            state.quoted = !state.quoted;
        } else if *byte == b'\n' && !state.quoted {
            return Found::Row(at + 1);
        }
        at += 1;
    }
    Found::More(at)
}

/// The fields of a line.
pub(super) fn fields<'a>(line: &'a [u8], options: &Options) -> Fields<'a> {
    let mut fields = Vec::new();
    let mut start = 0;
    let mut quoted = false;
    let mut any_quote = false;
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        if quoted && *byte == options.escape && options.escape != options.quote {
            at += 2;
            continue;
        }
        if *byte == options.quote {
            quoted = !quoted;
            any_quote = true;
        } else if *byte == options.delimiter && !quoted {
            fields.push(field(line.get(start..at).unwrap_or_default(), any_quote, options));
            start = at + 1;
            any_quote = false;
        }
        at += 1;
    }
    fields.push(field(line.get(start..).unwrap_or_default(), any_quote, options));
    fields
}

fn field<'a>(raw: &'a [u8], any_quote: bool, options: &Options) -> Option<Cow<'a, [u8]>> {
    if !any_quote {
        return (raw != options.null).then_some(Cow::Borrowed(raw));
    }
    let mut value = Vec::with_capacity(raw.len());
    let mut quoted = false;
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escapes = quoted
            && byte == options.escape
            && bytes.peek().is_some_and(|next| *next == options.quote || *next == options.escape);
        if escapes {
            value.extend(bytes.next());
        } else if byte == options.quote {
            quoted = !quoted;
        } else {
            value.push(byte);
        }
    }
    Some(Cow::Owned(value))
}
