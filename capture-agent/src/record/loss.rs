//! Rows that were captured but not stored: who lost what, for the `gaps` that declare it.

use std::collections::HashMap;

use super::table::Table;
use crate::session::{Direction, Micros, SessionId};

/// Rows of one session and table that are not in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// Whose; none for all that exceeded [`MAX_LOSSES`].
    pub(super) session: Option<SessionId>,
    /// Of which table.
    pub(super) table: Table,
    /// The stream that `range` speaks of.
    pub(super) direction: Direction,
    /// The stretch of the stream in which all of them lie, where it is known. `start <= end`.
    pub(super) range: Option<(u64, u64)>,
    /// The first and last statement that they belong to, where they belong to one. `first <= last`.
    pub(super) statements: Option<(u64, u64)>,
    /// How many rows.
    pub(super) rows: u64,
    /// The time of the first of them.
    pub(super) at: Micros,
}

impl Loss {
    #[inline]
    fn absorb(&mut self, other: &Self) {
        self.range = cover(self.range, other.range);
        self.statements = cover(self.statements, other.statements);
        self.rows = self.rows.saturating_add(other.rows);
        self.at = self.at.min(other.at);
    }

    /// How many of the rows in `stake` are `table`'s own. The others are losses that a row of `gaps` was to declare,
    /// which were counted before.
    pub(super) fn rows_of(table: Table, stake: &[Self]) -> u64 {
        stake.iter().filter(|loss| loss.table == table).map(|loss| loss.rows).sum()
    }

    fn same_subject(&self, other: &Self) -> bool {
        self.session == other.session && self.table == other.table && self.direction == other.direction
    }
}

/// What would be lost with a batch: cheap to note on the hot path, at most a few entries per session.
#[derive(Debug, Default)]
pub(super) struct Stake {
    losses: Vec<Loss>,
    /// By the session id's last byte, which is random in a UUIDv7: where its entry may stand.
    recent: HashSlots,
}

impl Stake {
    /// Notes a row.
    #[inline]
    pub(super) fn note(&mut self, loss: Loss) {
        let slot = loss.session.map_or(0, |id| usize::from(id.0.as_bytes()[15]));
        let hint = self.recent.0.get_mut(slot);
        if let Some(hint) = hint {
            match self.losses.get_mut(usize::from(*hint)) {
                Some(known) if known.same_subject(&loss) => return known.absorb(&loss),
                _ => *hint = u16::try_from(self.losses.len()).unwrap_or(u16::MAX),
            }
        }
        self.losses.push(loss);
    }

    /// Takes what was noted.
    pub(super) fn take(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.losses)
    }
}

/// What is lost, until it is declared.
#[derive(Debug, Default)]
pub(super) struct Losses {
    by_subject: HashMap<(Option<SessionId>, Table, bool), Loss>,
}

impl Losses {
    /// Adds rows that are lost.
    pub(super) fn add(&mut self, losses: &[Loss]) {
        for loss in losses {
            let full = self.by_subject.len() >= MAX_LOSSES;
            let key = |session| (session, loss.table, loss.direction == Direction::Frontend);
            match self.by_subject.get_mut(&key(loss.session)) {
                Some(known) => known.absorb(loss),
                None if full => {
                    // One entry for everybody keeps the number right when the names no longer fit.
                    let anyone = Loss { session: None, range: None, statements: None, ..*loss };
                    self.by_subject
                        .entry(key(None))
                        .and_modify(|known| known.absorb(&anyone))
                        .or_insert(anyone);
                }
                None => {
                    self.by_subject.insert(key(loss.session), *loss);
                }
            }
        }
    }

    /// Whether nothing is lost.
    pub(super) fn is_empty(&self) -> bool {
        self.by_subject.is_empty()
    }

    /// Takes all, in the order of their times.
    pub(super) fn take(&mut self) -> Vec<Loss> {
        std::mem::take(self).into_losses()
    }

    /// All, in the order of their times.
    pub(super) fn into_losses(self) -> Vec<Loss> {
        let mut losses: Vec<_> = self.by_subject.into_values().collect();
        losses.sort_by_key(|loss| (loss.at, loss.session));
        losses
    }

    /// Rows lost so far and not declared.
    pub(super) fn rows(&self) -> u64 {
        self.by_subject.values().map(|loss| loss.rows).sum()
    }
}

/// The stretch that covers both. What is unknown covers nothing.
fn cover(a: Option<(u64, u64)>, b: Option<(u64, u64)>) -> Option<(u64, u64)> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (known, None) | (None, known) => known,
    }
}

#[derive(Debug)]
struct HashSlots([u16; 256]);

impl Default for HashSlots {
    fn default() -> Self {
        Self([u16::MAX; 256])
    }
}

/// Sessions and tables whose losses are told apart: four times the processes that can be followed at once, at
/// about 150 bytes each.
const MAX_LOSSES: usize = 65_536;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn loss(session: u128, range: (u64, u64), at: i64) -> Loss {
        Loss {
            session: Some(SessionId(Uuid::from_u128(session))),
            table: Table::Statements,
            direction: Direction::Frontend,
            range: Some(range),
            statements: Some(range),
            rows: 1,
            at: Micros(at),
        }
    }

    #[test]
    fn rows_of_one_session_become_one_entry() {
        let mut stake = Stake::default();
        for n in 0..100 {
            stake.note(loss(u128::from(n % 4), (n, n + 1), 7));
        }
        let losses = stake.take();
        assert_eq!(losses.len(), 4);
        assert_eq!(losses[1].range, Some((1, 98)));
        assert_eq!(losses.iter().map(|loss| loss.rows).sum::<u64>(), 100);
    }

    #[test]
    fn sessions_that_share_a_slot_are_told_apart() {
        let mut stake = Stake::default();
        for n in 0..10 {
            stake.note(loss(1, (n, n + 1), 1));
            stake.note(loss(0x101, (n, n + 1), 1));
        }
        let mut losses = Losses::default();
        losses.add(&stake.take());
        assert_eq!(losses.rows(), 20);
        let losses = losses.take();
        assert_eq!(losses.len(), 2);
        assert!(losses.iter().all(|loss| loss.rows == 10 && loss.range == Some((0, 10))));
    }

    #[test]
    fn the_count_stays_right_when_there_are_too_many_sessions_to_name() {
        let mut losses = Losses::default();
        let extra = 1_000;
        for n in 0..MAX_LOSSES + extra {
            losses.add(&[loss(n as u128, (0, 1), 1)]);
        }
        assert_eq!(losses.rows(), (MAX_LOSSES + extra) as u64);
        let unnamed: Vec<_> = losses.take().into_iter().filter(|loss| loss.session.is_none()).collect();
        assert_eq!(unnamed.len(), 1);
        assert_eq!(unnamed[0].rows, extra as u64);
    }
}
