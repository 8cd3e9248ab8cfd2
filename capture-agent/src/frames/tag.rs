//! Message types, and how long a message of each may be.
//!
//! A length is refused exactly where the receiver refuses it, so that what breaks off the connection there is
//! recorded as a protocol error here: `SocketBackend` in `src/backend/tcop/postgres.c` and `pq_getmessage` in
//! `src/backend/libpq/pqcomm.c` for the client's messages, `pqParseInput3` in
//! `src/interfaces/libpq/fe-protocol3.c` for the server's.

/// Stands for the tag of a packet that has none: the client's startup packet.
pub const STARTUP: u8 = 0;
/// Stands for the tag of the server's one-byte answer to SSLRequest or GSSENCRequest.
pub const NEGOTIATION: u8 = 1;

/// `MAX_STARTUP_PACKET_LENGTH`: the longest startup packet, its length field not counted
/// (`src/include/libpq/pqcomm.h`).
pub const MAX_STARTUP: u32 = 10_000;
/// `PQ_SMALL_MESSAGE_LIMIT` (`src/include/libpq/libpq.h`).
pub const SMALL: u32 = 10_000;
/// `PQ_LARGE_MESSAGE_LIMIT`: `MaxAllocSize - 1` (`src/include/libpq/libpq.h`, `src/include/utils/memutils.h`).
pub const LARGE: u32 = 0x3fff_fffe;
/// `PG_MAX_AUTH_TOKEN_LENGTH`: the longest authentication message (`src/include/libpq/auth.h`).
pub const MAX_AUTH: u32 = 65_535;
/// What libpq takes of a message type that is never long (`src/interfaces/libpq/fe-protocol3.c`).
pub const MAX_SHORT_REPLY: u32 = 30_000;

/// The largest length field of a client's message, or none if the server knows no such message.
pub const fn max_frontend(tag: u8) -> Option<u32> {
    match tag {
        b'Q' | b'P' | b'B' | b'F' | b'd' => Some(LARGE),
        b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' => Some(SMALL),
        b'p' => Some(MAX_AUTH),
        _ => None,
    }
}

/// The largest length field of a server's message, or none if no server sends such a message.
///
/// ParameterDescription and ParameterStatus may be longer than libpq takes: other clients take them.
pub const fn max_backend(tag: u8) -> Option<u32> {
    match tag {
        b'D' | b'd' | b'T' | b'V' | b'E' | b'N' | b'A' | b't' | b'S' => Some(LARGE),
        b'R' => Some(MAX_AUTH),
        b'C' | b'Z' | b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'G' | b'H' | b'W' | b'c' | b'K' | b'v' => {
            Some(MAX_SHORT_REPLY)
        }
        _ => None,
    }
}

/// [`max_frontend`] by tag, but for what is not read like any other message; 0 for that, and for what the server does not
/// know.
pub(super) static EVERYDAY_FRONTEND: [u32; 256] = {
    let mut lengths = [0; 256];
    let mut tag = 0u8;
    while tag < u8::MAX {
        lengths[tag as usize] = match (tag, max_frontend(tag)) {
            (b'p', _) | (_, None) => 0,
            (_, Some(length)) => length,
        };
        tag += 1;
    }
    lengths
};

/// [`max_backend`] likewise.
pub(super) static EVERYDAY_BACKEND: [u32; 256] = {
    let mut lengths = [0; 256];
    let mut tag = 0u8;
    while tag < u8::MAX {
        lengths[tag as usize] = match (tag, max_backend(tag)) {
            (b'R' | b'K', _) | (_, None) => 0,
            (_, Some(length)) => length,
        };
        tag += 1;
    }
    lengths
};
