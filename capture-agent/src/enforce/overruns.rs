//! Backends that wait because the ring had no room for bytes that must not be lost. Once all that the kernel delivered
//! before has been read, their bytes are fetched from their memory, and when these are committed they go on.

use capture_common::Hold;

use super::Backends;

/// The backends that wait.
#[derive(Default)]
pub struct Overruns {
    /// What waits, each with the ring's end when it was first seen: everything that its session sent before lies
    /// before that.
    waiting: Vec<(Hold, u64)>,
    /// What the kernel side had counted when the table was last looked through.
    counted: Option<u64>,
    /// When it was last asked.
    asked: u64,
}

impl Overruns {
    /// Looks for backends that were stopped, if by now the kernel side has `counted` more of them than at the last look.
    /// `end` tells where the ring's last event ends.
    pub fn look(
        &mut self,
        backends: &Backends,
        now: u64,
        counted: impl FnOnce() -> u64,
        end: impl FnOnce() -> u64,
    ) {
        if now.saturating_sub(self.asked) < ASK_NS {
            return;
        }
        self.asked = now;
        let counted = counted();
        if self.counted.replace(counted) == Some(counted) {
            return;
        }
        let waiting = backends.waiting(true);
        // Not before: what a backend sent until it was stopped must lie before that.
        let end = end();
        for hold in waiting {
            if self.waiting.iter().all(|(known, _)| known.at != hold.at || known.session != hold.session) {
                self.waiting.push((hold, end));
            }
        }
    }

    /// Has the next look ask the kernel side, however soon it comes.
    pub fn ask_again(&mut self) {
        self.asked = 0;
    }

    /// Whether the process waits and its bytes were not read yet: what the kernel counted of its session is ahead of
    /// what can be known.
    #[must_use]
    pub fn holds(&self, tgid: u32) -> bool {
        self.waiting.iter().any(|(hold, _)| hold.session.tgid == tgid)
    }

    /// Whether any backend waits.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes those of which all that came before has been read: the ring was read up to `position`.
    pub fn ready(&mut self, position: u64) -> Vec<Hold> {
        self.waiting.extract_if(.., |(_, end)| *end <= position).map(|(hold, _)| hold).collect()
    }
}

/// How often the kernel side is asked. It costs as much as an event, and what is stopped so has waited for the ring to be
/// read already.
const ASK_NS: u64 = 1_000_000;
