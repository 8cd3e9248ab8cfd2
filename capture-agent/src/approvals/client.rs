//! The other end of the socket: one question, one answer.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::message::{Question, Reply};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent listens.
    #[error(
        "no agent asks for approvals here: nothing listens on {} (see docs/errors.md#approvals-no-agent)",
        .0.display()
    )]
    NoAgent(PathBuf),
    /// The caller is neither root nor in the group that may decide.
    #[error("you may not decide: {} is closed to you (see docs/errors.md#approvals-not-allowed)", .0.display())]
    NotAllowed(PathBuf),
    /// The connection failed, or the answer was none.
    #[error("the agent gave no answer on {}: {source} (see docs/errors.md#approvals-failed)", .path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// Asks the agent that listens on `socket`.
///
/// # Errors
///
/// There is none, the caller may not ask it, or it gives no answer.
pub fn ask(socket: &Path, question: &Question) -> Result<Reply, ClientError> {
    let stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoAgent(socket.to_owned()),
        io::ErrorKind::PermissionDenied => ClientError::NotAllowed(socket.to_owned()),
        _ => ClientError::Failed { path: socket.to_owned(), source: error },
    })?;
    exchange(&stream, question).map_err(|source| ClientError::Failed { path: socket.to_owned(), source })
}

fn exchange(mut stream: &UnixStream, question: &Question) -> io::Result<Reply> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MOST_ANSWER)).read_until(b'\n', &mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// Longer than the agent takes to say that it is busy.
const PATIENCE: Duration = Duration::from_secs(15);

/// As many requests as can wait, with their texts.
const MOST_ANSWER: u64 = 64 << 20;
