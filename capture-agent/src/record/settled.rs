//! Rows of the journal that need no replay, because they stand in complete files: what the files say themselves, in
//! their footers, and what the journal noted.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use uuid::Uuid;

use super::RecordError;
use super::batch::Day;
use super::file::Place;
use super::keys::{KeyMissing, Keys};
use super::lsn::{Lsn, Span, Spans};
use super::table::Table;

/// Rows that are settled, by table and day.
#[derive(Clone, Debug, Default)]
pub(super) struct Settled {
    /// Disjoint, by their first position.
    spans: HashMap<(Table, Day), Vec<Span>>,
    /// The greatest position of them all.
    last: Option<Lsn>,
}

impl Settled {
    /// Adds rows.
    pub(super) fn add(&mut self, table: Table, day: Day, mut span: Span) {
        self.last = self.last.max(Some(span.last));
        let spans = self.spans.entry((table, day)).or_default();
        // Those that overlap it are neighbours.
        let from = spans.partition_point(|known| known.last < span.first);
        let to = spans.partition_point(|known| known.first <= span.last);
        if let Some(overlapping) = spans.get(from..to)
            && let (Some(first), Some(last)) = (overlapping.first(), overlapping.last())
        {
            span = Span { first: span.first.min(first.first), last: span.last.max(last.last) };
        }
        spans.splice(from..to.max(from), [span]);
    }

    /// Whether a row is settled.
    pub(super) fn contains(&self, table: Table, day: Day, lsn: Lsn) -> bool {
        let Some(spans) = self.spans.get(&(table, day)) else { return false };
        let at = spans.partition_point(|known| known.last < lsn);
        spans.get(at).is_some_and(|span| span.first <= lsn)
    }

    /// The greatest position.
    pub(super) fn last(&self) -> Option<Lsn> {
        self.last
    }

    /// Adds what complete files say that were made at `since` or later, in Unix milliseconds.
    ///
    /// # Errors
    ///
    /// A folder cannot be read, or the key of a file is missing: its rows would be recorded twice.
    pub(super) fn read_files(&mut self, place: &Place, journal: u128, since: u64) -> Result<(), RecordError> {
        let unreadable = |source| RecordError::DataDir { path: place.data_dir.clone(), source };
        for (table, day, path) in place.complete_since(since).map_err(unreadable)? {
            match rows_of(&path, place.keys(), journal) {
                Ok(spans) => spans.iter().for_each(|span| self.add(table, day, span)),
                // Whoever reads the record cannot read it either, so its rows are missing.
                Err(error) => match KeyMissing::of(&error) {
                    Some(source) => return Err(RecordError::Key { path, source }),
                    None => {
                        tracing::warn!(file = %path.display(), %error, "this file is no complete Parquet");
                    }
                },
            }
        }
        Ok(())
    }
}

/// What a file's footer says of its rows.
pub(super) fn footer(journal: u128, spans: &Spans) -> [KeyValue; 2] {
    [
        KeyValue::new(JOURNAL.to_owned(), Uuid::from_u128(journal).to_string()),
        KeyValue::new(ROWS.to_owned(), spans.to_string()),
    ]
}

/// The rows of `journal` that a file has.
fn rows_of(path: &Path, keys: &Keys, journal: u128) -> Result<Spans, ParquetError> {
    let file = File::open(path)?;
    let metadata = keys.footer_reader().parse_and_finish(&file)?;
    Ok(rows_in(&metadata, journal)?)
}

/// The rows of `journal` that a file has, by its footer.
pub(super) fn rows_in(metadata: &ParquetMetaData, journal: u128) -> io::Result<Spans> {
    let said = metadata.file_metadata().key_value_metadata().map_or(&[][..], Vec::as_slice);
    let value = |key: &str| said.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.as_deref());
    if value(JOURNAL).and_then(|id| id.parse().ok()).map(|id: Uuid| id.as_u128()) != Some(journal) {
        return Ok(Spans::default());
    }
    value(ROWS).unwrap_or_default().parse().map_err(|()| io::Error::other(format!("its {ROWS} is no list")))
}

/// The footer's key for the journal that the rows stood in.
const JOURNAL: &str = "capture.journal";

/// The footer's key for the rows' positions in it.
const ROWS: &str = "capture.rows";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn spans_are_a_set(spans in proptest::collection::vec((0u64..60, 0u64..12), 0..20)) {
            let mut settled = Settled::default();
            let day = Day(1);
            for (first, length) in &spans {
                settled.add(Table::Results, day, Span { first: Lsn(*first), last: Lsn(first + length) });
            }
            for lsn in 0..80 {
                let expected = spans.iter().any(|(first, length)| (*first..=first + length).contains(&lsn));
                prop_assert_eq!(settled.contains(Table::Results, day, Lsn(lsn)), expected);
                prop_assert!(!settled.contains(Table::Gaps, day, Lsn(lsn)));
                prop_assert!(!settled.contains(Table::Results, Day(2), Lsn(lsn)));
            }
            prop_assert_eq!(settled.last(), spans.iter().map(|(first, length)| Lsn(first + length)).max());
        }
    }
}
