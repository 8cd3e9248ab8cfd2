//! Which files are to be merged.

use crate::record::StoredFile;

/// When files are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// So many of a table and day at least, while the day lasts.
    pub files: usize,
    /// Into one of so many bytes at most.
    pub bytes: u64,
}

impl Compaction {
    /// The first run of files that shall become one. `files` are of one table and day, in their order, without those that cannot be
    /// merged; a place in it is where such a one stands. `is_over` if no more files of that day are expected.
    ///
    /// While the day lasts, no file is merged that has more than a quarter of the run's bytes: so each row is rewritten a few times
    /// only, however many files come.
    pub(super) fn run<'a>(&self, files: &[Option<&'a StoredFile>], is_over: bool) -> Vec<&'a StoredFile> {
        let least = if is_over { 2 } else { self.files };
        for start in 0..files.len() {
            let mut run: Vec<&StoredFile> = Vec::new();
            let mut best = 0;
            let (mut bytes, mut largest) = (0, 0);
            for file in files.get(start..).unwrap_or_default() {
                let Some(file) = file.filter(|file| bytes + file.bytes <= self.bytes) else { break };
                if run.len() == MOST {
                    break;
                }
                run.push(file);
                bytes += file.bytes;
                largest = largest.max(file.bytes);
                if run.len() >= least && (is_over || largest <= bytes / 4) {
                    best = run.len();
                }
            }
            if best > 0 {
                run.truncate(best);
                return run;
            }
        }
        Vec::new()
    }
}

/// Files that are merged at once: each is named in the line of the chain.
const MOST: usize = 256;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;
    use ulid::Ulid;

    use super::*;
    use crate::record::Table;

    const RULE: Compaction = Compaction { files: 4, bytes: 1_000 };

    fn files(sizes: &[u64]) -> Vec<StoredFile> {
        let file = |(at, bytes): (usize, &u64)| {
            StoredFile::for_test(Table::Results, Ulid::from_parts(at as u64, 0), PathBuf::new(), *bytes)
        };
        sizes.iter().enumerate().map(file).collect()
    }

    fn sizes(sizes: &[u64], is_over: bool) -> Vec<u64> {
        let files = files(sizes);
        let places: Vec<_> = files.iter().map(Some).collect();
        RULE.run(&places, is_over).iter().map(|file| file.bytes).collect()
    }

    #[test]
    fn small_files_are_merged_when_there_are_enough_and_all_when_the_day_is_over() {
        assert_eq!(sizes(&[5, 5, 5], false), [0u64; 0]);
        assert_eq!(sizes(&[5, 5, 5, 5], false), [5, 5, 5, 5]);
        assert_eq!(sizes(&[40, 5, 5, 5], false), [0u64; 0]);
        assert_eq!(sizes(&[40, 5, 5, 5, 5], false), [5, 5, 5, 5]);
        assert_eq!(sizes(&[20, 20, 20, 5, 5], true), [20, 20, 20, 5, 5]);
        assert_eq!(sizes(&[900, 200, 700], true), [200, 700]);
        assert_eq!(sizes(&[900, 200, 900], true), [0u64; 0]);
        assert_eq!(sizes(&[5], true), [0u64; 0]);
    }

    #[test]
    fn files_are_not_merged_across_one_that_cannot_be() {
        let files = files(&[5, 5, 5, 5, 5, 5]);
        let mut places: Vec<_> = files.iter().map(Some).collect();
        places[2] = None;
        assert!(RULE.run(&places, false).is_empty());
        assert_eq!(RULE.run(&places, true).len(), 2);
    }

    proptest! {
        /// However many files come, few are left, and no row is written often.
        #[test]
        fn many_files_become_few_and_are_seldom_rewritten(sizes in proptest::collection::vec(1u64..20, 0..400)) {
            let mut here: Vec<u64> = Vec::new();
            let (mut written, mut came) = (0, 0);
            let merge = |here: &mut Vec<u64>, is_over| {
                let mut written = 0;
                loop {
                    let files = files(here);
                    let places: Vec<_> = files.iter().map(Some).collect();
                    let run = RULE.run(&places, is_over);
                    let Some(first) = run.first() else { return written };
                    let at = usize::try_from(first.id.timestamp_ms()).unwrap();
                    let bytes: u64 = run.iter().map(|file| file.bytes).sum();
                    written += bytes;
                    here.splice(at..at + run.len(), [bytes]);
                }
            };
            for size in sizes {
                came += size;
                here.push(size);
                written += merge(&mut here, false);
                prop_assert!(here.len() < 60, "{here:?}");
            }
            prop_assert!(written <= 8 * came, "{written} of {came}");
            merge(&mut here, true);
            prop_assert!(here.windows(2).all(|pair| pair[0] + pair[1] > RULE.bytes), "{here:?}");
        }
    }
}
