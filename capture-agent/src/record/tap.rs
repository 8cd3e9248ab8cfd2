//! Somebody else who is told what is recorded: exactly what reaches the record, after all that is masked or left out, and
//! only once it is committed.

use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;

use super::Decision;
use crate::session::{Exchange, SessionInfo};
use crate::sql::Analysis;

/// Is told what is recorded, on the capture thread: it must not wait. Positions are those of the journal: they only grow, and
/// what is told again after a death has the same one again.
pub trait Tap: Debug + Send {
    /// The recorder begins, and nobody else records to its data directory. Which journal it writes, where the oldest position
    /// is that can still be read, if any, and where the next one will be.
    ///
    /// # Errors
    ///
    /// What is kept of an earlier agent cannot be used.
    fn begin(
        &mut self,
        journal: u128,
        oldest: Option<u64>,
        next: u64,
    ) -> Result<Begun, Box<dyn Error + Send + Sync>>;

    /// A statement was recorded; `analysis` is what its text does, if it has one.
    fn statement(
        &mut self,
        at: u64,
        session: &SessionInfo,
        exchange: &Exchange,
        analysis: Option<&Arc<Analysis>>,
    );

    /// A decision was recorded, about a session if there is one.
    fn decision(&mut self, at: u64, session: Option<&SessionInfo>, decision: &Decision);

    /// Everything before `end` is permanent. What was told since the last time and is not will be told again.
    fn commit(&mut self, end: u64);

    /// Everything before this is kept elsewhere: it need not be told again, whatever dies.
    fn kept(&self) -> u64;

    /// Nothing more will come. Returns whether everything is kept.
    fn close(&mut self) -> bool;
}

/// Where a [`Tap`] goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// It is to be told again what stands here or behind.
    pub from: u64,
    /// Positions before this are used already, also if the journal does not know.
    pub next: u64,
}
