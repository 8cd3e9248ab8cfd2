//! Capture's tasks, as a library: the agent's build script compiles the eBPF crate through it.
