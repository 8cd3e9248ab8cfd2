//! The shim: a small process of its own, the only one that looks into a backend's memory, and where it runs beside an
//! agent that may not look at other processes, the one that does (`question`).
//!
//! It parses nothing but its own short messages (`message`), and does nothing to a process that does not stand in
//! the kernel side's table of holds. It is also the watchdog: a backend whose deadline has passed goes on or ends as
//! its rule says, whatever has become of the agent. It ends by itself once the table is gone and no agent is connected.

mod client;
mod eyes;
mod message;
mod question;
mod refusal;

use std::fs::{self, DirBuilder};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use self::client::Client;
pub use self::eyes::Eyes;
use self::message::{Reply, Request, Verb};
use crate::probes::{Access as _, Holds, OwnRights, Pins, Way, monotonic_now};

/// The folder for the sockets of all shims, and the socket of the one that serves these pins.
#[must_use]
pub fn socket(runtime_dir: &Path, pins: &Pins) -> PathBuf {
    runtime_dir.join(pins.name()).join("shim")
}

/// Serves the holds that are pinned in `pins`, and the agent's questions, on `socket`, until the pins are gone and so is
/// the agent. Both may come later.
///
/// # Errors
///
/// Another shim serves them, or the socket cannot be made.
pub fn run(pins: &Pins, socket: &Path) -> anyhow::Result<()> {
    if UnixStream::connect(socket).is_ok() {
        bail!("another shim serves {} already (see docs/errors.md#shim)", socket.display());
    }
    let listener = listen(socket)
        .with_context(|| format!("cannot listen on {} (see docs/errors.md#shim)", socket.display()))?;
    // Whoever started it may be stopped together with its session; this must not.
    let _ = rustix::process::setsid();
    let memory = vec![0; message::MAX_PIECE + message::MAX_REASON];
    let mut shim = Shim { pins, holds: None, agents: Vec::new(), memory };
    shim.open_holds();
    if shim.holds.is_none() {
        tracing::info!(folder = %pins.folder().display(), "waiting for an agent");
    }
    let (mut looked, mut served) = (0, false);
    loop {
        shim.wait(&listener)?;
        let now = monotonic_now();
        if now.saturating_sub(looked) < TICK_NS {
            continue;
        }
        looked = now;
        shim.watch(now);
        served |= shim.holds.is_some();
        if served && shim.holds.is_none() && shim.agents.is_empty() {
            if !pins.exist() {
                // Otherwise the socket may be the next shim's.
                remove(socket);
            }
            return Ok(());
        }
    }
}

struct Shim<'a> {
    pins: &'a Pins,
    /// The table of holds; none while no agent has pinned one.
    holds: Option<Holds>,
    agents: Vec<UnixStream>,
    memory: Vec<u8>,
}

impl Shim<'_> {
    /// Looks for a table of holds, if there is none.
    fn open_holds(&mut self) {
        if self.holds.is_none()
            && let Ok(holds) = Holds::open(self.pins)
        {
            holds.continue_decided();
            self.holds = Some(holds);
        }
    }

    /// Shows that it is alive, and sees to deadlines and to a table that has gone.
    fn watch(&mut self, now: u64) {
        self.open_holds();
        let Some(holds) = &mut self.holds else { return };
        holds.beat_as_shim();
        end_overdue(holds, now);
        if !holds.is_pinned(self.pins) {
            // Nothing is stopped any more; what is must not stay so.
            end_overdue(holds, u64::MAX);
            self.holds = None;
        }
    }

    /// Waits for a request, an agent or the next tick, and serves what there is.
    fn wait(&mut self, listener: &UnixListener) -> io::Result<()> {
        let mut fds: Vec<PollFd<'_>> =
            self.agents.iter().map(|agent| PollFd::from_borrowed_fd(agent.as_fd(), PollFlags::IN)).collect();
        fds.push(PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN));
        match poll(&mut fds, Some(&TICK)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let calls = ready.last().copied().unwrap_or(false);
        // An agent may speak of a table that has not been looked for since it pinned it.
        self.open_holds();
        let Self { holds, agents, memory, .. } = self;
        let before = agents.len();
        let mut ready = ready.into_iter();
        agents.retain(|agent| !ready.next().unwrap_or(false) || serve(agent, holds.as_mut(), memory).is_ok());
        if agents.len() < before
            && let Some(holds) = holds
        {
            holds.continue_decided();
        }
        if calls
            && agents.len() < MAX_AGENTS
            && let Ok((agent, _)) = listener.accept()
            && agent.set_read_timeout(Some(PATIENCE)).is_ok()
            && agent.set_write_timeout(Some(PATIENCE)).is_ok()
        {
            agents.push(agent);
        }
        Ok(())
    }
}

fn end_overdue(holds: &mut Holds, now: u64) {
    for hold in holds.waiting().into_iter().filter(|hold| hold.deadline <= now) {
        match holds.pass(&hold) {
            Ok(()) => tracing::warn!(
                pid = hold.session.tgid,
                bytes = hold.len,
                "{} (see docs/errors.md#hold-overdue)",
                match Way::of_failure(&hold) {
                    Way::On => "a stopped backend went on unrecorded: nobody had read its bytes in time",
                    Way::End => "a stopped session was ended: nobody had read its bytes in time",
                }
            ),
            Err(error) => {
                tracing::error!(pid = hold.session.tgid, %error, "cannot let a stopped backend go on; trying again");
            }
        }
    }
}

/// Answers one request. An error ends the connection.
fn serve(mut agent: &UnixStream, holds: Option<&mut Holds>, memory: &mut [u8]) -> io::Result<()> {
    let mut bytes = [0; message::REQUEST];
    agent.read_exact(&mut bytes)?;
    if let Some(question) = question::parse(&bytes) {
        return question::reply(agent, OwnRights.ask(question));
    }
    let request = Request::parse(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    let expected = memory.get_mut(..request.follow()).ok_or(io::ErrorKind::InvalidData)?;
    agent.read_exact(expected)?;
    let (expected, reason) = expected.split_at(expected.len() - request.reason as usize);
    let mut piece: &mut [u8] = &mut [];
    let found = holds.and_then(|holds| Some((holds.find(request.tgid, request.at)?, holds)));
    let done = match found {
        None => Err(io::ErrorKind::NotFound.into()),
        Some((hold, holds)) => match request.verb {
            Verb::Read => {
                piece = memory.get_mut(..request.len as usize).ok_or(io::ErrorKind::InvalidData)?;
                holds.read(&hold, request.offset, piece)
            }
            Verb::Release => holds.release(&hold, Way::On),
            Verb::Terminate => holds.release(&hold, Way::End),
            Verb::Refuse => refusal::refusal(expected, reason)
                .ok_or_else(|| io::ErrorKind::InvalidInput.into())
                .and_then(|refused| holds.replace(&hold, request.offset, expected, &refused)),
            Verb::Spoil => {
                holds.replace(&hold, request.offset, expected, &vec![refusal::SPOILED; expected.len()])
            }
        },
    };
    let reply = Reply::of(&done);
    agent.write_all(&reply.to_bytes())?;
    if done.is_ok() {
        agent.write_all(piece)?;
    }
    Ok(())
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        // Only its owner may enter: that is what protects the socket.
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        // A shim that was killed left it, or there was none.
        _ => {
            let listener = UnixListener::bind(socket)?;
            // The folder may be open to those who approve.
            fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        }
    }
}

/// Removes the socket and its folder.
fn remove(socket: &Path) {
    let removed = fs::remove_file(socket).and_then(|()| socket.parent().map_or(Ok(()), fs::remove_dir));
    if let Err(error) = removed {
        tracing::debug!(socket = %socket.display(), %error, "the socket stays");
    }
}

/// How often deadlines are looked at.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
const TICK_NS: u64 = TICK.tv_nsec as u64;
/// How long an agent may take for the rest of a message.
const PATIENCE: Duration = Duration::from_millis(500);
/// Agents at once: one, and others that come and go.
const MAX_AGENTS: usize = 8;
