//! The agent's eyes where it may not look at other processes itself: the shim looks.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::question;
use crate::probes::{Access, Answer, Question, monotonic_now};

/// Asks the shim that listens on a socket. One that was restarted is found again with the next question.
#[derive(Debug)]
pub struct Eyes {
    socket: PathBuf,
    stream: RefCell<Option<UnixStream>>,
    /// Nothing is asked before: the shim took too long, and whoever asks has other things to do. In nanoseconds of
    /// `CLOCK_MONOTONIC`.
    quiet_until: Cell<u64>,
}

impl Eyes {
    /// Connects to the shim that listens on `socket`.
    ///
    /// # Errors
    ///
    /// None does.
    pub fn open(socket: PathBuf) -> io::Result<Self> {
        let eyes = Self { socket, stream: RefCell::new(None), quiet_until: Cell::new(0) };
        *eyes.stream.borrow_mut() = Some(eyes.connect()?);
        Ok(eyes)
    }

    /// Connects to the shim that listens on `socket`, or will within `patience`.
    ///
    /// # Errors
    ///
    /// None does.
    #[expect(clippy::disallowed_methods, reason = "a bounded wait for another process, between attempts")]
    pub fn wait_for(socket: PathBuf, patience: Duration) -> io::Result<Self> {
        for _ in 0..patience.as_millis() / PAUSE.as_millis() {
            match Self::open(socket.clone()) {
                Ok(eyes) => return Ok(eyes),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
        Self::open(socket)
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

impl Access for Eyes {
    fn ask(&self, question: Question) -> io::Result<Answer> {
        if monotonic_now() < self.quiet_until.get() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let mut stream = self.stream.borrow_mut();
        // A connection that its other end has closed shows it with the next question only.
        for fresh in [false, true] {
            if fresh || stream.is_none() {
                *stream = self.connect().ok();
            }
            let Some(connection) = stream.as_ref() else { continue };
            match question::ask(connection, question) {
                Ok(answer) => return answer,
                Err(error) if is_timeout(&error) => {
                    self.quiet_until.set(monotonic_now() + QUIET_NS);
                    *stream = None;
                    break;
                }
                Err(_) => *stream = None,
            }
        }
        Err(io::ErrorKind::NotConnected.into())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// How long the shim may take for an answer, which takes it some microseconds. The thread that waits is the one that
/// empties the ring.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it is left alone when it took longer.
const QUIET_NS: u64 = 5_000_000_000;
const PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_shim_that_is_restarted_is_found_and_one_that_hangs_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("shim");
        assert!(Eyes::open(socket.clone()).is_err(), "nobody listens");
        let first = UnixListener::bind(&socket).unwrap();
        let eyes = Eyes::wait_for(socket.clone(), Duration::ZERO).unwrap();
        drop(first);
        assert_eq!(eyes.servers().unwrap_err().kind(), io::ErrorKind::NotConnected);

        std::fs::remove_file(&socket).unwrap();
        let second = UnixListener::bind(&socket).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                use std::io::Read as _;
                let (mut agent, _) = second.accept().unwrap();
                agent.read_exact(&mut [0; 32]).unwrap();
                question::reply(&agent, Ok(Answer { bytes: 17_u64.to_le_bytes().into(), file: None }))
                    .unwrap();
            });
            assert_eq!(eyes.servers().unwrap(), [17]);
        });

        // It accepts and does not answer.
        assert_eq!(eyes.executable(1).unwrap_err().kind(), io::ErrorKind::NotConnected);
        let asked = monotonic_now();
        assert_eq!(eyes.executable(1).unwrap_err().kind(), io::ErrorKind::NotConnected);
        assert!(monotonic_now() - asked < 500_000_000, "the second question does not wait");
    }
}
