//! The record after it was written: files whose time is over go, small ones are merged, and what a legal hold names stays.
//!
//! [`Keeper`] is a thread of its own with the lowest priority. It pauses while the writer is behind, and whatever it does to a
//! file stands in the chain of seals before it is done.

mod age;
mod clock;
mod compact;
mod expire;
mod holds;
mod keeper;
mod rule;
mod uploaded;

pub use age::Age;
pub use compact::Compaction;
pub use holds::{Hold, HoldError, Holds, Whose};
pub use keeper::{Keeper, Settings};
pub use rule::Rule;
