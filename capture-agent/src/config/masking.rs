//! What rules that mask need beside themselves.

use std::path::PathBuf;

use serde::Deserialize;

/// What `[[mask]]` rules need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Masking {
    /// The file of the key with which values are hashed; made if it is not there. None: in the data directory.
    pub key: Option<PathBuf>,
}
