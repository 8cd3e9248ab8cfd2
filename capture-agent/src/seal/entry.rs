//! One line of a chain: `{"seal":{…},"signature":"…"}`.
//!
//! What is signed are the bytes of the inner object as they stand there, so that nobody has to know how it was written.

use serde::{Deserialize, Serialize};

use super::hex::{hex, unhex};
use super::key::{PublicKey, Signature, SigningKey};
use super::{Hash, hash};

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    /// [`FORMAT`].
    pub(super) format: u32,
    /// 0 for a node's first, and so on.
    pub(super) number: u64,
    /// Whose.
    pub(super) node: String,
    /// When it was made: RFC 3339, UTC.
    pub(super) at: String,
    /// The hash of the line before, without its line feed; zeros in the first.
    pub(super) previous: String,
    #[serde(flatten)]
    pub(super) what: What,
}

/// What is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A file is published.
    File(Contents),
    /// A file was there already when the chain began: nothing is claimed about its past.
    Found(Contents),
    /// A file that was sealed could not be published after all.
    Withdrawn {
        /// Its place in the data directory.
        file: String,
    },
    /// A file is removed, because a rule of retention says so.
    Expired {
        /// Its place in the data directory.
        file: String,
        /// The rule's words.
        rule: String,
    },
    /// A file is published that has the rows of others, which are removed.
    Merged(Merged),
}

/// A file that takes the place of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// The file, as it was published.
    #[serde(flatten)]
    pub contents: Contents,
    /// Those that it replaces, in the order of their rows.
    pub replaced: Vec<Replaced>,
}

/// A file that another one replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Its place in the data directory.
    pub file: String,
    /// The hash of what its rows were read from.
    pub sha256: String,
}

/// A file as it was published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Its place in the data directory.
    pub file: String,
    /// Its hash, as hexadecimal digits.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// The earliest time in the column that its table is ordered by; none for tables that have no such column.
    pub first_at: Option<String>,
    /// The latest.
    pub last_at: Option<String>,
    /// The least session id.
    pub first_session: Option<String>,
    /// The greatest.
    pub last_session: Option<String>,
}

/// A line that was read.
#[derive(Clone, Debug)]
pub(super) struct Line<'a> {
    pub(super) seal: Seal,
    signed: &'a str,
    signature: Signature,
}

impl Seal {
    /// The line, without its line feed.
    pub(super) fn line(&self, key: &SigningKey) -> serde_json::Result<String> {
        let seal = serde_json::to_string(self)?;
        let signature = hex(&key.sign(seal.as_bytes()));
        Ok(format!("{BEGIN}{seal}{MIDDLE}{signature}{END}"))
    }
}

impl<'a> Line<'a> {
    /// Reads a line; none if it is not one.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let rest = line.strip_prefix(BEGIN)?.strip_suffix(END)?;
        let (rest, signature) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
        let signed = rest.strip_suffix(MIDDLE)?;
        let seal: Seal = serde_json::from_str(signed).ok()?;
        (seal.format == FORMAT).then_some(Self { seal, signed, signature: unhex(signature)? })
    }

    /// Whether `key` signed it.
    pub(super) fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.signed(self.signed.as_bytes(), &self.signature)
    }
}

/// What a line says that need not be verified: its seal's number, when that was made, and what was sealed. None if it is
/// no seal.
pub fn read(line: &str) -> Option<(u64, String, What)> {
    Line::parse(line).map(|Line { seal, .. }| (seal.number, seal.at, seal.what))
}

impl What {
    /// The file that it is about.
    pub(super) fn file(&self) -> &str {
        match self {
            Self::File(contents) | Self::Found(contents) => &contents.file,
            Self::Merged(merged) => &merged.contents.file,
            Self::Withdrawn { file } | Self::Expired { file, .. } => file,
        }
    }
}

/// What the line after `line` says of it.
pub(super) fn previous(line: &str) -> String {
    hex(&hash(line.as_bytes()))
}

/// What a chain's first line says.
pub(super) fn none() -> String {
    hex(&Hash::default())
}

/// The format that this version writes and reads.
pub(super) const FORMAT: u32 = 1;

const BEGIN: &str = "{\"seal\":";
const MIDDLE: &str = ",\"signature\":\"";
const END: &str = "\"}";
/// Hexadecimal digits of a signature.
const DIGITS: usize = 128;
