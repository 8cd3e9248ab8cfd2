//! What the kernel side reports, read from the ring's bytes.

use capture_common::{
    BACKEND, CloseInfo, EventHeader, FLAG_END_OF_CALL, FLAG_ENDED, FLAG_GSS, FLAG_HELD, FLAG_PLAINTEXT,
    FLAG_SEALED, FLAG_UNHELD, HOLD_GSS, HOLD_PLAINTEXT, Hold, KIND_CLOSE, KIND_DATA, KIND_EXEC, KIND_OPEN,
    OpenInfo, SessionKey,
};

/// One event. Times are nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A backend was forked for a connection.
    Open {
        /// The session.
        key: SessionKey,
        /// When.
        at: u64,
        /// Its socket and peer.
        info: OpenInfo,
    },
    /// Bytes passed between client and server.
    Data {
        /// The session.
        key: SessionKey,
        /// When the system call returned.
        at: u64,
        /// Whether the server sent them; else the client did.
        from_server: bool,
        /// Position of the first byte in its stream; of sealed bytes, in the socket's.
        offset: u64,
        /// Why bytes are missing right before `offset`, if they are: a `LOSS_*` constant.
        loss: u32,
        /// Whether these are the last bytes of their call.
        end_of_call: bool,
        /// In which form they were seen.
        form: Form,
        /// Whether the backend was to be stopped when it had received them, to wait for a verdict.
        stop: Stop,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// A backend exited; or, if `key.born` is zero, a postmaster.
    Close {
        /// The session.
        key: SessionKey,
        /// When.
        at: u64,
        /// How far its streams had come, and its exit code.
        info: CloseInfo,
    },
    /// A program with a server's name was executed.
    Exec {
        /// The process.
        tgid: u32,
    },
}

/// Whether a backend was to be stopped, and was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It was to go on.
    No,
    /// It waits.
    Held,
    /// It goes on, since the kernel could not stop it.
    Failed {
        /// Whether its session was told to end: it runs nothing more then.
        ended: bool,
    },
}

impl Stop {
    fn from_flags(flags: u32) -> Self {
        match (flags & FLAG_HELD != 0, flags & FLAG_UNHELD != 0) {
            (true, _) => Self::Held,
            (false, true) => Self::Failed { ended: flags & FLAG_ENDED != 0 },
            (false, false) => Self::No,
        }
    }
}

/// In which form bytes were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they passed over the socket.
    Socket,
    /// The same, of a connection that is encrypted: they are not part of the session's streams.
    Sealed,
    /// As the server took or gave them, on a connection that is encrypted: by GSSAPI, or by TLS.
    Plaintext {
        /// By GSSAPI.
        gss: bool,
    },
}

impl Form {
    /// That of the bytes that a stopped backend waits with.
    pub fn of_hold(hold: &Hold) -> Self {
        if hold.flags & HOLD_PLAINTEXT != 0 {
            Self::Plaintext { gss: hold.flags & HOLD_GSS != 0 }
        } else {
            Self::Socket
        }
    }

    fn from_flags(flags: u32) -> Self {
        if flags & FLAG_SEALED != 0 {
            Self::Sealed
        } else if flags & FLAG_PLAINTEXT != 0 {
            Self::Plaintext { gss: flags & FLAG_GSS != 0 }
        } else {
            Self::Socket
        }
    }
}

impl<'a> Event<'a> {
    /// Reads a ring entry; none if it is not one that this build knows.
    #[inline]
    pub fn parse(entry: &'a [u8]) -> Option<Self> {
        let (header, rest) = entry.split_at_checked(size_of::<EventHeader>())?;
        let key = SessionKey { born: u64_at(header, 8)?, tgid: u32_at(header, 16)?, reserved: 0 };
        let at = u64_at(header, 24)?;
        let payload = rest.get(..u32_at(header, 4)? as usize)?;
        match u16_at(header, 0)? {
            KIND_DATA => Some(Self::Data {
                key,
                at,
                from_server: u16_at(header, 2)? == BACKEND,
                offset: u64_at(header, 32)?,
                loss: u32_at(header, 40)?,
                end_of_call: u32_at(header, 44)? & FLAG_END_OF_CALL != 0,
                form: Form::from_flags(u32_at(header, 44)?),
                stop: Stop::from_flags(u32_at(header, 44)?),
                bytes: payload,
            }),
            KIND_OPEN => Some(Self::Open { key, at, info: open_info(payload)? }),
            KIND_CLOSE => Some(Self::Close { key, at, info: close_info(payload)? }),
            KIND_EXEC => Some(Self::Exec { tgid: key.tgid }),
            _ => None,
        }
    }

    /// Which process moved bytes, and since when it waits, stopped, for a verdict on them, if it does.
    #[inline]
    pub(super) fn heard_of(&self) -> (Option<u32>, Option<u64>) {
        match self {
            Self::Data { key, at, stop, .. } => (Some(key.tgid), (*stop == Stop::Held).then_some(*at)),
            _ => (None, None),
        }
    }
}

fn open_info(bytes: &[u8]) -> Option<OpenInfo> {
    Some(OpenInfo {
        postmaster: u32_at(bytes, 0)?,
        fd: u32_at(bytes, 4)?,
        peer_pid: u32_at(bytes, 8)?,
        family: u16_at(bytes, 12)?,
        port: u16_at(bytes, 14)?,
        addr: bytes.get(16..32)?.try_into().ok()?,
        own_pid: u32_at(bytes, 32)?,
        reserved: 0,
    })
}

fn close_info(bytes: &[u8]) -> Option<CloseInfo> {
    Some(CloseInfo {
        end: [u64_at(bytes, 0)?, u64_at(bytes, 8)?],
        socket: [u64_at(bytes, 16)?, u64_at(bytes, 24)?],
        loss: [u32_at(bytes, 32)?, u32_at(bytes, 36)?],
        exit_code: u32_at(bytes, 40)?,
        reserved: 0,
    })
}

#[inline]
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u16, len: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(BACKEND.to_ne_bytes());
        bytes.extend(len.to_ne_bytes());
        for word in [11u64, 22, 33, 44] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(1u32.to_ne_bytes());
        bytes.extend(FLAG_END_OF_CALL.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_data_event_ends_where_its_length_says_not_where_its_reservation_ends() {
        let mut entry = header(KIND_DATA, 3);
        entry.extend(b"abcleftover");
        let event = Event::parse(&entry).unwrap();
        let key = SessionKey { born: 11, tgid: 22, reserved: 0 };
        assert_eq!(
            event,
            Event::Data {
                key,
                at: 33,
                from_server: true,
                offset: 44,
                loss: 1,
                stop: Stop::No,
                end_of_call: true,
                form: Form::Socket,
                bytes: b"abc"
            }
        );
    }

    #[test]
    fn short_or_unknown_entries_are_refused() {
        assert_eq!(Event::parse(&header(KIND_DATA, 3)), None);
        assert_eq!(Event::parse(&header(KIND_OPEN, 0)), None);
        assert_eq!(Event::parse(&header(99, 0)), None);
        assert_eq!(Event::parse(&[0; 10]), None);
    }
}
