//! What a reader finds in a row group whose texts were encoded here: what was added, however it repeats.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{cast, concat_batches};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Encoding;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::serialized_reader::ReadOptionsBuilder;
use proptest::prelude::*;

use super::fixture::{MORNING, columns, exchange, session, with_params};
use super::labels::LabelCache;
use super::layout::{self, Layout};
use super::row_group::{Encoder, RowGroup};
use super::statements::Statements;
use super::table::Table;
use crate::session::{Exchange, Status};
use crate::sql::{Analyzer, Limits};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_reader_finds_what_was_added(
        batches in prop::collection::vec(prop::collection::vec((0..4_u128, statement()), 1..40), 1..4)
    ) {
        let batches: Vec<RecordBatch> = batches.iter().map(|rows| batch(rows)).collect();
        prop_assert_eq!(read(&file(&batches)), expected(&batches));
    }

    #[test]
    fn what_executions_share_is_recorded_as_if_each_had_its_own(
        distinct in prop::collection::vec(statement(), 1..5),
        rows: Vec<(u8, prop::sample::Index, bool, Option<u8>)>,
    ) {
        let rows: Vec<_> = rows
            .iter()
            .map(|(session, at, completed, tag)| {
                let mut exchange = at.get(&distinct).clone();
                exchange.status = if *completed { Status::Completed } else { Status::Suspended };
                exchange.command_tag = tag.map(|tag| format!("SELECT {}", tag % 3).as_str().into());
                (u128::from(session % 3), exchange)
            })
            .collect();
        let apart: Vec<_> = rows.iter().map(|(session, exchange)| (*session, apart(exchange))).collect();
        prop_assert_eq!(expected(&[batch(&rows)]), expected(&[batch(&apart)]));
    }
}

/// The same statement, which shares nothing.
fn apart(exchange: &Exchange) -> Exchange {
    Exchange {
        sql: exchange.sql.as_deref().map(Into::into),
        statement_name: exchange.statement_name.as_deref().map(Into::into),
        columns: exchange.columns.as_deref().map(Into::into),
        ..exchange.clone()
    }
}

#[test]
fn texts_that_do_not_repeat_or_do_not_fit_are_written_plainly_from_there_on() {
    let row = |sql: &str| (1, exchange(0, MORNING, sql));
    let few = batch(&vec![row("select 1"); 100]);
    let unique = batch(&(0..1_000).map(|n| row(&format!("select {n}"))).collect::<Vec<_>>());
    let long = |n: usize| row(&format!("select '{}'", format!("{n:>4}").repeat(8_000)));
    let large = batch(&(0..200).map(|n| long(n % 100)).collect::<Vec<_>>());
    for (batches, plain) in [
        (vec![few.clone(), few.clone()], false),
        (vec![few.clone(), unique.clone(), few.clone()], true),
        (vec![few.clone(), large, few], true),
        (vec![unique.clone(), unique], true),
    ] {
        let file = file(&batches);
        assert_eq!(read(&file), expected(&batches));
        let sql = column(&file, "sql");
        let pages = sql.page_encoding_stats_mask().unwrap();
        assert_eq!(pages.is_set(Encoding::PLAIN), plain, "{pages:?}");
        assert_eq!(pages.is_set(Encoding::RLE_DICTIONARY), sql.dictionary_page_offset().is_some());
    }
}

#[test]
fn a_row_group_says_which_texts_it_may_hold() {
    let rows: Vec<_> = (0..3).map(|n| (n, exchange(0, MORNING, "select * from t"))).collect();
    let file = file(&[batch(&rows)]);
    let options = ReadOptionsBuilder::new()
        .with_reader_properties(ReaderProperties::builder().set_read_bloom_filter(true).build())
        .build();
    let reader = SerializedFileReader::new_with_options(file.clone(), options).unwrap();
    let group = reader.get_row_group(0).unwrap();
    let filter = group.get_column_bloom_filter(0).unwrap();
    let id = |n| session(n, MORNING).origin.id.0.hyphenated().to_string();
    assert!((0..3).all(|n| filter.check(id(n).as_str())));
    assert!((3..9).filter(|n| filter.check(id(*n).as_str())).count() < 3);
    let column = column(&file, "session_id");
    let statistics = column.statistics().unwrap();
    assert_eq!(statistics.min_bytes_opt(), Some(id(0).as_bytes()));
    assert_eq!(statistics.max_bytes_opt(), Some(id(2).as_bytes()));
    assert_eq!(statistics.null_count_opt(), Some(0));
}

/// Everyday statements, some of them with texts that no other has.
fn statement() -> impl Strategy<Value = Exchange> {
    let sql = prop_oneof![
        Just("select * from a, b where lower(c) = 'x'".to_owned()),
        Just("insert into a select f(x) from b".to_owned()),
        Just("begin".to_owned()),
        Just("selec".to_owned()),
        (0..9_999_u32).prop_map(|n| format!("select {n}")),
    ];
    let message = prop::option::of(".{0,9}");
    (sql, message, prop::option::of(0..4_usize), 0..3_usize).prop_map(|(sql, message, described, params)| {
        let mut made = exchange(0, MORNING, &sql);
        made.error_message = message;
        made.columns = described.map(|count| columns(&["id", "name", "id", ""][..count]));
        if sql == "selec" {
            made.sql = None;
        }
        with_params(made, &[(23, Some(&b"1"[..])), (25, None)][..params.min(2)])
    })
}

fn batch(rows: &[(u128, Exchange)]) -> RecordBatch {
    let mut statements = Statements::new();
    let mut labels = LabelCache::new();
    let mut analyzer = Analyzer::new(Limits::default());
    let sessions: Vec<_> = (0..9).map(|n| session(n, MORNING)).collect();
    for (n, exchange) in rows {
        let session = sessions.get(*n as usize).cloned().unwrap_or_else(|| session(*n, MORNING));
        let analyze = || exchange.sql.as_ref().map(|sql| analyzer.analyze(sql, true));
        statements.append(labels.of(&session), &session, exchange, analyze);
    }
    statements.finish("node-1").unwrap()
}

fn file(batches: &[RecordBatch]) -> Bytes {
    let mut encoder = Encoder::new(Table::Statements).unwrap();
    batches.iter().for_each(|batch| encoder.add(batch, &[], None).unwrap());
    let mut writer =
        RowGroup::file_writer(Table::Statements, layout::properties(Layout::Recorded, None), Vec::new())
            .unwrap();
    RowGroup::append(encoder.finish().unwrap().columns, &mut writer).unwrap();
    writer.into_inner().unwrap().into()
}

fn read(file: &Bytes) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap().build().unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    concat_batches(&Table::Statements.schema(), &batches).unwrap()
}

/// The same rows with every text in its place.
fn expected(batches: &[RecordBatch]) -> RecordBatch {
    let schema = Table::Statements.schema();
    let unfolded = batches.iter().map(|batch| {
        let columns = schema.fields().iter().zip(batch.columns());
        let columns: Vec<ArrayRef> =
            columns.map(|(field, column)| cast(column, field.data_type()).unwrap()).collect();
        RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
    });
    concat_batches(&schema, &unfolded.collect::<Vec<_>>()).unwrap()
}

fn column(file: &Bytes, name: &str) -> ColumnChunkMetaData {
    let reader = SerializedFileReader::new(file.clone()).unwrap();
    let group = reader.metadata().row_group(0);
    group.columns().iter().find(|column| column.column_path().string() == name).unwrap().clone()
}
