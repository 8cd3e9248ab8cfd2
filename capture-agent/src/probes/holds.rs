//! The table of holds: backends that the kernel side has stopped, and how they go on or end.

use std::collections;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use aya::maps::{Array, HashMap, Map, MapData, MapError, MapInfo};
use capture_common::{HOLD_CLOSED, HOLD_OVER, HOLD_PASSED, HOLD_WAITING, Hold, SessionKey, Tracked, beat};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::error::LoadError;
use super::kernel::pinned_map;
use super::pins::Pins;
use super::processes::{is_stopped, is_stopping, monotonic_now};

/// The table, as an agent pinned it.
pub struct Holds {
    holds: HashMap<MapData, u32, Hold>,
    tracked: HashMap<MapData, u32, Tracked>,
    beats: Array<MapData, u64>,
    /// Handles of backends that went on, by process: most are stopped again soon.
    handles: collections::HashMap<u32, (SessionKey, OwnedFd)>,
    /// The kernel's number of the table.
    id: u32,
}

/// How a stopped backend goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As if it had not been stopped.
    On,
    /// Its session ends: the server's own handler of SIGTERM does that before it runs another statement.
    End,
}

impl Way {
    /// What the rule wants of a hold that nobody could decide in time.
    pub fn of_failure(hold: &Hold) -> Self {
        if hold.flags & HOLD_CLOSED != 0 { Self::End } else { Self::On }
    }
}

impl Holds {
    /// Opens the table among an agent's pins.
    pub fn open(pins: &Pins) -> Result<Self, LoadError> {
        Ok(Self {
            holds: pinned_map(pins, "HOLDS", Map::HashMap)?,
            tracked: pinned_map(pins, "TRACKED", Map::HashMap)?,
            beats: pinned_map(pins, "BEATS", Map::Array)?,
            handles: collections::HashMap::new(),
            id: MapInfo::from_pin(pins.map("HOLDS"))?.id(),
        })
    }

    /// Whether this is still the table that is pinned there: not so if it was detached, or replaced.
    pub fn is_pinned(&self, pins: &Pins) -> bool {
        MapInfo::from_pin(pins.map("HOLDS")).is_ok_and(|info| info.id() == self.id)
    }

    /// Shows the kernel side that the shim is alive.
    pub fn beat_as_shim(&mut self) {
        // The only way to fail is an index out of bounds.
        let _ = self.beats.set(beat::SHIM, monotonic_now(), 0);
    }

    /// The backends that wait.
    pub fn waiting(&self) -> Vec<Hold> {
        self.all(|state| state == HOLD_WAITING)
    }

    /// Continues the backends whose hold is over and that are stopped all the same: whoever decided died before it
    /// could. Only for a time when nobody else can be in the middle of that.
    pub fn continue_decided(&self) {
        for hold in
            self.all(|state| state != HOLD_WAITING).into_iter().filter(|hold| is_stopped(hold.session.tgid))
        {
            if let Ok(Some(backend)) = self.open_handle(hold.session) {
                // It may have died since.
                let _ = pidfd_send_signal(&backend, Signal::CONT);
            }
        }
    }

    /// The hold of process `tgid` that began `at`, if the backend still waits with it.
    pub fn find(&self, tgid: u32, at: u64) -> Option<Hold> {
        self.holds.get(&tgid, 0).ok().filter(|hold| hold.at == at && hold.state == HOLD_WAITING)
    }

    /// Lets a backend go on or end. Nothing happens if it no longer waits with this hold.
    ///
    /// # Errors
    ///
    /// The table cannot be written, or the signal cannot be sent.
    pub fn release(&mut self, hold: &Hold, way: Way) -> io::Result<()> {
        self.leave(hold, HOLD_OVER, way)
    }

    /// Its deadline has passed: lets a backend go on or end, as its rule says, and not be stopped again before the
    /// agent has shown that it is alive.
    ///
    /// # Errors
    ///
    /// As [`Holds::release`].
    pub fn pass(&mut self, hold: &Hold) -> io::Result<()> {
        self.leave(hold, HOLD_PASSED, Way::of_failure(hold))
    }

    fn leave(&mut self, hold: &Hold, state: u32, way: Way) -> io::Result<()> {
        self.keep_handle(hold.session)?;
        let Some((_, backend)) = self.handles.get(&hold.session.tgid) else { return Ok(()) };
        if self.find(hold.session.tgid, hold.at).is_none() {
            return Ok(());
        }
        // Before the signal: from there on the entry is the kernel side's.
        match self.holds.insert(hold.session.tgid, Hold { state, ..*hold }, BPF_EXIST) {
            Ok(()) => {}
            // It died in this moment.
            Err(MapError::KeyNotFound) => return Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        let term = if way == Way::End { pidfd_send_signal(backend, Signal::TERM) } else { Ok(()) };
        match term.and_then(|()| pidfd_send_signal(backend, Signal::CONT)) {
            // The same.
            Err(Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// Ends the session of a backend that runs, if it still does.
    ///
    /// # Errors
    ///
    /// The signal cannot be sent.
    pub fn end(&mut self, session: SessionKey) -> io::Result<()> {
        self.keep_handle(session)?;
        match self.handles.get(&session.tgid).map(|(_, backend)| pidfd_send_signal(backend, Signal::TERM)) {
            None | Some(Err(Errno::SRCH)) => Ok(()),
            Some(sent) => Ok(sent?),
        }
    }

    /// Reads a piece of the bytes that the backend waits with, from `offset` in them on.
    ///
    /// # Errors
    ///
    /// The piece is not part of them, the memory cannot be read, or the backend went on meanwhile.
    pub fn read(&self, hold: &Hold, offset: u64, piece: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(piece.len() as u64);
        if end.is_none_or(|end| end > hold.len) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let memory = File::open(format!("/proc/{}/mem", hold.session.tgid))?;
        memory.read_exact_at(piece, hold.buffer.wrapping_add(offset))?;
        // Until here nothing can have changed.
        self.waits(hold)
    }

    /// Puts `replacement` in the place of the bytes at `offset` in those that the backend waits with, if these are
    /// `expected`.
    ///
    /// # Errors
    ///
    /// They are not, or are not part of what it waits with; the memory cannot be written; the backend went on meanwhile.
    pub fn replace(&self, hold: &Hold, offset: u64, expected: &[u8], replacement: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(expected.len() as u64);
        if end.is_none_or(|end| end > hold.len) || expected.len() != replacement.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let path = format!("/proc/{}/mem", hold.session.tgid);
        let memory = File::options().read(true).write(true).open(path)?;
        let address = hold.buffer.wrapping_add(offset);
        let mut found = vec![0; expected.len()];
        memory.read_exact_at(&mut found, address)?;
        if found != expected {
            return Err(io::Error::other("the backend's memory is not what it received"));
        }
        self.waits(hold)?;
        memory.write_all_at(replacement, address)?;
        memory.read_exact_at(&mut found, address)?;
        if found != replacement {
            return Err(io::Error::other("the backend's memory did not take the change"));
        }
        self.waits(hold)
    }

    /// Fails if the backend went on: one that did would have another hold or none.
    fn waits(&self, hold: &Hold) -> io::Result<()> {
        match self.find(hold.session.tgid, hold.at) {
            Some(_) if is_stopping(hold.session.tgid) => Ok(()),
            _ => Err(io::Error::other("the backend went on in the middle of it")),
        }
    }

    /// Gives a backend that waits another deadline, and says whether its session ends then.
    ///
    /// # Errors
    ///
    /// It does not wait any more, or its deadline is so near that somebody may be acting on it; or the table cannot be
    /// written.
    pub fn extend(&mut self, hold: &Hold, deadline: u64, closed: bool) -> io::Result<Hold> {
        let near = hold.deadline.saturating_sub(monotonic_now()) < NEAR_NS;
        if near || self.find(hold.session.tgid, hold.at).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let flags = if closed { hold.flags | HOLD_CLOSED } else { hold.flags & !HOLD_CLOSED };
        let hold = Hold { deadline, flags, ..*hold };
        self.holds.insert(hold.session.tgid, hold, BPF_EXIST).map_err(io::Error::other)?;
        Ok(hold)
    }

    fn all(&self, is_meant: impl Fn(u32) -> bool) -> Vec<Hold> {
        let holds = self.holds.iter().filter_map(Result::ok).map(|(_, hold)| hold);
        holds.filter(|hold| is_meant(hold.state)).collect()
    }

    /// Sees to it that the handle of a session's process, if it still runs, is among those that are kept.
    fn keep_handle(&mut self, session: SessionKey) -> io::Result<()> {
        if self.handles.get(&session.tgid).is_some_and(|(of, _)| *of == session) {
            return Ok(());
        }
        self.handles.remove(&session.tgid);
        if self.handles.len() >= MOST_HANDLES {
            self.handles.clear();
        }
        if let Some(handle) = self.open_handle(session)? {
            self.handles.insert(session.tgid, (session, handle));
        }
        Ok(())
    }

    /// The process of a session, by a handle that cannot come to mean another one.
    fn open_handle(&self, session: SessionKey) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(session.tgid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The kernel side forgets a session when its process exits: that it knows this one tells whose handle it is.
        let known = self.tracked.get(&session.tgid, 0).is_ok_and(|entry| entry.session == session);
        Ok(known.then_some(handle))
    }
}

/// Handles that are kept: a quarter of the descriptors that a process may usually have.
const MOST_HANDLES: usize = 256;
/// The shim looks at deadlines every 50 ms; a busy host may take some times that for it.
const NEAR_NS: u64 = 500_000_000;
/// `include/uapi/linux/bpf.h`
const BPF_EXIST: u64 = 2;
