//! Drains the ring.
//!
//! The kernel keeps what was read until it is acknowledged: an agent that dies between the two leaves it to the next.
//! Layout and protocol: `kernel/bpf/ringbuf.c`.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use aya::maps::{Array, MapData};

use super::event::Event;
use super::kernel::POLL;

/// The ring's consuming end.
///
/// While there is traffic the reader looks every `POLL`, and the kernel side wakes it only when the ring fills
/// up: a wake-up per event would cost the server more than the event. After `IDLE_ROUNDS` empty rounds it
/// asks to be woken and sleeps.
pub struct Ring {
    map: MapData,
    reader: Array<MapData, u32>,
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
}

impl Ring {
    /// Maps the ring `map` of `size` bytes.
    pub(super) fn new(map: MapData, size: u32, reader: Array<MapData, u32>) -> io::Result<Self> {
        // SAFETY: no precondition.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(io::Error::other)?;
        let fd = map.fd().as_fd();
        let consumer = Mapping::new(fd, page, 0, libc::PROT_READ | libc::PROT_WRITE)?;
        let producer = Mapping::new(fd, page + 2 * size as usize, page, libc::PROT_READ)?;
        let acknowledged = consumer.word(0).load(Ordering::Relaxed);
        let mut ring = Self {
            map,
            reader,
            consumer,
            producer,
            page,
            mask: u64::from(size) - 1,
            position: acknowledged,
            acknowledged,
            empty_rounds: 0,
            asleep: false,
        };
        // What an earlier agent asked for is void.
        ring.set_asleep(false);
        Ok(ring)
    }

    /// Waits until there may be events, `wake` is readable, or `limit` has passed.
    pub fn wait(&mut self, wake: RawFd, limit: Duration) -> io::Result<()> {
        let timeout = if self.asleep { limit } else { limit.min(POLL) };
        // The kernel calls a ring readable as long as anything in it is not acknowledged.
        let ring = if self.acknowledged == self.position { self.map.fd().as_fd().as_raw_fd() } else { -1 };
        let mut fds = [readable(ring), readable(wake)];
        // SAFETY: `fds` is an array of two initialised pollfds, alive during the call; it ignores a negative one.
        let ready = unsafe {
            libc::poll(fds.as_mut_ptr(), 2, i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX))
        };
        if ready < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Hands on what is in the ring: at most `limit` events, and no more when they must be acknowledged first. Returns
    /// how many.
    pub fn drain(&mut self, limit: usize, mut handle: impl FnMut(Event<'_>)) -> usize {
        let mut drained = 0;
        while drained < limit && !self.must_acknowledge() {
            let Some((entry, next)) = self.entry() else { break };
            if let Some(event) = entry.and_then(Event::parse) {
                handle(event);
            }
            self.position = next;
            drained += 1;
        }
        self.adapt(drained);
        drained
    }

    /// Up to where events were handed on: what [`Ring::resume`] takes.
    pub fn position(&self) -> u64 {
        self.position
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
        let end = self.producer.word(0).load(Ordering::Acquire);
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
        let end = self.producer.word(0).load(Ordering::Acquire);
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

/// Memory that the kernel shares.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone, and memory does not care which thread reads it.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, length: usize, offset: usize, protection: i32) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd.as_raw_fd(), offset)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { start, length })
    }

    /// The 64-bit number at `at`, which the kernel changes at any time.
    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.length, "outside of the ring");
        // SAFETY: in bounds and aligned (asserted; mappings begin at a page), valid as long as `self`, and shared
        // with the kernel through atomic access only.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(at).cast()) }
    }

    /// The 32-bit number at `at`, which the kernel changes at any time.
    fn half_word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.length, "outside of the ring");
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(at).cast()) }
    }

    /// Bytes that the kernel changes no more. None if they are not in the mapping.
    fn bytes(&self, at: usize, length: usize) -> Option<&[u8]> {
        let end = at.checked_add(length)?;
        // SAFETY: in bounds. The entry is complete, and the kernel does not touch it before it is acknowledged,
        // which takes the ring by exclusive reference and so ends this borrow.
        (end <= self.length)
            .then(|| unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(at), length) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, and no borrow of it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Empty rounds after which the reader sleeps: 100 ms without an event.
const IDLE_ROUNDS: u32 = 20;

/// The part of the ring that may wait for its acknowledgement.
const KEPT_BACK: u64 = 8;

/// `BPF_RINGBUF_HDR_SZ`, `BPF_RINGBUF_BUSY_BIT` and `BPF_RINGBUF_DISCARD_BIT` of `include/uapi/linux/bpf.h`
const HEADER: usize = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
