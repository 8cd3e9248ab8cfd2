//! Positions in the journal, and which of them a file's rows have.

use std::fmt;
use std::str::FromStr;

/// Where a record begins in the journal, which has no end: a log sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lsn(pub(super) u64);

/// All rows of one table and day from one position to another, both included. `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) first: Lsn,
    pub(super) last: Lsn,
}

/// The span of a batch, and the last row of the same table and day before it, where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) span: Span,
    pub(super) after: Option<Lsn>,
}

/// The spans of all rows in a file: few, since batches that follow each other become one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<Piece>);

impl Span {
    /// The span of one row.
    pub(super) fn of(lsn: Lsn) -> Self {
        Self { first: lsn, last: lsn }
    }
}

impl Spans {
    /// Adds a batch.
    pub(super) fn push(&mut self, piece: Piece) {
        match self.0.last_mut() {
            Some(last) if piece.after == Some(last.span.last) => last.span.last = piece.span.last,
            _ => self.0.push(piece),
        }
    }

    /// Adds the batches of another.
    pub(super) fn append(&mut self, other: &Self) {
        for piece in &other.0 {
            self.push(*piece);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The least position.
    pub(super) fn first(&self) -> Option<Lsn> {
        self.0.iter().map(|piece| piece.span.first).min()
    }

    /// The greatest position.
    pub(super) fn last(&self) -> Option<Lsn> {
        self.0.iter().map(|piece| piece.span.last).max()
    }

    /// One by one.
    pub(super) fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.0.iter().map(|piece| piece.span)
    }
}

impl FromIterator<Piece> for Spans {
    fn from_iter<I: IntoIterator<Item = Piece>>(pieces: I) -> Self {
        let mut spans = Self::default();
        pieces.into_iter().for_each(|piece| spans.push(piece));
        spans
    }
}

/// `first-last,first-last`, as a file's footer says it.
impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Span { first, last }) in self.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            write!(f, "{comma}{}-{}", first.0, last.0)?;
        }
        Ok(())
    }
}

impl FromStr for Spans {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut spans = Self::default();
        for span in text.split(',').filter(|span| !span.is_empty()) {
            let (first, last) = span.split_once('-').ok_or(())?;
            let lsn = |text: &str| text.parse().map(Lsn).map_err(|_| ());
            let span = Span { first: lsn(first)?, last: lsn(last)? };
            if span.first > span.last {
                return Err(());
            }
            spans.push(Piece { span, after: None });
        }
        Ok(spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(first: u64, last: u64, after: Option<u64>) -> Piece {
        Piece { span: Span { first: Lsn(first), last: Lsn(last) }, after: after.map(Lsn) }
    }

    #[test]
    fn batches_that_follow_each_other_become_one_span_and_others_do_not() {
        let mut spans = Spans::default();
        for (first, last, after) in [(5, 9, None), (20, 30, Some(9)), (50, 60, Some(40)), (1, 2, None)] {
            spans.push(piece(first, last, after));
        }
        assert_eq!(spans.to_string(), "5-30,50-60,1-2");
        assert_eq!((spans.first(), spans.last()), (Some(Lsn(1)), Some(Lsn(60))));
        let read: Spans = spans.to_string().parse().unwrap();
        assert!(read.iter().eq(spans.iter()));
    }

    #[test]
    fn what_is_no_list_of_spans_is_refused() {
        for text in ["x", "5", "9-5", "1-2,-", "1-99999999999999999999"] {
            assert!(text.parse::<Spans>().is_err(), "{text}");
        }
        assert_eq!("".parse::<Spans>().map(|spans| spans.len()), Ok(0));
    }
}
