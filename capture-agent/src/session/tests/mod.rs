//! Conversations, one file per subject.

mod extended;
mod simple;
