//! Which files a question needs: by table, and by the date in their folder's name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::civil::Date;

use super::ReadError;
use crate::record::Table;

/// Dates, both ends included; without an end there is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dates {
    pub(super) from: Option<Date>,
    pub(super) to: Option<Date>,
}

impl Dates {
    fn contain(&self, date: Date) -> bool {
        self.from.is_none_or(|from| from <= date) && self.to.is_none_or(|to| date <= to)
    }
}

/// The complete files of a table, in the order in which their rows were recorded. A table that has none yet is no
/// error; a data directory that has no table is.
pub(super) fn of_table(data_dir: &Path, table: Table, dates: Dates) -> Result<Vec<PathBuf>, ReadError> {
    let folder = data_dir.join(table.name());
    let mut found = Vec::new();
    for (name, path) in entries(&folder)? {
        if name
            .strip_prefix("date=")
            .and_then(|date| date.parse().ok())
            .is_some_and(|date| dates.contain(date))
        {
            let files = entries(&path)?;
            let complete =
                |(name, _): &(String, PathBuf)| !name.starts_with('.') && name.ends_with(".parquet");
            found.extend(
                files.into_iter().filter(complete).map(|(file, path)| (name.clone(), time(&file), path)),
            );
        }
    }
    if found.is_empty() && !Table::ALL.iter().any(|table| data_dir.join(table.name()).is_dir()) {
        return Err(ReadError::NoRecord { path: data_dir.to_owned() });
    }
    found.sort();
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

/// The part of a file's name that grows with time: its ULID, and what follows it.
fn time(file: &str) -> String {
    let (_, id) = file.rsplit_once('-').unwrap_or(("", file));
    id.to_owned()
}

/// Names and paths in a folder; none if it is not there.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, ReadError> {
    let unreadable = |source| ReadError::Folder { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    entries
        .map(|entry| {
            let entry = entry.map_err(unreadable)?;
            Ok((entry.file_name().to_string_lossy().into_owned(), entry.path()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn files_come_by_date_and_time_and_growing_ones_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        for path in [
            "statements/date=2026-07-26/b-01J0.parquet",
            "statements/date=2026-07-25/b-01J2.parquet",
            "statements/date=2026-07-25/z-01J1.parquet",
            "statements/date=2026-07-25/.b-01J3.tmp",
            "statements/date=2026-07-20/b-01J0.parquet",
            "statements/notes/b-01J0.parquet",
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let dates = Dates { from: Some(date(2026, 7, 25)), to: None };
        let files = of_table(folder.path(), Table::Statements, dates).unwrap();
        let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["z-01J1.parquet", "b-01J2.parquet", "b-01J0.parquet"]);
        assert!(of_table(folder.path(), Table::Results, dates).unwrap().is_empty());
    }

    #[test]
    fn a_folder_without_a_record_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = of_table(folder.path(), Table::Sessions, Dates::default()).unwrap_err();
        assert!(matches!(error, ReadError::NoRecord { .. }));
    }
}
