//! Object storage for the tests, and the engines that read from it: about 550 MB to download, 900 MB on disk.
//!
//! `tests/stores` names them: SeaweedFS speaks S3, fake-gcs-server Google's protocol, Azurite is Azure's own emulator;
//! DuckDB comes with its `httpfs`, Spark from PyPI. They stand in an environment of their own, so that demo and benchmark
//! do without them.

use super::python_node::{ensure_modules, ensure_venv};
use anyhow::Result;

/// Makes `stores`, below the folder of dependencies, hold what `tests/stores` names; yields how many things were not there.
pub(super) fn ensure() -> Result<usize> {
    let python = ensure_venv(
        "installing SeaweedFS, DuckDB's httpfs and Spark (450 MB)",
        "tests/stores",
        "stores/venv",
    )?;
    let modules = ensure_modules("installing Azurite (100 MB)", "tests/stores", "stores")?;
    Ok(usize::from(python) + usize::from(modules))
}
