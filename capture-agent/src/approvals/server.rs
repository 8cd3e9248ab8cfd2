//! The thread that speaks to approvers, over a Unix socket.
//!
//! It reads questions and writes answers, and knows nothing of requests: each question goes to the capture thread through
//! a bounded channel, and the answer comes back through another. So what an approver is told is what has happened,
//! and neither thread waits for the other: who finds a channel full is refused.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::listen::listen;
use super::message::{MOST_QUESTION, Question, Reply, Why};
use super::peer;
use super::request::Approver;
use crate::probes::monotonic_now;

/// The capture thread's end.
#[derive(Debug)]
pub(super) struct Server {
    questions: Receiver<Asked>,
    answers: SyncSender<(u64, Vec<u8>)>,
    signals: Arc<Signals>,
    thread: Option<JoinHandle<()>>,
    socket: PathBuf,
}

/// A question, of whom, and on which connection.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) approver: Approver,
    pub(super) question: Question,
    connection: u64,
}

#[derive(Debug)]
struct Signals {
    /// Readable when a question has come.
    asked: OwnedFd,
    /// Readable when an answer has, or when the thread shall end.
    answered: OwnedFd,
    stop: AtomicBool,
}

impl Server {
    /// Listens on `socket`, which root and the members of `group` may use.
    ///
    /// # Errors
    ///
    /// The socket cannot be made, or the system has no thread left.
    pub(super) fn start(socket: &Path, group: Option<u32>) -> io::Result<Self> {
        let listener = listen(socket, group)?;
        let signal = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        let signals =
            Arc::new(Signals { asked: signal()?, answered: signal()?, stop: AtomicBool::new(false) });
        let (ask, questions) = sync_channel(MOST_CONNECTIONS);
        let (answers, answered) = sync_channel(MOST_CONNECTIONS);
        let desk = Desk {
            listener,
            ask,
            answered,
            signals: Arc::clone(&signals),
            connections: Vec::new(),
            next: 0,
            rest: false,
        };
        let thread = std::thread::Builder::new().name("approvals".into()).spawn(move || desk.serve())?;
        Ok(Self { questions, answers, signals, thread: Some(thread), socket: socket.to_owned() })
    }

    /// Readable when a question has come.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.signals.asked.as_fd()
    }

    /// The questions that have come.
    pub(super) fn questions(&self) -> Vec<Asked> {
        clear(&self.signals.asked);
        self.questions.try_iter().take(MOST_CONNECTIONS).collect()
    }

    /// Answers a question.
    pub(super) fn answer(&self, asked: &Asked, reply: &Reply) {
        // Each connection has one question at a time, so there is room; without a thread nobody waits.
        if self.answers.try_send((asked.connection, reply.line())).is_ok() {
            raise(&self.signals.answered);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signals.stop.store(true, Ordering::Release);
        raise(&self.signals.answered);
        if let Some(thread) = self.thread.take() {
            // If it panicked, that was said.
            let _ = thread.join();
        }
        // It may be gone already.
        let _ = std::fs::remove_file(&self.socket);
        if let Some(folder) = self.socket.parent() {
            // The shim's socket may still be in it.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// The thread's end.
struct Desk {
    listener: UnixListener,
    ask: SyncSender<Asked>,
    answered: Receiver<(u64, Vec<u8>)>,
    signals: Arc<Signals>,
    connections: Vec<Connection>,
    next: u64,
    /// Whether the last connection could not be accepted.
    rest: bool,
}

struct Connection {
    number: u64,
    stream: UnixStream,
    approver: Approver,
    /// What came of the next question.
    line: Vec<u8>,
    /// What is to be sent.
    out: VecDeque<u8>,
    /// Whether the capture thread has a question of it.
    asked: bool,
    /// When it is given up, in nanoseconds of `CLOCK_MONOTONIC`.
    until: u64,
}

impl Desk {
    fn serve(mut self) {
        while !self.signals.stop.load(Ordering::Acquire) {
            if let Err(error) = self.wait() {
                tracing::error!(%error, "approvers are not heard any more (see docs/errors.md#approvals-failed)");
                return;
            }
            self.take_answers();
            let now = monotonic_now();
            let Self { connections, ask, signals, .. } = &mut self;
            connections.retain_mut(|connection| connection.serve(ask, &signals.asked, now));
            self.accept(now);
        }
    }

    /// Waits until there is something to do, or a while.
    fn wait(&self) -> io::Result<()> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.signals.answered.as_fd(), PollFlags::IN)];
        if self.connections.len() < MOST_CONNECTIONS && !self.rest {
            fds.push(PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN));
        }
        for connection in &self.connections {
            let wants = match (connection.out.is_empty(), connection.asked) {
                (false, _) => PollFlags::OUT,
                (true, false) => PollFlags::IN,
                // Its answer is waited for; that it hung up would be told again and again.
                (true, true) => continue,
            };
            fds.push(PollFd::from_borrowed_fd(connection.stream.as_fd(), wants));
        }
        match poll(&mut fds, Some(&TICK)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_answers(&mut self) {
        clear(&self.signals.answered);
        loop {
            match self.answered.try_recv() {
                Ok((number, line)) => {
                    let of = self.connections.iter_mut().find(|connection| connection.number == number);
                    if let Some(connection) = of {
                        connection.until = monotonic_now().saturating_add(PATIENCE_NS);
                        connection.reply(line);
                    }
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn accept(&mut self, now: u64) {
        while self.connections.len() < MOST_CONNECTIONS {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Such as no descriptor that is left: the next tick may have one.
                    self.rest = error.kind() != io::ErrorKind::WouldBlock;
                    return;
                }
            };
            let Ok(uid) = peer::uid(&stream) else { continue };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let approver = Approver { uid, name: peer::name(uid) };
            let (line, out) = (Vec::new(), VecDeque::new());
            let until = now.saturating_add(PATIENCE_NS);
            self.connections.push(Connection {
                number: self.next,
                stream,
                approver,
                line,
                out,
                asked: false,
                until,
            });
            self.next += 1;
        }
    }
}

impl Connection {
    /// Reads and writes what can be read and written. False when it is over.
    fn serve(&mut self, ask: &SyncSender<Asked>, signal: &OwnedFd, now: u64) -> bool {
        if !self.write() {
            return false;
        }
        if now >= self.until {
            if !self.asked {
                return false;
            }
            // Its answer, should it come, is for nobody.
            let late = "the agent does not answer; what you asked for may still be done: list again";
            self.reply(Reply::refused(Why::Busy, late).line());
            self.write();
            return false;
        }
        if self.asked || !self.out.is_empty() {
            return true;
        }
        match self.read() {
            Ok(false) => true,
            Ok(true) => {
                self.until = now.saturating_add(PATIENCE_NS);
                self.ask(ask, signal);
                self.write()
            }
            Err(_) => false,
        }
    }

    /// Reads a piece. Whether a question is complete.
    fn read(&mut self) -> io::Result<bool> {
        let mut piece = [0; 1 << 10];
        loop {
            if self.line.contains(&b'\n') || self.line.len() > MOST_QUESTION {
                return Ok(true);
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.line.extend_from_slice(piece.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Hands the question on, or refuses it.
    fn ask(&mut self, ask: &SyncSender<Asked>, signal: &OwnedFd) {
        let end = self.line.iter().position(|byte| *byte == b'\n');
        let line: Vec<u8> = match end {
            Some(end) => self.line.drain(..=end).collect(),
            None => std::mem::take(&mut self.line),
        };
        match Question::parse(&line) {
            Err(wrong) => self.reply(Reply::refused(Why::Malformed, wrong).line()),
            Ok(question) => {
                let asked = Asked { approver: self.approver.clone(), question, connection: self.number };
                if ask.try_send(asked).is_ok() {
                    self.asked = true;
                    raise(signal);
                } else {
                    let busy = "the agent is busy: nothing was done; try again";
                    self.reply(Reply::refused(Why::Busy, busy).line());
                }
            }
        }
    }

    fn reply(&mut self, line: Vec<u8>) {
        self.asked = false;
        self.out.extend(line);
    }

    /// Writes what can be written. False when the connection is over.
    fn write(&mut self) -> bool {
        while !self.out.is_empty() {
            let (piece, _) = self.out.as_slices();
            match self.stream.write(piece) {
                Ok(written) if written > 0 => drop(self.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }
}

fn raise(signal: &OwnedFd) {
    // A counter that is full is readable as well.
    let _ = rustix::io::write(signal, &1u64.to_ne_bytes());
}

fn clear(signal: &OwnedFd) {
    // It may be clear already.
    let _ = rustix::io::read(signal, &mut [0; 8]);
}

/// Approvers at once: people and their tools.
const MOST_CONNECTIONS: usize = 16;

/// How long an approver may take for a question, and the capture thread for its answer: ten seconds.
const PATIENCE_NS: u64 = if cfg!(test) { 500_000_000 } else { 10_000_000_000 };

/// How often patience is looked at.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
