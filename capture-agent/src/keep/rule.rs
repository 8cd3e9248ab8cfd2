//! What a rule of retention says, and which files it would remove.

use crate::record::{StoredFile, Table};

use super::Age;

/// How long files of some tables are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The tables.
    pub tables: Vec<Table>,
    /// A file goes when it is older.
    pub age: Option<Age>,
    /// The oldest files go while all together have more bytes.
    pub bytes: Option<u64>,
    /// Files go also if nobody has confirmed that they are uploaded.
    pub unconfirmed: bool,
}

impl Rule {
    /// The files that it would remove, the oldest first, each with the reason. `now` is a Unix time in milliseconds; without
    /// one, ages are not looked at.
    pub(super) fn over<'a>(
        &self,
        files: &'a [StoredFile],
        now: Option<u64>,
    ) -> Vec<(&'a StoredFile, String)> {
        let mut own: Vec<_> = files.iter().filter(|file| self.tables.contains(&file.table)).collect();
        own.sort_by_key(|file| file.id);
        let mut excess = self.bytes.map_or(0, |most| {
            let all: u64 = own.iter().map(|file| file.bytes).sum();
            all.saturating_sub(most)
        });
        let mut over = Vec::new();
        for file in own {
            let age = now.map_or(0, |now| now.saturating_sub(file.id.timestamp_ms()));
            let old = self.age.filter(|most| u128::from(age) > most.duration().as_millis());
            if let Some(most) = old {
                over.push((file, format!("age {most}")));
            } else if excess > 0 {
                over.push((file, format!("bytes {}", self.bytes.unwrap_or(0))));
            }
            excess = excess.saturating_sub(file.bytes);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ulid::Ulid;

    use super::*;

    fn file(table: Table, at: u64, bytes: u64) -> StoredFile {
        StoredFile::for_test(table, Ulid::from_parts(at, 0), PathBuf::new(), bytes)
    }

    fn rule(age: Option<&str>, bytes: Option<u64>) -> Rule {
        let age = age.map(|age| age.parse().unwrap());
        Rule { tables: vec![Table::Results, Table::Gaps], age, bytes, unconfirmed: false }
    }

    fn names(over: Vec<(&StoredFile, String)>) -> Vec<(&str, String)> {
        over.into_iter().map(|(file, why)| (file.name.as_str(), why)).collect()
    }

    #[test]
    fn a_file_goes_when_it_is_older_than_the_rule_of_its_table_says() {
        let files = [
            file(Table::Statements, 1_000, 5),
            file(Table::Results, 1_000, 5),
            file(Table::Gaps, 9_000, 5),
            file(Table::Results, 50_000, 5),
        ];
        let over = |now| names(rule(Some("10s"), None).over(&files, now));
        assert_eq!(over(Some(11_000)), []);
        assert_eq!(over(Some(11_001)), [("1000", "age 10s".to_owned())]);
        assert_eq!(over(Some(60_000)).len(), 2);
        // A clock that went back makes nothing old, and without one nothing is.
        assert_eq!(over(Some(0)), []);
        assert_eq!(over(None), []);
    }

    #[test]
    fn the_oldest_files_go_until_the_rest_is_small_enough() {
        let files = [5_000, 1_000, 3_000].map(|at| file(Table::Results, at, 40));
        let over = |bytes| names(rule(None, Some(bytes)).over(&files, None));
        assert_eq!(over(120), []);
        assert_eq!(over(119), [("1000", "bytes 119".to_owned())]);
        assert_eq!(over(79).len(), 2);
        assert_eq!(over(0).len(), 3);
    }
}
