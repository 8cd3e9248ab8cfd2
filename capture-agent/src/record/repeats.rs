//! A column of texts that repeat: each distinct text of a batch once, and its number in every row that has it.
//!
//! It saves both threads: a row costs four bytes instead of its text, and what stands in a file as a dictionary comes
//! to the writer as one.

use std::hash::BuildHasher as _;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, DictionaryArray, NullBufferBuilder, StringArray, StringBuilder, UInt32Array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::UInt32Type;
use arrow::error::ArrowError;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::labels::{text_bytes, texts};

/// Texts of a column, as its builder passes them on.
pub(super) type Repeated = DictionaryArray<UInt32Type>;

/// Builds a column of texts that repeat.
#[derive(Debug)]
pub(super) struct Repeats {
    /// Each distinct text, in the order in which they came.
    texts: StringBuilder,
    /// A text's number, by its hash.
    numbers: HashTable<u32>,
    /// The number of each row's text; 0 where it has none.
    rows: Vec<u32>,
    nulls: NullBufferBuilder,
    /// Bytes of large texts, in every row that has them.
    large: usize,
    /// The latest text: its number, and where it stands.
    latest: (u32, Range<usize>),
    hasher: RandomState,
}

impl Repeats {
    /// An empty column.
    pub(super) fn new() -> Self {
        Self {
            texts: StringBuilder::new(),
            numbers: HashTable::new(),
            rows: Vec::new(),
            nulls: NullBufferBuilder::new(0),
            large: 0,
            latest: (0, 0..0),
            hasher: RandomState::default(),
        }
    }

    /// Appends a text.
    #[inline]
    pub(super) fn append_value(&mut self, text: &str) {
        let (number, place) = &self.latest;
        let same = self.texts.values_slice().get(place.clone()) == Some(text.as_bytes());
        // Before the first one there is an empty place, which is no text.
        if same && !self.numbers.is_empty() {
            self.rows.push(*number);
        } else {
            let number = self.number(text);
            self.rows.push(number);
            self.latest = (number, place_of(&self.texts, number).unwrap_or_default());
        }
        self.nulls.append_non_null();
        if text.len() >= LARGE {
            self.large += text.len();
        }
    }

    /// Appends a text, or that there is none.
    #[inline]
    pub(super) fn append_option(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.append_value(text),
            None => self.append_null(),
        }
    }

    /// Appends the text with this number, which is not large, so many times.
    #[inline]
    pub(super) fn append_again(&mut self, number: u32, times: usize) {
        self.rows.extend(std::iter::repeat_n(number, times));
        self.nulls.append_n_non_nulls(times);
    }

    /// The number of the latest text.
    pub(super) fn latest(&self) -> u32 {
        self.latest.0
    }

    /// Appends that there is no text.
    #[inline]
    pub(super) fn append_null(&mut self) {
        self.rows.push(0);
        self.nulls.append_null();
    }

    fn number(&mut self, text: &str) -> u32 {
        let (texts, hasher) = (&mut self.texts, &self.hasher);
        let hash = hasher.hash_one(text.as_bytes());
        let same = |number: &u32| text_at(texts, *number) == Some(text.as_bytes());
        if let Some(number) = self.numbers.find(hash, same) {
            return *number;
        }
        // A batch is cut long before it has 2^32 texts.
        let number = u32::try_from(texts.offsets_slice().len() - 1).unwrap_or(u32::MAX);
        texts.append_value(text);
        let hash_of = |number: &u32| hasher.hash_one(text_at(texts, *number).unwrap_or_default());
        self.numbers.insert_unique(hash, number, hash_of);
        number
    }

    /// Rows so far.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Memory in use.
    pub(super) fn bytes(&self) -> usize {
        self.texts_bytes() + self.rows_bytes()
    }

    /// Memory in use for the distinct texts.
    pub(super) fn texts_bytes(&self) -> usize {
        text_bytes(&self.texts)
    }

    /// Memory in use for the rows; and of large texts that repeat what they take where there is no dictionary, so that a
    /// batch ends before that is much.
    pub(super) fn rows_bytes(&self) -> usize {
        size_of_val(self.rows.as_slice()) + self.large
    }

    /// The column, and an empty one in its place.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let room = Vec::with_capacity(self.rows.len());
        let rows = std::mem::replace(&mut self.rows, room);
        let nulls = self.nulls.finish();
        self.complete(rows, nulls)
    }

    /// The column whose row `n` has what was appended as number `rows[n]`, and an empty one in its place. `rows` has each
    /// number, in the order in which they came, and some of them again.
    pub(super) fn spread(&mut self, rows: &[u32]) -> Result<ArrayRef, ArrowError> {
        if rows.len() == self.rows.len() {
            return self.finish();
        }
        let nulls = self.nulls.finish().map(|nulls| spread_nulls(&nulls, rows));
        let numbers = spread(&self.rows, rows);
        self.rows.clear();
        self.complete(numbers, nulls)
    }

    fn complete(&mut self, rows: Vec<u32>, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
        self.numbers.clear();
        self.latest = (0, 0..0);
        self.large = 0;
        Ok(Arc::new(Repeated::try_new(UInt32Array::new(rows.into(), nulls), texts(&mut self.texts))?))
    }
}

/// What stands at each of `places`.
pub(super) fn spread<T: Copy + Default + PartialEq>(values: &[T], places: &[u32]) -> Vec<T> {
    if let [first, others @ ..] = values
        && others.iter().all(|other| other == first)
    {
        return vec![*first; places.len()];
    }
    places.iter().map(|place| values.get(*place as usize).copied().unwrap_or_default()).collect()
}

/// The same of what is null and what is not.
pub(super) fn spread_nulls(nulls: &NullBuffer, places: &[u32]) -> NullBuffer {
    if nulls.null_count() == nulls.len() {
        return NullBuffer::new_null(places.len());
    }
    BooleanBuffer::collect_bool(places.len(), |row| nulls.is_valid(places[row] as usize)).into()
}

/// A column that says the same in each of `rows` rows.
pub(super) fn constant(value: &str, rows: usize) -> Result<ArrayRef, ArrowError> {
    let value = Arc::new(StringArray::from_iter_values([value]));
    Ok(Arc::new(Repeated::try_new(UInt32Array::from(vec![0; rows]), value)?))
}

/// A column that says the second of two texts where it is true, else the first.
pub(super) fn either(rows: Vec<bool>, [first, second]: [&str; 2]) -> Result<ArrayRef, ArrowError> {
    let seconds = rows.iter().filter(|second| **second).count();
    // What no row says is not in the dictionary.
    match seconds {
        0 => constant(first, rows.len()),
        all if all == rows.len() => constant(second, rows.len()),
        _ => {
            let texts = Arc::new(StringArray::from_iter_values([first, second]));
            let rows: Vec<u32> = rows.into_iter().map(u32::from).collect();
            Ok(Arc::new(Repeated::try_new(UInt32Array::from(rows), texts)?))
        }
    }
}

/// The same column with its distinct texts apart.
pub(super) fn apart(column: &StringArray) -> Result<Repeated, ArrowError> {
    let mut repeats = Repeats::new();
    column.iter().for_each(|text| repeats.append_option(text));
    let data = repeats.finish()?.to_data();
    Ok(Repeated::from(data))
}

/// The text of a number, if there is one.
fn text_at(texts: &StringBuilder, number: u32) -> Option<&[u8]> {
    texts.values_slice().get(place_of(texts, number)?)
}

fn place_of(texts: &StringBuilder, number: u32) -> Option<Range<usize>> {
    let [from, to] = *texts.offsets_slice().get(number as usize..)?.first_chunk()?;
    Some(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
}

/// Bytes of a text that is large.
const LARGE: usize = 1_024;

#[cfg(test)]
mod tests {
    use arrow::array::{Array as _, AsArray as _};
    use proptest::prelude::*;

    use super::*;

    fn unfold(column: &ArrayRef) -> Vec<Option<String>> {
        let column = column.as_dictionary::<UInt32Type>();
        let column = column.downcast_dict::<StringArray>().unwrap();
        column.into_iter().map(|text| text.map(str::to_owned)).collect()
    }

    proptest! {
        #[test]
        fn every_row_has_its_text(rows: Vec<Option<prop::sample::Index>>, texts in prop::collection::vec(".{0,3}", 1..9)) {
            let rows: Vec<_> = rows.iter().map(|at| at.map(|at| at.get(&texts).clone())).collect();
            let mut column = Repeats::new();
            for _ in 0..2 {
                rows.iter().for_each(|text| column.append_option(text.as_deref()));
                prop_assert_eq!(column.len(), rows.len());
                let finished = column.finish().unwrap();
                prop_assert_eq!(&unfold(&finished), &rows);
                let mut distinct: Vec<_> = rows.iter().flatten().collect();
                distinct.sort();
                distinct.dedup();
                prop_assert_eq!(finished.as_any_dictionary().values().len(), distinct.len());
            }
        }
    }

    proptest! {
        #[test]
        fn rows_that_share_what_was_appended_have_its_text(
            texts in prop::collection::vec(prop::option::of(".{0,2}"), 1..9),
            again: Vec<prop::sample::Index>,
        ) {
            let mut rows: Vec<u32> = (0..).take(texts.len()).collect();
            rows.extend(again.iter().map(|at| at.index(texts.len()) as u32));
            let expected: Vec<_> = rows.iter().map(|at| texts[*at as usize].clone()).collect();
            let mut column = Repeats::new();
            for _ in 0..2 {
                texts.iter().for_each(|text| column.append_option(text.as_deref()));
                prop_assert_eq!(&unfold(&column.spread(&rows).unwrap()), &expected);
                prop_assert_eq!(column.len(), 0);
            }
        }
    }

    #[test]
    fn large_texts_weigh_in_every_row() {
        let mut column = Repeats::new();
        let text = "x".repeat(LARGE);
        (0..1_000).for_each(|_| column.append_value(&text));
        assert!(column.bytes() >= 1_000 * LARGE);
        column.finish().unwrap();
        assert!(column.bytes() < LARGE);
    }

    #[test]
    fn an_empty_text_is_no_null() {
        let mut column = Repeats::new();
        column.append_value("");
        column.append_null();
        column.append_value("a");
        column.append_value("");
        let column = column.finish().unwrap();
        assert_eq!(unfold(&column), [Some("".to_owned()), None, Some("a".to_owned()), Some("".to_owned())]);
    }
}
