//! Drains the ring.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use aya::maps::{Array, MapData, RingBuf};

use super::event::Event;
use super::kernel::POLL;

/// The ring's consuming end.
///
/// While there is traffic the reader polls every `POLL`, and the kernel side wakes it only when the ring fills
/// up: a wake-up per event would cost the server more than the event. After `IDLE_ROUNDS` empty rounds it
/// asks to be woken and sleeps.
pub struct Ring {
    ring: RingBuf<MapData>,
    reader: Array<MapData, u32>,
    empty_rounds: u32,
    asleep: bool,
}

impl Ring {
    pub(super) fn new(ring: RingBuf<MapData>, reader: Array<MapData, u32>) -> Self {
        Self { ring, reader, empty_rounds: 0, asleep: false }
    }

    /// Waits until there may be events, `wake` (an eventfd) is readable, or `limit` has passed.
    pub fn wait(&mut self, wake: RawFd, limit: Duration) -> std::io::Result<()> {
        let timeout = if self.asleep { limit } else { limit.min(POLL) };
        let mut fds = [readable(self.ring.as_raw_fd()), readable(wake)];
        // SAFETY: `fds` is an array of two initialised pollfds, alive during the call.
        let ready = unsafe {
            libc::poll(fds.as_mut_ptr(), 2, i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX))
        };
        if ready < 0 {
            let error = std::io::Error::last_os_error();
            if error.kind() != std::io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Hands on what is in the ring, at most `limit` events. Returns how many.
    pub fn drain(&mut self, limit: usize, mut handle: impl FnMut(Event<'_>)) -> usize {
        let mut drained = 0;
        while drained < limit {
            let Some(entry) = self.ring.next() else { break };
            if let Some(event) = Event::parse(&entry) {
                handle(event);
            }
            drained += 1;
        }
        self.adapt(drained);
        drained
    }

    fn adapt(&mut self, drained: usize) {
        if drained > 0 {
            self.empty_rounds = 0;
            if self.asleep {
                self.set_asleep(false);
            }
        } else if !self.asleep {
            self.empty_rounds += 1;
            if self.empty_rounds == IDLE_ROUNDS {
                self.set_asleep(true);
                // An event that came before the request did not wake: the next round must not wait for it.
                self.empty_rounds = 0;
            }
        }
    }

    fn set_asleep(&mut self, asleep: bool) {
        // If the map cannot be written, polling goes on: slower to sleep, nothing lost.
        self.asleep = self.reader.set(0, u32::from(asleep), 0).is_ok() && asleep;
    }
}

fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Empty rounds after which the reader sleeps: 100 ms without an event.
const IDLE_ROUNDS: u32 = 20;
