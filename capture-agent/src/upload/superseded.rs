//! What a line of the chain means for the storage. Whoever gives the chain a new kind of line says it here.

use crate::seal::{Contents, What};

/// The file that is to be stored for this line.
pub(super) fn stored(what: &What) -> Option<&Contents> {
    match what {
        What::File(contents) | What::Found(contents) => Some(contents),
        What::Merged(merged) => Some(&merged.contents),
        What::Withdrawn { .. } | What::Expired { .. } => None,
    }
}

/// The files that another one takes the place of by this line: they are removed from the storage, or not stored at all, once that
/// one is. A file that merely expired on its host is none of them: how long the storage keeps it, its own rules decide.
pub(super) fn superseded(what: &What) -> Vec<&str> {
    match what {
        What::File(_) | What::Found(_) | What::Expired { .. } => Vec::new(),
        What::Withdrawn { file } => vec![file],
        What::Merged(merged) => merged.replaced.iter().map(|replaced| replaced.file.as_str()).collect(),
    }
}
