//! How small files become few.

use serde::Deserialize;

use super::bytes::bytes;
use crate::keep;

/// When small files of a table and day are merged. Without this section, none is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compaction {
    /// So many at least, while the day lasts.
    pub files: usize,
    /// Into one of so many bytes at most.
    #[serde(deserialize_with = "bytes")]
    pub bytes: u64,
}

impl Compaction {
    /// The same for those who merge.
    pub fn rule(self) -> keep::Compaction {
        keep::Compaction { files: self.files, bytes: self.bytes }
    }

    /// Whether what is set makes sense.
    pub(super) fn check(self) -> Result<(), String> {
        if self.files < 4 {
            return Err(format!("`compaction.files` is {}; expected 4 or more", self.files));
        }
        if self.bytes == 0 {
            return Err(
                "`compaction.bytes` is 0; expected a size; without `[compaction]` nothing is merged".into()
            );
        }
        Ok(())
    }
}

impl Default for Compaction {
    fn default() -> Self {
        Self { files: 16, bytes: 64 << 20 }
    }
}
