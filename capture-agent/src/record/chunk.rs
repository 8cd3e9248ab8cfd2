//! A column chunk of texts that repeat, made from the numbers that their builder gave them.
//!
//! The library's own encoder looks each row's text up; here a text is looked up once for each batch. What comes out is
//! what the library writes: a dictionary page and pages of version 2, or plain pages where the texts do not repeat.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, ListArray, StringArray};
use arrow::datatypes::UInt32Type;
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter as _};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, PageEncodingStats};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use zstd::bulk::Compressor;

use super::hybrid;
use super::layout;
use super::repeats::{self, Repeated};

/// A column chunk that grows in memory, page by page.
pub(super) struct TextChunk {
    column: ColumnDescPtr,
    compression: Compression,
    /// The number of each text of the dictionary.
    numbers: HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>,
    /// The dictionary's page.
    dictionary: Vec<u8>,
    /// Most bytes of the dictionary.
    dictionary_limit: usize,
    /// No dictionary from here on: the texts do not repeat, or are too many.
    plain: bool,
    pages: Vec<CompressedPage>,
    pages_bytes: usize,
    rows: u64,
    values: i64,
    nulls: u64,
    /// The least and the greatest text, if the column has statistics.
    range: Option<Range>,
    /// How often a Bloom filter may err, if the column has one.
    filter: Option<f64>,
}

/// The least and the greatest text so far.
#[derive(Debug, Default)]
struct Range {
    ends: Option<Ends>,
}

type Ends = (Box<[u8]>, Box<[u8]>);

/// A column's part of a batch.
pub(super) struct Leaf {
    rows: usize,
    /// For each value, null or list without one: where it stands (Dremel's levels). None: one of each row, none null.
    levels: Option<Levels>,
    texts: Repeated,
}

#[derive(Debug, Default)]
struct Levels {
    repetition: Vec<u32>,
    definition: Vec<u32>,
}

/// Whether files that are written so can have chunks from here: they are neither encrypted nor found by pages.
pub(super) fn may_serve(properties: &WriterProperties) -> bool {
    properties.file_encryption_properties().is_none() && properties.offset_index_disabled()
}

/// Whether a column can be made here: texts with a dictionary, in every row or in lists that lack none.
pub(super) fn serves(column: &ColumnDescPtr, properties: &WriterProperties) -> bool {
    let plain = column.max_rep_level() == 0 && column.max_def_level() <= 1;
    let listed = column.max_rep_level() == 1 && !column.self_type().is_optional();
    column.physical_type() == Type::BYTE_ARRAY
        && properties.dictionary_enabled(column.path())
        && (plain || listed)
}

impl TextChunk {
    /// An empty chunk.
    pub(super) fn new(column: &ColumnDescPtr, properties: &WriterProperties) -> Self {
        let path = column.path();
        let statistics = properties.statistics_enabled(path) != EnabledStatistics::None;
        Self {
            column: Arc::clone(column),
            compression: properties.compression(path),
            numbers: HashMap::default(),
            dictionary: Vec::new(),
            dictionary_limit: properties.column_dictionary_page_size_limit(path),
            plain: false,
            pages: Vec::new(),
            pages_bytes: 0,
            rows: 0,
            values: 0,
            nulls: 0,
            range: statistics.then(Range::default),
            filter: layout::filter(path),
        }
    }

    /// The definition level of a value that is there.
    pub(super) fn most(&self) -> i16 {
        self.column.max_def_level()
    }

    /// Memory in use.
    pub(super) fn bytes(&self) -> usize {
        self.pages_bytes + 2 * self.dictionary.len()
    }

    /// Adds a page.
    pub(super) fn add(&mut self, leaf: &Leaf, compressor: &mut Compressor<'_>) -> Result<()> {
        let keys = leaf.texts.keys();
        let texts: &StringArray = leaf.texts.values().as_string();
        let present = keys.len() - keys.null_count();
        let mut levels = Vec::new();
        let mut entries = keys.len();
        let mut repetition_bytes = 0;
        if self.column.max_rep_level() > 0 {
            let of_lists = leaf.levels.as_ref().ok_or_else(|| misfit(&self.column))?;
            entries = of_lists.definition.len();
            hybrid::encode(&of_lists.repetition, 1, &mut levels);
            repetition_bytes = levels.len();
        }
        if let Ok(most @ 1..) = u32::try_from(self.column.max_def_level()) {
            let width = hybrid::width(most);
            match (&leaf.levels, keys.nulls()) {
                (Some(of_lists), _) => hybrid::encode(&of_lists.definition, width, &mut levels),
                (None, None) => hybrid::encode_run(most, entries, width, &mut levels),
                (None, Some(_)) if present == 0 => hybrid::encode_same(0, entries, width, &mut levels),
                (None, Some(nulls)) => {
                    let definition: Vec<u32> = nulls.iter().map(u32::from).collect();
                    hybrid::encode(&definition, width, &mut levels);
                }
            }
        }
        let nulls = entries - present;
        let numbers = if self.plain { None } else { self.look_up(texts, present) };
        let (values, encoding) = match numbers {
            Some(numbers) => (self.packed(&numbers, &leaf.texts), Encoding::RLE_DICTIONARY),
            None => {
                self.plain = true;
                self.note_range(texts);
                (plain(texts, &leaf.texts), Encoding::PLAIN)
            }
        };
        let uncompressed = levels.len() + values.len();
        let definition_bytes = levels.len() - repetition_bytes;
        let mut buffer = levels;
        let is_compressed = compress(compressor, &values, &mut buffer)?;
        if !is_compressed {
            buffer.extend_from_slice(&values);
        }
        self.pages_bytes += buffer.len();
        let page = Page::DataPageV2 {
            buf: buffer.into(),
            num_values: size(entries)?,
            encoding,
            num_nulls: size(nulls)?,
            num_rows: size(leaf.rows)?,
            def_levels_byte_len: size(definition_bytes)?,
            rep_levels_byte_len: size(repetition_bytes)?,
            is_compressed,
            statistics: None,
        };
        self.pages.push(CompressedPage::new(page, uncompressed));
        self.rows += leaf.rows as u64;
        self.values += i64::from(size(entries)?);
        self.nulls += nulls as u64;
        Ok(())
    }

    /// The dictionary's number of each distinct text; none if they do not fit, or hardly repeat in `present` values.
    fn look_up(&mut self, texts: &StringArray, present: usize) -> Option<Vec<u32>> {
        if texts.len() > FEW && texts.len() > present / 2 {
            return None;
        }
        let mut numbers = Vec::with_capacity(texts.len());
        for text in texts.iter().flatten().map(str::as_bytes) {
            if let Some(number) = self.numbers.get(text) {
                numbers.push(*number);
                continue;
            }
            if self.dictionary.len() + text.len() + 4 > self.dictionary_limit {
                return None;
            }
            let number = u32::try_from(self.numbers.len()).ok()?;
            append_plain(text, &mut self.dictionary);
            self.numbers.insert(text.into(), number);
            numbers.push(number);
            if let Some(range) = &mut self.range {
                range.note(text);
            }
        }
        Some(numbers)
    }

    fn note_range(&mut self, texts: &StringArray) {
        if let Some(range) = &mut self.range {
            texts.iter().flatten().for_each(|text| range.note(text.as_bytes()));
        }
    }

    /// The values of a page that has a dictionary.
    fn packed(&self, numbers: &[u32], texts: &Repeated) -> Vec<u8> {
        let keys = texts.keys();
        let most = u32::try_from(self.numbers.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let width = hybrid::width(most);
        let mut values = vec![width];
        if let [number] = numbers {
            // Most columns say the same in all rows of a batch.
            hybrid::encode_same(*number, keys.len() - keys.null_count(), width, &mut values);
            return values;
        }
        let number = |key: &u32| numbers.get(*key as usize).copied().unwrap_or_default();
        let rows: Vec<u32> = match keys.nulls() {
            None => keys.values().iter().map(number).collect(),
            Some(_) => keys.iter().flatten().map(|key| number(&key)).collect(),
        };
        hybrid::encode(&rows, width, &mut values);
        values
    }

    /// Ends the chunk: its bytes, and what the footer says of them.
    pub(super) fn finish(mut self, compressor: &mut Compressor<'_>) -> Result<(Bytes, ColumnCloseResult)> {
        let mut sink = TrackedWrite::new(Vec::with_capacity(self.bytes()));
        let mut writer = SerializedPageWriter::new(&mut sink);
        let mut written = Written::default();
        // Without a page that refers to it, there is no dictionary.
        let refers = |page: &CompressedPage| page.encoding() == Encoding::RLE_DICTIONARY;
        if self.pages.first().is_some_and(refers) {
            let uncompressed = self.dictionary.len();
            let page = Page::DictionaryPage {
                // Its header cannot say that it is not compressed.
                buf: compressor.compress(&self.dictionary)?.into(),
                num_values: size(self.numbers.len())?,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            };
            written.dictionary = Some(0);
            written.note(Encoding::PLAIN, writer.write_page(CompressedPage::new(page, uncompressed))?);
        }
        let data = written.compressed;
        for page in std::mem::take(&mut self.pages) {
            let encoding = page.encoding();
            written.note(encoding, writer.write_page(page)?);
        }
        drop(writer);
        let mut metadata = ColumnChunkMetaData::builder(Arc::clone(&self.column))
            .set_compression(self.compression)
            .set_encodings(written.encodings())
            .set_page_encoding_stats(written.pages)
            .set_total_compressed_size(written.compressed)
            .set_total_uncompressed_size(written.uncompressed)
            .set_num_values(self.values)
            .set_data_page_offset(data)
            .set_dictionary_page_offset(written.dictionary);
        if let Some(range) = &self.range {
            metadata = metadata.set_statistics(range.statistics(self.nulls));
        }
        let close = ColumnCloseResult {
            bytes_written: u64::try_from(written.compressed).unwrap_or(0),
            rows_written: self.rows,
            metadata: metadata.build()?,
            bloom_filter: self.bloom_filter()?,
            column_index: None,
            offset_index: None,
        };
        Ok((sink.into_inner()?.into(), close))
    }

    /// The Bloom filter, where one is asked for and all texts are at hand.
    fn bloom_filter(&self) -> Result<Option<Sbbf>> {
        let Some(errs) = self.filter.filter(|_| !self.plain) else { return Ok(None) };
        let mut filter = Sbbf::new_with_ndv_fpp(self.numbers.len().max(1) as u64, errs)?;
        self.numbers.keys().for_each(|text| filter.insert(&**text));
        Ok(Some(filter))
    }
}

/// What was written of a chunk.
#[derive(Debug, Default)]
struct Written {
    compressed: i64,
    uncompressed: i64,
    dictionary: Option<i64>,
    pages: Vec<PageEncodingStats>,
}

impl Written {
    fn note(&mut self, encoding: Encoding, page: PageWriteSpec) {
        self.compressed += i64::try_from(page.bytes_written).unwrap_or(0);
        self.uncompressed += i64::try_from(page.uncompressed_size).unwrap_or(0);
        match self.pages.last_mut() {
            Some(last) if last.page_type == page.page_type && last.encoding == encoding => last.count += 1,
            _ => self.pages.push(PageEncodingStats { page_type: page.page_type, encoding, count: 1 }),
        }
    }

    /// Those of the pages, and that of the levels.
    fn encodings(&self) -> Vec<Encoding> {
        self.pages.iter().map(|page| page.encoding).chain([Encoding::RLE]).collect()
    }
}

impl Range {
    fn note(&mut self, text: &[u8]) {
        match &mut self.ends {
            None => self.ends = Some((text.into(), text.into())),
            Some((least, greatest)) => {
                if text < &**least {
                    *least = text.into();
                }
                if text > &**greatest {
                    *greatest = text.into();
                }
            }
        }
    }

    /// Ends that are too long for a footer are left out.
    fn statistics(&self, nulls: u64) -> Statistics {
        let short = |(least, greatest): &&Ends| least.len().max(greatest.len()) <= LONG;
        let ends = self.ends.as_ref().filter(short);
        let (least, greatest) = ends.map(|(least, greatest)| (value(least), value(greatest))).unzip();
        Statistics::byte_array(least, greatest, None, Some(nulls), false)
    }
}

impl Leaf {
    /// The part of `array` that is column `at` of those that it becomes (of a list of structs there are several),
    /// where `most` is the definition level of a value.
    pub(super) fn of(array: &ArrayRef, at: usize, most: i16) -> std::result::Result<Self, ArrowError> {
        let rows = array.len();
        let Some(list) = array.as_list_opt::<i32>() else {
            return Ok(Self { rows, levels: None, texts: repeated(array)? });
        };
        let elements = match list.values().as_struct_opt() {
            Some(fields) => fields.column(at),
            None => list.values(),
        };
        let (from, to) = ends(list);
        let levels = Levels::of(list, u32::try_from(most).unwrap_or(0));
        Ok(Self { rows, levels: Some(levels), texts: repeated(&elements.slice(from, to - from))? })
    }
}

impl Levels {
    /// Of lists whose elements are never null, and of which each is at level `most`.
    fn of(list: &ListArray, most: u32) -> Self {
        let mut levels = Self::default();
        for (row, ends) in list.value_offsets().windows(2).enumerate() {
            let elements = usize::try_from(ends[1] - ends[0]).unwrap_or(0);
            levels.repetition.push(0);
            if elements > 0 {
                levels.repetition.extend(std::iter::repeat_n(1, elements - 1));
                levels.definition.extend(std::iter::repeat_n(most, elements));
            } else {
                levels.definition.push(most.saturating_sub(if list.is_null(row) { 2 } else { 1 }));
            }
        }
        levels
    }
}

/// The first element of the first list, and the one behind the last.
fn ends(list: &ListArray) -> (usize, usize) {
    let end = |offset: Option<&i32>| offset.and_then(|end| usize::try_from(*end).ok()).unwrap_or(0);
    (end(list.value_offsets().first()), end(list.value_offsets().last()))
}

/// Texts, each distinct one apart, whichever way they come.
fn repeated(texts: &ArrayRef) -> std::result::Result<Repeated, ArrowError> {
    match texts.as_dictionary_opt::<UInt32Type>() {
        Some(texts) => Ok(texts.clone()),
        None => match texts.as_string_opt() {
            Some(texts) => repeats::apart(texts),
            None => Err(ArrowError::SchemaError(format!("{} where texts belong", texts.data_type()))),
        },
    }
}

/// The values of a page without a dictionary.
fn plain(texts: &StringArray, rows: &Repeated) -> Vec<u8> {
    let mut values = Vec::new();
    for key in rows.keys().iter().flatten() {
        append_plain(texts.value(key as usize).as_bytes(), &mut values);
    }
    values
}

/// Appends `bytes` compressed, unless that would not make them shorter.
fn compress(compressor: &mut Compressor<'_>, bytes: &[u8], to: &mut Vec<u8>) -> Result<bool> {
    if bytes.len() < WORTH_COMPRESSING {
        return Ok(false);
    }
    let compressed = compressor.compress(bytes)?;
    let shorter = compressed.len() < bytes.len();
    if shorter {
        to.extend_from_slice(&compressed);
    }
    Ok(shorter)
}

/// A length of 32 bits, and the bytes.
fn append_plain(text: &[u8], to: &mut Vec<u8>) {
    // An arrow column holds less than 2^31 bytes.
    to.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    to.extend_from_slice(text);
}

fn value(text: &[u8]) -> ByteArray {
    ByteArray::from(text.to_vec())
}

fn size(size: usize) -> Result<u32> {
    u32::try_from(size).map_err(|_| ParquetError::General(format!("{size} is too much for a page")))
}

fn misfit(column: &ColumnDescPtr) -> ParquetError {
    ParquetError::General(format!("{}: a list is expected", column.path()))
}

/// Texts of a batch that are few enough for a dictionary, whether they repeat or not.
const FEW: usize = 256;

/// Bytes from which on a compressed page is worth its time.
const WORTH_COMPRESSING: usize = 64;

/// Bytes of the least or greatest text that a footer does not name any more.
const LONG: usize = 64;
