//! A message that the server must not act on, made into one of the same length that fails for certain, with an ordinary
//! error: its session lives on. [Message Formats](https://www.postgresql.org/docs/current/protocol-message-formats.html)
//!
//! A whole message becomes a Query, or in the extended protocol a Parse, of a string constant. No statement is one, so the
//! server's parser refuses it, naming the constant: `syntax error at or near "'…'"`. What it says is ours; nothing of the
//! message's own text stays.
//!
//! Of a message whose beginning the server has taken already, the end is left. There [`SPOILED`] in the place of a
//! string's end makes the string one without an end, and in the place of a count one of more values than the message has
//! bytes: the server refuses both before it looks at what the message asks for (`pq_getmsgstring`, `pq_getmsgint` in
//! `src/backend/libpq/pqformat.c`).

/// The message in the place of `message`, whose text says `reason`; none if it is none that can be refused.
pub(super) fn refusal(message: &[u8], reason: &[u8]) -> Option<Vec<u8>> {
    let (header, body) = message.split_first_chunk::<5>()?;
    let [tag, a, b, c, d] = *header;
    if u32::from_be_bytes([a, b, c, d]) as usize != message.len() - 1 {
        return None;
    }
    let mut refused = Vec::with_capacity(message.len());
    match tag {
        // The server answers either with ReadyForQuery.
        b'Q' | b'F' => {
            refused.extend([b'Q', a, b, c, d]);
            constant(&mut refused, body.len().checked_sub(1)?, reason)?;
            refused.push(0);
        }
        // After an error in any of these it passes over everything until Sync.
        b'P' | b'B' | b'E' => {
            // The unnamed statement.
            refused.extend([b'P', a, b, c, d, 0]);
            constant(&mut refused, body.len().checked_sub(4)?, reason)?;
            // No types of parameters.
            refused.extend([0, 0, 0]);
        }
        _ => return None,
    }
    Some(refused)
}

/// What takes the place of each byte of a message's end.
pub(super) const SPOILED: u8 = 0xff;

/// Appends a string constant of `length` bytes, as far as `reason` fits, with spaces behind it. Of one byte it is an
/// unterminated one, which fails too. None if there is no room at all: an empty text does not fail.
fn constant(out: &mut Vec<u8>, length: usize, reason: &[u8]) -> Option<()> {
    let end = out.len() + length;
    if length == 0 {
        return None;
    }
    out.push(b'\'');
    let room = length.saturating_sub(2);
    // No quote may end the constant, and no backslash change its meaning, under any setting and in any encoding.
    out.extend(reason.iter().take(room).map(|byte| match byte {
        b'\'' => b'"',
        b'\\' => b'/',
        b' '..=b'~' => *byte,
        _ => b'?',
    }));
    if length > 1 {
        out.push(b'\'');
    }
    out.resize(end, b' ');
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    /// The text that the server would hand to its parser, as `exec_simple_query` and `exec_parse_message` read it.
    fn text(refused: &[u8]) -> &[u8] {
        let body = &refused[5..];
        let zero = |bytes: &[u8]| bytes.iter().position(|byte| *byte == 0).unwrap();
        match refused[0] {
            b'Q' => {
                assert_eq!(zero(body), body.len() - 1, "one string, and nothing behind it");
                &body[..body.len() - 1]
            }
            b'P' => {
                assert_eq!(body[0], 0, "the unnamed statement");
                let text = &body[1..];
                assert_eq!(text[zero(text)..], [0, 0, 0]);
                &text[..zero(text)]
            }
            tag => panic!("{tag}"),
        }
    }

    proptest! {
        #[test]
        fn what_the_server_parses_fails(
            tag in prop::sample::select(b"QPBEF".as_slice()),
            body in prop::collection::vec(any::<u8>(), 0..400),
            reason in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let message = message(tag, &body);
            let least = if tag == b'Q' || tag == b'F' { 2 } else { 5 };
            let refused = refusal(&message, &reason);
            prop_assert_eq!(refused.is_some(), body.len() >= least);
            if let Some(refused) = refused {
                prop_assert_eq!(refused.len(), message.len());
                prop_assert_eq!(&refused[1..5], &message[1..5]);
                let text = str::from_utf8(text(&refused)).unwrap();
                prop_assert!(pg_query::parse(text, 0).is_err(), "{}", text);
            }
        }
    }

    #[test]
    fn it_says_why_as_far_as_there_is_room() {
        let refused = refusal(&message(b'Q', b"drop table payments\0"), b"no 'drops'\\\xe4").unwrap();
        assert_eq!(text(&refused), b"'no \"drops\"/?'     ");
        let refused = refusal(&message(b'E', b"\0\0\0\0\0"), b"no").unwrap();
        assert_eq!(text(&refused), b"'");
        assert_eq!(refusal(&message(b'X', b"abcdef"), b"no"), None);
        assert_eq!(refusal(b"Q\0\0\0\x20abc", b"no"), None);
        assert_eq!(refusal(b"Q", b"no"), None);
    }
}
