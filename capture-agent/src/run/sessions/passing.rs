//! Rows that no rule wants: has the kernel side pass over them, once a result turns out to be long.

use capture_common::{PASS_LEAST, slot_of};

use super::super::open::Open;
use super::{Sessions, Skipped};
use crate::mask::{Masked, Masker};
use crate::probes::{self, Passes};
use crate::record::Recorder;
use crate::session::{Direction, Micros, Passed};

/// What the kernel side is asked, and what it has answered.
pub(super) struct Passing {
    passes: Passes,
    /// Processes that have sent much since the last look.
    busy: Vec<u32>,
    /// Slots whose answer is taken and not committed: an agent that comes after this one may need it.
    taken: Vec<u32>,
}

impl Passing {
    pub(super) fn new(passes: Passes) -> Self {
        Self { passes, busy: Vec::new(), taken: Vec::new() }
    }

    /// What was taken is about to be committed.
    pub(super) fn saved(&mut self) {
        self.taken.clear();
    }

    /// The process has sent these bytes.
    #[inline]
    pub(super) fn note(&mut self, tgid: u32, bytes: &[u8]) {
        if bytes.len() as u64 >= PASS_LEAST && self.busy.last() != Some(&tgid) {
            self.busy.push(tgid);
        }
    }

    /// The session's next bytes from the server stand at `offset`, or it ends there: accounts for what was passed over before.
    #[inline]
    pub(super) fn before(
        &mut self,
        open: &mut Open,
        offset: u64,
        at: Micros,
        masker: &mut Masker,
        recorder: &mut Recorder,
    ) {
        if open.session.lacks(Direction::Backend, offset) {
            self.take(open, offset, at, masker, recorder);
        }
    }

    #[cold]
    fn take(
        &mut self,
        open: &mut Open,
        offset: u64,
        at: Micros,
        masker: &mut Masker,
        recorder: &mut Recorder,
    ) {
        let Some(passed) = self.passes.passed(open.key, offset) else { return };
        let probes::Passed { range, messages, astray } = passed;
        let passed = Passed { range, messages, astray };
        if !open.session.lacks(Direction::Backend, passed.range.1) {
            return;
        }
        self.taken.push(slot_of(open.key.tgid));
        if open.skip {
            open.session.passed(passed, at, &mut Skipped(recorder));
        } else {
            open.session.passed(passed, at, &mut Masked::new(masker, &mut open.masks, recorder));
        }
    }
}

impl Sessions {
    /// Everything was read that there is, if `all`: says of each long result that is under way what is not wanted any more of
    /// it. Later the kernel side would have run past that.
    pub(in crate::run) fn pass_over(&mut self, all: bool) {
        let Passing { passes, busy, taken } = &mut self.passing;
        busy.sort_unstable();
        busy.dedup();
        for tgid in busy.drain(..).filter(|_| all) {
            let Some(open) = self.open.get(&tgid) else { continue };
            let Some(unwanted) = open.session.unwanted() else { continue };
            let free = match passes.owner(open.key) {
                None => true,
                Some(owner) if owner == open.key => passes
                    .passed(owner, u64::MAX)
                    .is_none_or(|passed| !open.session.lacks(Direction::Backend, passed.range.1)),
                Some(other) => self.open.get(&other.tgid).is_none_or(|open| open.key != other),
            };
            if free && !taken.contains(&slot_of(tgid)) {
                passes.ask(open.key, unwanted.tag, unwanted.next);
            }
        }
    }
}
