//! Conversations, one file per subject.

mod cancel;
mod copy;
mod encryption;
mod ending;
mod extended;
mod function;
mod gaps;
mod limits;
mod names;
mod passed;
mod pieces;
mod pipeline;
mod replication;
mod saved;
mod simple;
mod startup;
