//! Words that are planted where a value can be, and looked for wherever the agent writes.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;

use anyhow::ensure;

use crate::record;

/// A word that stands nowhere else.
pub fn canary() -> String {
    format!("zq{:016x}", RandomState::new().hash_one("canary"))
}

/// Nothing below `folder` has the canary in it, in plain bytes, in Parquet or as hexadecimal digits; nor has this text.
///
/// # Errors
/// Something has: then where. Or a file cannot be read.
pub fn is_nowhere(canary: &str, folder: &Path, said: &str) -> anyhow::Result<()> {
    let hexadecimal: String = canary.bytes().map(|byte| format!("{byte:02x}")).collect();
    let upper = canary.to_uppercase();
    let found = record::find(folder, &[canary, &upper, &hexadecimal])?;
    ensure!(found.is_empty(), "found in files: {found:?}");
    for word in [canary, &upper, &hexadecimal] {
        ensure!(!said.contains(word), "{word} was said: {said}");
    }
    Ok(())
}
