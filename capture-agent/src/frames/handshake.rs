//! What a TLS handshake shows in clear: the version and the cipher suite, and whether data followed.
//!
//! Records: RFC 8446, section 5.1. ServerHello: section 4.1.3; up to TLS 1.2 RFC 5246, section 7.4.1.3.

mod suites;

use serde::{Deserialize, Serialize};

/// A TLS connection's beginning, as it passes over the socket.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Handshake {
    client: Records,
    server: Records,
    negotiated: Option<Negotiated>,
}

/// What client and server agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiated {
    /// `ProtocolVersion`, 0x0304 for TLS 1.3.
    version: u16,
    /// `CipherSuite`.
    suite: u16,
}

impl Handshake {
    /// Bytes at position `offset` of the socket's stream of that direction.
    pub fn feed(&mut self, from_server: bool, offset: u64, bytes: &[u8]) {
        if !from_server {
            return self.client.feed(offset, bytes);
        }
        self.server.feed(offset, bytes);
        if self.negotiated.is_none() {
            self.negotiated = server_hello(&self.server.handshake);
            if self.negotiated.is_some() {
                self.server.handshake = Vec::new();
            }
        }
    }

    /// What was agreed on, once it is known.
    pub fn negotiated(&self) -> Option<Negotiated> {
        self.negotiated
    }

    /// Whether the client sent more than a handshake; also if that is not known, since bytes are missing or are no TLS.
    pub fn carries_data(&self) -> bool {
        // Since TLS 1.3 the client's Finished looks like data.
        let finished = u64::from(self.negotiated.is_none_or(|agreed| agreed.version >= TLS_1_3));
        self.client.broken || self.server.broken || self.client.data > finished
    }
}

impl Negotiated {
    /// The version's name as OpenSSL, and so `pg_stat_ssl`, spells it.
    pub fn version(self) -> String {
        match self.version {
            0x0301 => "TLSv1".into(),
            0x0302 => "TLSv1.1".into(),
            0x0303 => "TLSv1.2".into(),
            TLS_1_3 => "TLSv1.3".into(),
            other => format!("0x{other:04X}"),
        }
    }

    /// The suite's name as OpenSSL, and so `pg_stat_ssl`, spells it; one without a name as its number.
    pub fn cipher(self) -> String {
        suites::name(self.suite).map_or_else(|| format!("0x{:04X}", self.suite), str::to_owned)
    }
}

/// One direction, cut into records.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Records {
    /// Position of the next byte, once there was one.
    next: Option<u64>,
    /// The front of a record's header: `header[..filled]`.
    header: [u8; HEADER],
    filled: usize,
    /// Bytes that are left of the present record, and its type.
    left: usize,
    content: u8,
    /// Records of application data that are longer than an alert.
    data: u64,
    /// What came in handshake records so far, at most [`MAX_HELLO`].
    handshake: Vec<u8>,
    /// Bytes are missing, or are no TLS.
    broken: bool,
}

impl Records {
    fn feed(&mut self, offset: u64, mut bytes: &[u8]) {
        self.broken |= self.next.is_some_and(|next| next != offset);
        self.next = Some(offset.saturating_add(bytes.len() as u64));
        while !self.broken && !bytes.is_empty() {
            if self.left > 0 {
                let (piece, rest) = bytes.split_at(self.left.min(bytes.len()));
                if self.content == HANDSHAKE {
                    let room = MAX_HELLO.saturating_sub(self.handshake.len());
                    self.handshake.extend_from_slice(piece.get(..room).unwrap_or(piece));
                }
                self.left -= piece.len();
                bytes = rest;
            } else if let Some((byte, rest)) = bytes.split_first() {
                bytes = rest;
                if let Some(slot) = self.header.get_mut(self.filled) {
                    *slot = *byte;
                    self.filled += 1;
                }
                if self.filled == HEADER {
                    self.begin();
                }
            }
        }
    }

    fn begin(&mut self) {
        let [content, major, _, high, low] = self.header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        self.broken |=
            !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&content) || major != 3 || length > MAX_RECORD;
        self.data += u64::from(content == APPLICATION_DATA && length > SEALED_ALERT);
        self.content = content;
        self.left = length;
        self.filled = 0;
    }
}

/// The ServerHello at the front of the server's handshake messages, if it is complete. A HelloRetryRequest is one, too,
/// and names the same version and suite.
fn server_hello(messages: &[u8]) -> Option<Negotiated> {
    let (&[kind, a, b, c], rest) = messages.split_first_chunk()?;
    let body = rest.get(..u32::from_be_bytes([0, a, b, c]) as usize).filter(|_| kind == SERVER_HELLO)?;
    let (&version, rest) = body.split_first_chunk()?;
    let (&session_id, rest) = rest.get(RANDOM..)?.split_first()?;
    let (&suite, rest) = rest.get(usize::from(session_id)..)?.split_first_chunk()?;
    // compression_method, then the extensions, if any: length, then type, length and data of each.
    let mut extensions = rest.get(3..).unwrap_or_default();
    let mut version = u16::from_be_bytes(version);
    while let Some((&[a, b, c, d], rest)) = extensions.split_first_chunk() {
        let data = rest.get(..usize::from(u16::from_be_bytes([c, d])))?;
        if u16::from_be_bytes([a, b]) == SUPPORTED_VERSIONS {
            version = u16::from_be_bytes(data.try_into().ok()?);
        }
        extensions = rest.get(data.len()..)?;
    }
    Some(Negotiated { version, suite: u16::from_be_bytes(suite) })
}

const HEADER: usize = 5;
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const SERVER_HELLO: u8 = 2;
const RANDOM: usize = 32;
const SUPPORTED_VERSIONS: u16 = 43;
const TLS_1_3: u16 = 0x0304;
/// 2^14 bytes and what a cipher may add (RFC 5246, section 6.2.3).
const MAX_RECORD: usize = (1 << 14) + 2048;
/// An alert of TLS 1.3 is encrypted: two bytes, the content type, and a tag of 16 bytes.
const SEALED_ALERT: usize = 19;
/// A ServerHello with the largest key share in use has about 1,300 bytes.
const MAX_HELLO: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(content: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![content, 3, 3];
        bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn hello(version: u16, suite: u16, extensions: &[u8]) -> Vec<u8> {
        let mut body = version.to_be_bytes().to_vec();
        body.extend([7; RANDOM]);
        body.extend([4, 1, 2, 3, 4]);
        body.extend(suite.to_be_bytes());
        body.push(0);
        if !extensions.is_empty() {
            body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
            body.extend(extensions);
        }
        let mut message = vec![SERVER_HELLO, 0];
        message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        message.extend(body);
        message
    }

    /// Extensions of a TLS 1.3 server: key_share (made short) and supported_versions.
    const TLS_1_3_EXTENSIONS: &[u8] = &[0, 51, 0, 3, 1, 2, 3, 0, 43, 0, 2, 3, 4];

    fn of_server(bytes: &[u8]) -> Handshake {
        let mut handshake = Handshake::default();
        handshake.feed(true, 1, bytes);
        handshake
    }

    #[test]
    fn version_and_suite_are_those_of_the_server_hello() {
        let old = of_server(&record(HANDSHAKE, &hello(0x0303, 0xc030, &[])));
        let agreed = old.negotiated().unwrap();
        assert_eq!(
            (agreed.version(), agreed.cipher()),
            ("TLSv1.2".into(), "ECDHE-RSA-AES256-GCM-SHA384".into())
        );
        let new = of_server(&record(HANDSHAKE, &hello(0x0303, 0x1302, TLS_1_3_EXTENSIONS)));
        let agreed = new.negotiated().unwrap();
        assert_eq!((agreed.version(), agreed.cipher()), ("TLSv1.3".into(), "TLS_AES_256_GCM_SHA384".into()));
        let odd = of_server(&record(HANDSHAKE, &hello(0x0309, 0xfefe, &[])));
        let agreed = odd.negotiated().unwrap();
        assert_eq!((agreed.version(), agreed.cipher()), ("0x0309".into(), "0xFEFE".into()));
    }

    #[test]
    fn a_finished_handshake_alone_carries_no_data() {
        let mut handshake = of_server(&record(HANDSHAKE, &hello(0x0303, 0x1301, TLS_1_3_EXTENSIONS)));
        let finished = record(APPLICATION_DATA, &[0; 53]);
        let alert = record(APPLICATION_DATA, &[0; SEALED_ALERT]);
        handshake.feed(false, 8, &finished);
        handshake.feed(false, 8 + finished.len() as u64, &alert);
        assert!(!handshake.carries_data());
        let at = 8 + (finished.len() + alert.len()) as u64;
        handshake.feed(false, at, &record(APPLICATION_DATA, &[0; 60]));
        assert!(handshake.carries_data());
    }

    #[test]
    fn up_to_tls_1_2_the_first_data_is_data() {
        let mut handshake = of_server(&record(HANDSHAKE, &hello(0x0303, 0xc02f, &[])));
        handshake.feed(false, 8, &record(HANDSHAKE, &[0; 40]));
        assert!(!handshake.carries_data());
        handshake.feed(false, 53, &record(APPLICATION_DATA, &[0; 60]));
        assert!(handshake.carries_data());
    }

    #[test]
    fn what_cannot_be_followed_may_be_data() {
        let mut lost = Handshake::default();
        lost.feed(false, 0, &record(HANDSHAKE, &[1, 2, 3]));
        lost.feed(false, 100, &[]);
        assert!(lost.carries_data());
        let mut other = Handshake::default();
        other.feed(false, 0, b"GSSAPI token");
        assert!(other.carries_data() && other.negotiated().is_none());
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let mut bytes = record(HANDSHAKE, &hello(0x0303, 0x1302, TLS_1_3_EXTENSIONS));
            bytes.extend(record(CHANGE_CIPHER_SPEC, &[1]));
            bytes.extend(record(APPLICATION_DATA, &[9; 200]));
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut handshake = Handshake::default();
            for pair in cuts.windows(2) {
                handshake.feed(true, pair[0] as u64, &bytes[pair[0]..pair[1]]);
            }
            prop_assert_eq!(handshake.negotiated(), of_server(&bytes).negotiated());
            prop_assert_eq!((handshake.server.data, handshake.server.broken), (1, false));
        }

        #[test]
        fn garbage_is_no_panic(pieces in prop::collection::vec((any::<bool>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..80)), 0..20)) {
            let mut handshake = Handshake::default();
            for (from_server, offset, bytes) in pieces {
                handshake.feed(from_server, offset, &bytes);
            }
            let mut truthful = record(HANDSHAKE, &hello(0x0303, 0x1302, TLS_1_3_EXTENSIONS));
            for place in 0..truthful.len() {
                truthful[place] ^= 0xff;
                of_server(&truthful);
            }
        }
    }
}
