//! What `verify` finds.

use std::fmt;

use serde::Serialize;

/// Something that is not as it was sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file in the data directory.
    pub file: String,
    /// The line of the chain, from 1; none for what no line tells of.
    pub line: Option<u64>,
    /// What is wrong with it.
    #[serde(flatten)]
    pub wrong: Wrong,
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Wrong {
    /// A sealed file is not there.
    Removed,
    /// A sealed file holds something else.
    Changed,
    /// A file is there that was never sealed.
    Added,
    /// The same file was sealed twice.
    SealedTwice,
    /// The file was removed or replaced, as its chain says, and is there all the same.
    Back,
    /// A file does not have as many rows as those that it replaced, or replaced another version of them.
    Unequal,
    /// The line of the chain is no seal.
    Unreadable,
    /// The line was not signed by the key.
    Forged,
    /// The line does not follow the one before it: lines were removed, added or reordered here.
    OutOfOrder,
    /// The chain ends within a line.
    Torn,
    /// The chain does not reach as far as an anchor says it did.
    CutOff {
        /// The number of the seal that was anchored.
        anchored: u64,
    },
    /// The chain has another seal where the anchor was made.
    Replaced {
        /// The number of the seal that was anchored.
        anchored: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, wrong } = self;
        match wrong {
            Wrong::Removed => write!(f, "removed       {file}")?,
            Wrong::Changed => write!(f, "changed       {file}")?,
            Wrong::Added => write!(f, "added         {file}: nobody sealed it")?,
            Wrong::SealedTwice => write!(f, "sealed twice  {file}")?,
            Wrong::Back => write!(f, "back          {file}: its chain says that it was removed")?,
            Wrong::Unequal => {
                write!(f, "unequal       {file}: it does not have the rows of the files that it replaced")?;
            }
            Wrong::Unreadable => write!(f, "unreadable    {file}: no seal")?,
            Wrong::Forged => write!(f, "forged        {file}: the key did not sign its seal")?,
            Wrong::OutOfOrder => {
                write!(f, "out of order  {file}: seals were removed, added or moved before its own")?;
            }
            Wrong::Torn => write!(f, "torn          {file}: it ends within a seal")?,
            Wrong::CutOff { anchored } => {
                write!(
                    f,
                    "cut off       {file}: it reached to seal {anchored} at least, as the anchor says"
                )?;
            }
            Wrong::Replaced { anchored } => {
                write!(f, "replaced      {file}: seal {anchored} is not the one that was anchored")?;
            }
        }
        line.map_or(Ok(()), |line| write!(f, " (line {line} of its chain)"))
    }
}
