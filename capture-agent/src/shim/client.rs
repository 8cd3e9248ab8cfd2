//! The agent's end of the connection to the shim.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use capture_common::Hold;

use super::message::{self, Reply, Request, Verb};

/// Speaks to the shim, and starts one if none is there.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    /// How to start one; none if somebody else does.
    command: Option<Command>,
    /// The one that this agent started, to be waited for when it has ended.
    child: Option<Child>,
    stream: Option<UnixStream>,
}

impl Client {
    /// A client of the shim that listens on `socket`; `command` starts one.
    #[must_use]
    pub fn new(socket: PathBuf, command: Option<Command>) -> Self {
        Self { socket, command, child: None, stream: None }
    }

    /// Sees to a shim that listens.
    ///
    /// # Errors
    ///
    /// None is there, and none can be started.
    pub fn connect(&mut self) -> io::Result<()> {
        if self.stream.is_some() {
            return Ok(());
        }
        if let Some(child) = &mut self.child
            && child.try_wait()?.is_some()
        {
            self.child = None;
        }
        self.stream = match UnixStream::connect(&self.socket) {
            Ok(stream) => Some(stream),
            Err(_) => {
                if let Some(command) = &mut self.command {
                    self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
                }
                Some(self.wait_for_socket()?)
            }
        };
        if let Some(stream) = &self.stream {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
        }
        Ok(())
    }

    /// Reads a piece of the bytes that a stopped backend waits with, from `offset` in them on.
    ///
    /// # Errors
    ///
    /// The shim cannot be reached, or the backend does not wait any more ([`io::ErrorKind::NotFound`]).
    pub fn read(&mut self, hold: &Hold, offset: u64, piece: &mut [u8]) -> io::Result<()> {
        self.ask(Verb::Read, hold, offset, piece, &[], &[])
    }

    /// Has the message at `offset` in the bytes that a stopped backend waits with, which is `message`, fail with `reason`.
    ///
    /// # Errors
    ///
    /// As [`Client::read`]; or it is another message by now, or none that can be made to fail.
    pub fn refuse(&mut self, hold: &Hold, offset: u64, message: &[u8], reason: &str) -> io::Result<()> {
        let reason = reason.get(..reason.floor_char_boundary(message::MAX_REASON)).unwrap_or_default();
        self.ask(Verb::Refuse, hold, offset, &mut [], message, reason.as_bytes())
    }

    /// Has a message fail whose end is `end`, at `offset` in these bytes.
    ///
    /// # Errors
    ///
    /// As [`Client::refuse`].
    pub fn spoil(&mut self, hold: &Hold, offset: u64, end: &[u8]) -> io::Result<()> {
        self.ask(Verb::Spoil, hold, offset, &mut [], end, &[])
    }

    /// Has a stopped backend's session ended.
    ///
    /// # Errors
    ///
    /// As [`Client::read`].
    pub fn terminate(&mut self, hold: &Hold) -> io::Result<()> {
        self.ask(Verb::Terminate, hold, 0, &mut [], &[], &[])
    }

    /// The longest piece that can be read at once.
    pub const MAX_PIECE: usize = message::MAX_PIECE;

    fn ask(
        &mut self,
        verb: Verb,
        hold: &Hold,
        offset: u64,
        piece: &mut [u8],
        expected: &[u8],
        reason: &[u8],
    ) -> io::Result<()> {
        let number = |length| u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput);
        let (len, reason_len) = (number(piece.len() + expected.len())?, number(reason.len())?);
        if len as usize > Self::MAX_PIECE {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let request = Request { verb, tgid: hold.session.tgid, at: hold.at, offset, len, reason: reason_len };
        let request = [&request.to_bytes()[..], expected, reason].concat();
        // A connection that its other end has closed shows it with the next request only.
        for attempt in 0..2 {
            self.connect()?;
            match self.exchange(&request, piece) {
                Ok(Reply::Done) => return Ok(()),
                Ok(Reply::Over) => return Err(io::ErrorKind::NotFound.into()),
                Ok(Reply::Failed) => return Err(io::Error::other("the shim was refused")),
                Err(error) => {
                    self.stream = None;
                    if attempt > 0 {
                        return Err(error);
                    }
                }
            }
        }
        Err(io::ErrorKind::NotConnected.into())
    }

    fn exchange(&mut self, request: &[u8], piece: &mut [u8]) -> io::Result<Reply> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        stream.write_all(request)?;
        let mut bytes = [0; message::REPLY];
        stream.read_exact(&mut bytes)?;
        let reply = Reply::parse(bytes).ok_or(io::ErrorKind::InvalidData)?;
        if reply == Reply::Done {
            stream.read_exact(piece)?;
        }
        Ok(reply)
    }

    #[expect(clippy::disallowed_methods, reason = "a bounded wait for another process, between attempts")]
    fn wait_for_socket(&mut self) -> io::Result<UnixStream> {
        for _ in 0..START_ATTEMPTS {
            if let Ok(stream) = UnixStream::connect(&self.socket) {
                return Ok(stream);
            }
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                self.child = None;
                return Err(io::Error::other(format!("the shim ended with {status}")));
            }
            std::thread::sleep(START_PAUSE);
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// How long the shim may take for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// It listens some milliseconds after its start.
const START_ATTEMPTS: u32 = 200;
const START_PAUSE: Duration = Duration::from_millis(5);
