//! What passes from the reader thread to the writer thread.

use arrow::array::RecordBatch;

use super::loss::Loss;
use super::lsn::Piece;
use super::table::Table;
use crate::session::Micros;

/// Rows of one table and one day.
#[derive(Debug)]
pub(super) struct Batch {
    /// Their table.
    pub(super) table: Table,
    /// Their day.
    pub(super) day: Day,
    /// Their columns.
    pub(super) rows: RecordBatch,
    /// Memory that it holds, in bytes.
    pub(super) bytes: usize,
    /// What is lost with it.
    pub(super) stake: Vec<Loss>,
    /// Where its rows stand in the journal.
    pub(super) piece: Piece,
}

/// A day, UTC: days since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Day(pub(super) i64);

impl Day {
    /// The day of a point in time.
    pub(super) fn of(at: Micros) -> Self {
        Self(at.0.div_euclid(DAY_US))
    }

    /// `date=YYYY-MM-DD`.
    pub(super) fn folder(self) -> String {
        let date = jiff::civil::date(1970, 1, 1);
        let span = jiff::Span::new().try_days(self.0);
        // Times beyond the calendar, which end in year 9999, are kept together.
        let date = span.and_then(|span| date.checked_add(span)).unwrap_or(jiff::civil::Date::MAX);
        format!("date={date}")
    }

    /// The day that a folder is named for.
    pub(super) fn of_folder(name: &str) -> Option<Self> {
        let date: jiff::civil::Date = name.strip_prefix("date=")?.parse().ok()?;
        let span = date.since((jiff::Unit::Day, jiff::civil::date(1970, 1, 1))).ok()?;
        Some(Self(i64::from(span.get_days())))
    }
}

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_named_by_the_calendar() {
        assert_eq!(Day::of(Micros(0)).folder(), "date=1970-01-01");
        assert_eq!(Day::of(Micros(DAY_US - 1)).folder(), "date=1970-01-01");
        assert_eq!(Day::of(Micros(-1)).folder(), "date=1969-12-31");
        assert_eq!(Day::of(Micros(1_790_000_000_000_000)).folder(), "date=2026-09-21");
        assert_eq!(Day::of(Micros(i64::MAX)).folder(), "date=9999-12-31");
        for day in [Day(0), Day(-1), Day(20_000)] {
            assert_eq!(Day::of_folder(&day.folder()), Some(day));
        }
        assert_eq!(Day::of_folder("date=x"), None);
    }
}
