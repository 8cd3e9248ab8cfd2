//! Drains the ring.
//!
//! The kernel keeps what was read until it is acknowledged: an agent that dies between the two leaves it to the next.
//! Layout and protocol: `kernel/bpf/ringbuf.c`.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use aya::maps::MapData;
use capture_common::reader;

use super::event::Event;
use super::kernel::POLL;
use super::mapping::Mapping;
use super::processes::monotonic_now;
use super::spin::Spin;

/// The ring's consuming end.
///
/// While there is traffic the reader looks every `POLL`, and the kernel side wakes it only when the ring fills
/// up: a wake-up per event would cost the server more than the event, and a look at a few events costs the reader
/// more than they do. After `IDLE_ROUNDS` empty rounds it asks to be woken and sleeps.
pub struct Ring {
    /// The ring, waited for with `wakes`; and where the reader says what it is about.
    _maps: [MapData; 2],
    /// Ready when the kernel side has called since the last wait, not because the ring holds something: it does as long
    /// as anything in it is not acknowledged.
    wakes: OwnedFd,
    /// Its first number is one of [`reader`].
    reader: Mapping,
    /// Its first word is the position up to which the kernel may overwrite.
    consumer: Mapping,
    /// Its first page begins with the position up to which the kernel has reserved; then the data, twice in a row,
    /// so that an entry that wraps around lies in one piece.
    producer: Mapping,
    page: usize,
    mask: u64,
    /// Up to here events were handed on.
    position: u64,
    /// Up to here they were acknowledged.
    acknowledged: u64,
    empty_rounds: u32,
    asleep: bool,
    /// Whether the last look ended before the ring did.
    behind: bool,
    /// Looks at an event that was not complete, one after the other.
    spins: u32,
    spin: Spin,
    /// Whether the kernel side takes it that the ring is watched.
    watches: bool,
}

impl Ring {
    /// Maps the ring `map` of `size` bytes, and `reader`, by which the kernel side knows what the reader is about.
    pub(super) fn new(map: MapData, size: u32, reader: MapData) -> io::Result<Self> {
        // SAFETY: no precondition.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(io::Error::other)?;
        let fd = map.fd().as_fd();
        let consumer = Mapping::new(fd, page, 0, libc::PROT_READ | libc::PROT_WRITE)?;
        let producer = Mapping::new(fd, page + 2 * size as usize, page, libc::PROT_READ)?;
        let state = Mapping::new(reader.fd().as_fd(), page, 0, libc::PROT_READ | libc::PROT_WRITE)?;
        let acknowledged = consumer.word(0).load(Ordering::Relaxed);
        let wakes = epoll()?;
        watch(&wakes, fd.as_raw_fd(), libc::EPOLLIN | libc::EPOLLET)?;
        let mut ring = Self {
            _maps: [map, reader],
            wakes,
            reader: state,
            consumer,
            producer,
            page,
            mask: u64::from(size) - 1,
            position: acknowledged,
            acknowledged,
            empty_rounds: 0,
            asleep: false,
            behind: false,
            spins: 0,
            spin: Spin::default(),
            watches: false,
        };
        // What an earlier agent asked for is void.
        ring.set_asleep(false);
        Ok(ring)
    }

    /// Also ends a wait when `wake` is readable.
    pub fn wake_by(&self, wake: RawFd) -> io::Result<()> {
        watch(&self.wakes, wake, libc::EPOLLIN)
    }

    /// Waits until there are events worth a look, the kernel side calls, or `limit` has passed.
    pub fn wait(&mut self, limit: Duration) -> io::Result<()> {
        // An event that came before the request to be woken has not woken.
        let timeout = if self.behind || (self.asleep && self.end() > self.position) {
            Duration::ZERO
        } else if self.watch() {
            return Ok(());
        } else if self.asleep {
            limit
        } else {
            limit.min(POLL)
        };
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 2];
        // SAFETY: `events` is an array of two events, alive during the call.
        let ready = unsafe { libc::epoll_wait(self.wakes.as_raw_fd(), events.as_mut_ptr(), 2, timeout) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits awake for the next event, where a backend is likely to be stopped soon. Whether one has come.
    fn watch(&mut self) -> bool {
        if let Some(until) = self.spin.until().filter(|until| monotonic_now() < *until) {
            self.watches = true;
            self.say(reader::WATCHES);
            while monotonic_now() < until {
                if self.entry().is_some() {
                    return true;
                }
                std::hint::spin_loop();
            }
        }
        if !std::mem::take(&mut self.watches) {
            return false;
        }
        self.set_asleep(self.asleep);
        // A program that had looked at this before is about to have its entry in the ring.
        let until = monotonic_now().saturating_add(GRACE_NS);
        while monotonic_now() < until {
            if self.end() > self.position {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Tells the kernel side what this reader is about.
    fn say(&self, state: u32) {
        self.reader.half_word(0).store(state, Ordering::Release);
    }

    /// Hands on what is in the ring: at most `limit` events, and no more when they must be acknowledged first. Returns
    /// how many.
    pub fn drain(&mut self, limit: usize, mut handle: impl FnMut(Event<'_>)) -> usize {
        let mut drained = 0;
        while drained < limit && !self.must_acknowledge() {
            let Some((entry, next)) = self.entry() else { break };
            if let Some(event) = entry.and_then(Event::parse) {
                let (backend, held) = event.heard_of();
                handle(event);
                if let Some(backend) = backend {
                    self.spin.heard(backend);
                    held.into_iter().for_each(|at| self.spin.held(backend, at, monotonic_now()));
                }
            }
            self.position = next;
            drained += 1;
        }
        self.behind = drained == limit || self.must_acknowledge() || self.is_busy(drained);
        self.adapt(drained);
        drained
    }

    /// Whether the next event is about to be complete: one behind it may tell of a backend that waits. Not for long, lest a
    /// program that is interrupted in the middle of it keep this one spinning.
    fn is_busy(&mut self, drained: usize) -> bool {
        self.spins = if drained > 0 { 0 } else { self.spins.saturating_add(1) };
        self.end() > self.position && self.spins < MOST_SPINS
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.mask + 1
    }

    /// Up to where events were handed on: what [`Ring::resume`] takes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Up to where the kernel has reserved: all events so far begin before that.
    pub fn end(&self) -> u64 {
        self.producer.word(0).load(Ordering::Acquire)
    }

    /// Whether so much was not handed on yet that the reader should hurry: an eighth of the room; once it is `hurrying`, a
    /// fourth of that.
    pub fn is_filling(&self, hurrying: bool) -> bool {
        self.end() - self.position > self.size() / if hurrying { 32 } else { 8 }
    }

    /// Lets the kernel overwrite what was handed on.
    pub fn acknowledge(&mut self) {
        self.acknowledged = self.position;
        self.consumer.word(0).store(self.position, Ordering::Release);
    }

    /// Whether so much was handed on and not acknowledged that the kernel may soon find no room.
    pub fn must_acknowledge(&self) -> bool {
        self.position - self.acknowledged > (self.mask + 1) / KEPT_BACK
    }

    /// Goes on behind what an earlier agent recorded and had no time to acknowledge. Whether this ring has such a
    /// position.
    pub fn resume(&mut self, position: u64) -> bool {
        let end = self.end();
        let known = (self.acknowledged..=end).contains(&position);
        if known {
            self.position = position;
            self.acknowledge();
        }
        known
    }

    /// The entry at `position`, none if the kernel discarded it, and where the next begins. None if it is not
    /// complete.
    fn entry(&self) -> Option<(Option<&[u8]>, u64)> {
        let end = self.end();
        if self.position >= end {
            return None;
        }
        let at = self.page + usize::try_from(self.position & self.mask).ok()?;
        let header = self.producer.half_word(at).load(Ordering::Acquire);
        if header & BUSY != 0 {
            return None;
        }
        let length = header & !(BUSY | DISCARDED);
        let next = self.position + (u64::from(length) + HEADER as u64).next_multiple_of(8);
        let entry = self.producer.bytes(at + HEADER, length as usize);
        Some((entry.filter(|_| header & DISCARDED == 0), next))
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
                self.empty_rounds = 0;
            }
        }
    }

    fn set_asleep(&mut self, asleep: bool) {
        self.asleep = asleep;
        self.say(if asleep { reader::SLEEPS } else { reader::LOOKS });
    }
}

fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: the call takes a number only.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes `fd` one that `epoll` waits for.
fn watch(epoll: &OwnedFd, fd: RawFd, events: i32) -> io::Result<()> {
    let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: 0 };
    // SAFETY: `event` is alive during the call, which copies it.
    match unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An event takes a microsecond to be complete.
const MOST_SPINS: u32 = 100;
/// From a program's look at the reader to its entry in the ring it takes less than a microsecond, unless an interrupt comes
/// between: then that backend waits for the next look, `POLL` later at most.
const GRACE_NS: u64 = 10_000;
/// Empty rounds after which the reader sleeps: 100 ms without an event.
const IDLE_ROUNDS: u32 = 10;

/// The part of the ring that may wait for its acknowledgement.
const KEPT_BACK: u64 = 8;

/// `BPF_RINGBUF_HDR_SZ`, `BPF_RINGBUF_BUSY_BIT` and `BPF_RINGBUF_DISCARD_BIT` of `include/uapi/linux/bpf.h`
const HEADER: usize = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
