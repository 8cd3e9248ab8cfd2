//! Capture's agent: records every session that clients hold with a PostgreSQL server, from inside the kernel.
//!
//! The rooms stand in the order in which data flows; a room uses only rooms above it. `ARCHITECTURE.md` is
//! the map.

pub mod telemetry;

#[allow(unsafe_code, reason = "the edge to the kernel: poll, clocks")]
pub mod probes;

pub mod streams;

pub mod frames;

pub mod session;

pub mod sql;

pub mod mask;
pub mod policy;

pub mod seal;

pub mod record;

pub mod events;
pub mod upload;

pub mod shim;

pub mod approvals;

pub mod enforce;

pub mod read;

pub mod keep;

pub mod cli;

pub mod config;

pub mod run;
