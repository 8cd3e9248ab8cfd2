//! Compiles the eBPF crate; `probes` embeds the object.
fn main() {}
