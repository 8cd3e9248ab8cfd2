//! Rows that nobody wants: asks the kernel side to pass over them, and finds out what it has passed over. See
//! [`capture_common::Pass`].

use std::io;
use std::mem::offset_of;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;

use aya::maps::MapData;
use capture_common::{
    MAX_PASSES, PASS_ASKED, PASS_ASTRAY, PASS_FREE, PASS_ON, PASS_OVER, Pass, SessionKey, slot_of,
};

use super::mapping::Mapping;

/// The slots that both sides share.
pub struct Passes {
    slots: Mapping,
}

/// What was passed over of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Positions in the server's stream, as the kernel side counts it: of the first byte, and one past the last.
    pub range: (u64, u64),
    /// How many messages began in it.
    pub messages: u64,
    /// Whether the kernel side lost its way: it is not known whether a message begins behind it.
    pub astray: bool,
}

impl Passes {
    /// Maps the slots, which stay as long as this does.
    pub(super) fn new(map: &MapData) -> io::Result<Self> {
        let length = size_of::<Pass>() * MAX_PASSES as usize;
        let slots = Mapping::new(map.fd().as_fd(), length, 0, libc::PROT_READ | libc::PROT_WRITE)?;
        Ok(Self { slots })
    }

    /// Whose slot `key` would use, if it is anybody's.
    pub fn owner(&self, key: SessionKey) -> Option<SessionKey> {
        let slot = self.slot(key);
        (slot.half(offset_of!(Pass, state), Ordering::Acquire) != PASS_FREE).then(|| slot.owner())
    }

    /// From the message at `next` on, nothing of the session's is wanted but what is no message of type `tag`. The slot must
    /// be free, the session's own, or that of one whose process is gone.
    pub fn ask(&self, key: SessionKey, tag: u8, next: u64) {
        let slot = self.slot(key);
        let asked = slot.half(offset_of!(Pass, state), Ordering::Acquire);
        if asked == PASS_ON && slot.owner() == key {
            return;
        }
        if asked == PASS_ASKED && slot.owner() == key {
            // The kernel side may be about to take it up, which changes nothing: see `capture_common::Pass`.
            slot.set_half(offset_of!(Pass, tag), u32::from(tag));
            slot.set(offset_of!(Pass, next), next);
            return;
        }
        slot.set_half(offset_of!(Pass, state), PASS_FREE);
        slot.set(BORN, key.born);
        slot.set_half(TGID, key.tgid);
        slot.set_half(offset_of!(Pass, tag), u32::from(tag));
        slot.set(offset_of!(Pass, next), next);
        slot.0.half_word(slot.1 + offset_of!(Pass, state)).store(PASS_ASKED, Ordering::Release);
    }

    /// What was passed over of the session in front of its stream's position `end`, if that is over; or if the session is.
    pub fn passed(&self, key: SessionKey, end: u64) -> Option<Passed> {
        let slot = self.slot(key);
        let state = slot.half(offset_of!(Pass, state), Ordering::Acquire);
        if !matches!(state, PASS_ON | PASS_OVER | PASS_ASTRAY) || slot.owner() != key {
            return None;
        }
        let range = (slot.word(offset_of!(Pass, from)), slot.word(offset_of!(Pass, seen)));
        let messages = slot.word(offset_of!(Pass, messages));
        (range.0 <= range.1 && range.1 <= end).then_some(Passed {
            range,
            messages,
            astray: state == PASS_ASTRAY,
        })
    }

    fn slot(&self, key: SessionKey) -> Slot<'_> {
        Slot(&self.slots, slot_of(key.tgid) as usize * size_of::<Pass>())
    }
}

/// One slot, and where it begins.
struct Slot<'a>(&'a Mapping, usize);

impl Slot<'_> {
    fn word(&self, field: usize) -> u64 {
        self.0.word(self.1 + field).load(Ordering::Relaxed)
    }

    fn set(&self, field: usize, value: u64) {
        self.0.word(self.1 + field).store(value, Ordering::Relaxed);
    }

    fn half(&self, field: usize, ordering: Ordering) -> u32 {
        self.0.half_word(self.1 + field).load(ordering)
    }

    fn set_half(&self, field: usize, value: u32) {
        self.0.half_word(self.1 + field).store(value, Ordering::Relaxed);
    }

    fn owner(&self) -> SessionKey {
        SessionKey { born: self.word(BORN), tgid: self.half(TGID, Ordering::Relaxed), reserved: 0 }
    }
}

const BORN: usize = offset_of!(Pass, session) + offset_of!(SessionKey, born);
const TGID: usize = offset_of!(Pass, session) + offset_of!(SessionKey, tgid);
