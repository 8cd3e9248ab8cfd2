//! What chains say of files, taken together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::entry::{Contents, Merged, Replaced, What};
use super::finding::Wrong;

/// What the chains say of the files.
#[derive(Default)]
pub(super) struct Claims {
    pub(super) files: BTreeMap<String, Entry>,
    /// Files that were removed, with the chain and its line that say so.
    pub(super) gone: HashMap<String, (usize, u64)>,
    /// Files of lines that nobody signed: something is known to be wrong with them already.
    pub(super) doubtful: BTreeSet<String>,
}

/// A file that a chain seals.
pub(super) struct Entry {
    pub(super) contents: Contents,
    /// Which chain, and which line of it.
    pub(super) chain: usize,
    pub(super) line: u64,
}

impl Claims {
    /// Takes in what a line says. What a chain says of another chain's files does not count.
    pub(super) fn take(&mut self, what: What, chain: usize, line: u64, mut say: impl FnMut(&str, Wrong)) {
        match what {
            What::File(contents) | What::Found(contents) => self.add(contents, chain, line, say),
            What::Withdrawn { file } => {
                self.remove(&file, chain);
            }
            What::Expired { file, .. } => {
                self.remove(&file, chain);
                self.gone.insert(file, (chain, line));
            }
            What::Merged(Merged { contents, replaced }) => {
                let mut rows = 0;
                let mut equal = true;
                for Replaced { file, sha256 } in replaced {
                    match self.remove(&file, chain) {
                        Some(known) => {
                            rows += known.rows;
                            equal &= known.sha256 == sha256;
                        }
                        // A line is missing, which has been said.
                        None => equal = false,
                    }
                    self.gone.insert(file, (chain, line));
                }
                if !equal || rows != contents.rows {
                    say(&contents.file, Wrong::Unequal);
                }
                self.add(contents, chain, line, say);
            }
        }
    }

    fn add(&mut self, contents: Contents, chain: usize, line: u64, mut say: impl FnMut(&str, Wrong)) {
        let file = contents.file.clone();
        self.gone.remove(&file);
        if self.files.insert(file.clone(), Entry { contents, chain, line }).is_some() {
            say(&file, Wrong::SealedTwice);
        }
    }

    fn remove(&mut self, file: &str, chain: usize) -> Option<Contents> {
        let own = self.files.get(file).is_some_and(|entry| entry.chain == chain);
        own.then(|| self.files.remove(file)).flatten().map(|entry| entry.contents)
    }
}
