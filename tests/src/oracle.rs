//! The comparison of the record with what the server itself says it did: statement by statement, none missing,
//! none extra.

mod compare;
mod executed;
mod parameters;
mod tail;
mod text;

pub use compare::{Comparison, compare};
pub use executed::{Executed, Said, Session, sessions};
pub use tail::{Tail, compare_tail};
