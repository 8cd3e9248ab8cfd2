//! Proof of what was recorded: an append-only chain of signed seals per node, `<data-dir>/seals/<node>.jsonl`.
//!
//! Each line seals one published file: its name, its hash, what it holds, and the hash of the line before; or says that a file
//! was removed for its age, or replaced by one that has its rows. Whoever changes,
//! removes, adds or reorders something cannot sign a chain that fits, unless he has the key; and whoever has it cannot
//! shorten the chain behind an anchor that was kept elsewhere. `docs/seals.md` describes the format for those who would
//! rather verify without this program.

mod anchor;
mod chain;
mod claims;
mod entry;
mod finding;
mod hex;
mod key;
mod live;
mod pieces;
#[cfg(test)]
mod tests;
mod verify;

pub use anchor::Anchor;
pub use chain::{Chain, SharedChain};
pub use entry::{Contents, Merged, Replaced, What, read as read_line};
pub use finding::{Finding, Wrong};
pub use hex::hex;
pub use key::{KeyError, PublicKey, SigningKey};
pub use live::{Live, Sealed};
pub use verify::{Checked, Report, Request, VerifyError, verify};

pub use pieces::name as piece_name;

use ring::digest::{Context, SHA256, digest};

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// Computes the hash of what passes, piece by piece.
#[derive(Clone)]
pub struct Hasher(Context);

impl Hasher {
    /// Of nothing so far.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all that was added.
    pub fn finish(self) -> Hash {
        to_hash(self.0.finish().as_ref())
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

/// The hash of `bytes`.
pub fn hash(bytes: &[u8]) -> Hash {
    to_hash(digest(&SHA256, bytes).as_ref())
}

fn to_hash(bytes: &[u8]) -> Hash {
    let mut hash = Hash::default();
    hash.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    hash
}

/// The folder of the chains in the data directory.
pub const FOLDER: &str = "seals";

/// How the names of chains end.
pub(crate) const CHAIN: &str = "jsonl";

/// How the names of their public keys end.
pub(crate) const PUBLIC_KEY: &str = "pub";
