//! Frames in, exchanges out: what each session said, one [`Exchange`] per executed statement.
//!
//! Sans-IO: bytes, system facts and time come in as arguments; everything that is known goes out through a
//! [`Sink`], in the order in which it became known.

mod exchange;

pub mod lexer;
pub mod split;
pub mod value;

pub use exchange::{
    Column, Direction, EndReason, Exchange, Gap, GapReason, Micros, Origin, Param, Protocol, RowValues,
    SessionEnd, SessionId, SessionInfo, Sink, Status, Transport, Values,
};
