//! Backend messages: cut from the stream, and written as one line for golden scripts and failure messages.

use std::fmt::Write;

use anyhow::ensure;

/// One message: its type byte and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The type byte.
    pub tag: u8,
    /// All that follows the length.
    pub body: Vec<u8>,
}

impl Message {
    /// The first message in `bytes` and the length of what it takes up; none while it is not whole.
    pub(super) fn cut(bytes: &[u8]) -> anyhow::Result<Option<(Self, usize)>> {
        let [tag, a, b, c, d, rest @ ..] = bytes else { return Ok(None) };
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        ensure!(length >= 4, "the server sent a message of length {length}");
        let body = rest.get(..length - 4).map(<[u8]>::to_vec);
        Ok(body.map(|body| (Self { tag: *tag, body }, length + 1)))
    }

    /// The value of a field of ErrorResponse or NoticeResponse, such as `C` for the SQLSTATE.
    pub fn field(&self, code: u8) -> Option<String> {
        let mut body = Body(&self.body);
        loop {
            match body.u8() {
                0 => return None,
                found => {
                    let value = body.string();
                    if found == code {
                        return Some(value);
                    }
                }
            }
        }
    }

    /// The values of a DataRow.
    pub fn values(&self) -> Vec<Option<Vec<u8>>> {
        let mut body = Body(&self.body);
        let count = body.u16();
        (0..count).map(|_| body.value()).collect()
    }
}

/// The message as golden scripts write it: its standard name, then what matters in it. Of BackendKeyData that is the
/// length of the key.
pub fn describe(message: &Message) -> String {
    let mut body = Body(&message.body);
    let mut line = String::from(name(message.tag));
    match message.tag {
        b'C' => words(&mut line, [quote(body.string().as_bytes())]),
        b'D' => words(&mut line, message.values().iter().map(|value| optional(value.as_deref()))),
        b'T' => {
            let count = body.u16();
            words(&mut line, (0..count).map(|_| body.column()));
        }
        b't' => {
            let count = body.u16();
            words(&mut line, (0..count).map(|_| body.u32().to_string()));
        }
        b'E' | b'N' => {
            let severity = message.field(b'V').unwrap_or_default();
            let sqlstate = message.field(b'C').unwrap_or_default();
            words(&mut line, [severity, sqlstate, quote(message.field(b'M').unwrap_or_default().as_bytes())]);
        }
        b'Z' => words(&mut line, [char::from(body.u8()).to_string()]),
        b'A' => {
            body.u32();
            words(&mut line, [quote(body.string().as_bytes()), quote(body.string().as_bytes())]);
        }
        b'd' => words(&mut line, [quote(&message.body)]),
        b'G' | b'H' | b'W' => {
            let format = if body.u8() == 0 { "text" } else { "binary" };
            words(&mut line, [format.to_owned(), body.u16().to_string()]);
        }
        b'V' => words(&mut line, [optional(body.value().as_deref())]),
        b'S' => words(&mut line, [quote(body.string().as_bytes()), quote(body.string().as_bytes())]),
        b'R' => words(&mut line, [body.u32().to_string()]),
        b'K' => words(&mut line, [message.body.len().saturating_sub(4).to_string()]),
        b'v' => {
            let version = body.u32();
            let count = body.u32();
            words(&mut line, [format!("{}.{}", version >> 16, version & 0xffff)]);
            words(&mut line, (0..count).map(|_| quote(body.string().as_bytes())));
        }
        _ => {}
    }
    line
}

/// Bytes as a golden script writes them: text in quotes, or `x'…'` where they are not printable.
pub fn quote(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')) => {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{}\"", escaped.replace('\n', "\\n").replace('\t', "\\t"))
        }
        _ => {
            let mut hex = String::from("x'");
            for byte in bytes {
                // Writing to a string cannot fail.
                let _ = write!(hex, "{byte:02x}");
            }
            hex + "'"
        }
    }
}

fn optional(value: Option<&[u8]>) -> String {
    value.map_or_else(|| "null".to_owned(), quote)
}

fn words(line: &mut String, words: impl IntoIterator<Item = String>) {
    for word in words {
        line.push(' ');
        line.push_str(&word);
    }
}

fn name(tag: u8) -> &'static str {
    NAMES.iter().find(|(found, _)| *found == tag).map_or("?", |(_, name)| name)
}

/// Takes a body apart. What is missing reads as zero: the server is trusted here, and a wrong reading fails the
/// comparison that it is made for.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(length.min(self.0.len()));
        self.0 = tail;
        head
    }

    fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn u16(&mut self) -> u16 {
        self.take(2).try_into().map_or(0, u16::from_be_bytes)
    }

    fn u32(&mut self) -> u32 {
        self.take(4).try_into().map_or(0, u32::from_be_bytes)
    }

    fn string(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let text = String::from_utf8_lossy(self.take(end)).into_owned();
        self.take(1);
        text
    }

    fn value(&mut self) -> Option<Vec<u8>> {
        let length = self.u32();
        (length != u32::MAX).then(|| self.take(length as usize).to_vec())
    }

    /// `name:type_oid:format`.
    fn column(&mut self) -> String {
        let name = self.string();
        self.take(6);
        let type_oid = self.u32();
        self.take(6);
        let format = if self.u16() == 0 { "text" } else { "binary" };
        format!("{name}:{type_oid}:{format}")
    }
}

const NAMES: [(u8, &str); 24] = [
    (b'1', "ParseComplete"),
    (b'2', "BindComplete"),
    (b'3', "CloseComplete"),
    (b'A', "NotificationResponse"),
    (b'C', "CommandComplete"),
    (b'D', "DataRow"),
    (b'E', "ErrorResponse"),
    (b'G', "CopyInResponse"),
    (b'H', "CopyOutResponse"),
    (b'I', "EmptyQueryResponse"),
    (b'K', "BackendKeyData"),
    (b'N', "NoticeResponse"),
    (b'R', "Authentication"),
    (b'S', "ParameterStatus"),
    (b'T', "RowDescription"),
    (b'V', "FunctionCallResponse"),
    (b'W', "CopyBothResponse"),
    (b'Z', "ReadyForQuery"),
    (b'c', "CopyDone"),
    (b'd', "CopyData"),
    (b'n', "NoData"),
    (b's', "PortalSuspended"),
    (b't', "ParameterDescription"),
    (b'v', "NegotiateProtocolVersion"),
];

/// The SQLSTATE and the words of the error among `replies`.
pub fn error(replies: &[Message]) -> Option<String> {
    let error = replies.iter().find(|reply| reply.tag == b'E')?;
    Some(format!("{} {}", error.field(b'C')?, error.field(b'M')?))
}
