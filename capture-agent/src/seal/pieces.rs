//! A chain in pieces, as it lies in object storage, where nothing can be appended to: the folder `seals/<node>.jsonl/` with a
//! file for each piece, named by the number of its first seal. Put together in the order of their names, they are the chain.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::CHAIN;

/// The name of the piece that begins with this seal.
pub fn name(first: u64) -> String {
    format!("{first:012}.{CHAIN}")
}

/// Reads a chain, whether it is one file or a folder of pieces.
pub(super) fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if !path.is_dir() {
        return Ok(Box::new(BufReader::new(File::open(path)?)));
    }
    let mut pieces = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    pieces.retain(|piece| piece.extension().is_some_and(|extension| extension == CHAIN));
    pieces.sort();
    Ok(Box::new(BufReader::new(Pieces { rest: pieces.into_iter(), open: None })))
}

/// Files, one after the other. One is open at a time.
struct Pieces {
    rest: std::vec::IntoIter<PathBuf>,
    open: Option<File>,
}

impl Read for Pieces {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &mut self.open {
                let length = file.read(bytes)?;
                if length > 0 || bytes.is_empty() {
                    return Ok(length);
                }
            }
            let Some(next) = self.rest.next() else { return Ok(0) };
            self.open = Some(File::open(next)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for (first, text) in [(0, "a\nb\n"), (10, "d\n"), (2, "c\n")] {
            fs::write(folder.path().join(name(first)), text).unwrap();
        }
        fs::write(folder.path().join("note.txt"), "x\n").unwrap();
        let mut read = String::new();
        open(folder.path()).unwrap().read_to_string(&mut read).unwrap();
        assert_eq!(read, "a\nb\nc\nd\n");
        let file = folder.path().join("whole.jsonl");
        fs::write(&file, "whole\n").unwrap();
        read.clear();
        open(&file).unwrap().read_to_string(&mut read).unwrap();
        assert_eq!(read, "whole\n");
    }
}
