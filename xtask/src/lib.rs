//! The part of Capture's tasks that the agent's build script needs: compiling the eBPF crate.
//!
//! The verbs of `cargo xtask` are modules of the binary, so that a change to one of them does not rebuild
//! the agent.

pub mod ebpf;
