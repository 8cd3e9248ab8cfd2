//! Startup packets: what a client says before it knows to whom (`ProcessStartupPacket` in
//! `src/backend/tcop/backend_startup.c`, `src/include/libpq/pqcomm.h`).

use super::reader::Reader;

/// A startup packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Startup<'a> {
    /// StartupMessage.
    Message {
        /// The protocol's major version: 3.
        major: u16,
        /// The protocol's minor version: 0, 2, or a newer one that the server will negotiate down.
        minor: u16,
        /// The parameters.
        options: Options<'a>,
    },
    /// SSLRequest.
    Ssl,
    /// GSSENCRequest.
    Gss,
    /// CancelRequest. The key that comes with it stays here.
    Cancel {
        /// The process whose statement shall be canceled.
        pid: u32,
    },
}

impl<'a> Startup<'a> {
    /// Reads a packet's body: what follows its length.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        match reader.u32()? {
            SSL_REQUEST => Some(Self::Ssl),
            GSSENC_REQUEST => Some(Self::Gss),
            CANCEL_REQUEST => Some(Self::Cancel { pid: reader.u32()? }),
            version => Some(Self::Message {
                major: (version >> 16) as u16,
                minor: (version & 0xffff) as u16,
                options: Options(reader),
            }),
        }
    }
}

/// The parameters of a StartupMessage: pairs of name and value, in order.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a>(Reader<'a>);

impl PartialEq for Options<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.0 == other.0.0
    }
}

impl Eq for Options<'_> {}

impl<'a> Iterator for Options<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.0.cstr().filter(|name| !name.is_empty())?;
        Some((name, self.0.cstr()?))
    }
}

/// How much of a packet's body holds no secret.
pub(super) fn public_len(body: &[u8]) -> usize {
    match Reader(body).u32() {
        Some(CANCEL_REQUEST) => 8,
        _ => body.len(),
    }
}

/// `CANCEL_REQUEST_CODE`.
const CANCEL_REQUEST: u32 = (1234 << 16) | 5678;
/// `NEGOTIATE_SSL_CODE`.
const SSL_REQUEST: u32 = (1234 << 16) | 5679;
/// `NEGOTIATE_GSS_CODE`.
const GSSENC_REQUEST: u32 = (1234 << 16) | 5680;
