//! What a record of the journal is: the first byte of each. A number is never used again for something else.

/// A session, as the records that name its slot see it.
pub(super) const SESSION: u8 = 1;
/// A text.
pub(super) const TEXT: u8 = 2;
/// The columns of a result.
pub(super) const COLUMNS: u8 = 3;
/// Texts and columns so far are forgotten.
pub(super) const FORGET_TEXTS: u8 = 4;
/// A row of a result.
pub(super) const ROW: u8 = 5;
/// A statement.
pub(super) const STATEMENT: u8 = 6;
/// A stretch of a stream that is missing.
pub(super) const GAP: u8 = 7;
/// A session's end.
pub(super) const END: u8 = 8;
/// Rows that could not be stored, as a row of `gaps` declares them.
pub(super) const LOSS: u8 = 9;
/// Rows that need no replay: they stand in a complete file, or their loss is declared.
pub(super) const SETTLED: u8 = 10;
/// An open session's state.
pub(super) const STATE: u8 = 11;
/// A session's state is no longer needed.
pub(super) const FORGET_STATE: u8 = 12;
/// The states that follow, up to the end of this transaction, are all there are.
pub(super) const CHECKPOINT: u8 = 13;
/// The end of a transaction, with the reader's position.
pub(super) const COMMIT: u8 = 14;
/// A decision.
pub(super) const DECISION: u8 = 15;
/// Rows of a result that follow each other.
pub(super) const ROWS: u8 = 16;

/// Bytes before a record's body: its kind, and the body's length.
pub(super) const PREFIX: usize = 5;
