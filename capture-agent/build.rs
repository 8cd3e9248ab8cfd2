//! Compiles the eBPF crate; `probes` embeds the object.

use anyhow::Context as _;
use std::path::PathBuf;

/// Leaves the object at `$OUT_DIR/capture-ebpf`.
fn main() -> anyhow::Result<()> {
    let out = std::env::var_os("OUT_DIR").context("OUT_DIR is not set: not run by cargo")?;
    xtask::ebpf::build(&PathBuf::from(out))?;
    Ok(())
}
