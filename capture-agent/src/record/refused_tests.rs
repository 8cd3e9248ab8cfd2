//! Rows that the columns of their table refuse, which a fault of the recorder would bring about: they are declared.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use proptest::prelude::*;

use super::batch::{Batch, Day};
use super::fixture::{MORNING, exchange, session, settings};
use super::loss::Loss;
use super::lsn::{Lsn, Piece, Span};
use super::tests::{column, read};
use super::*;
use crate::session::Direction;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn what_the_writer_cannot_encode_is_declared_with_what_was_to_share_its_row_group(
        before in 0..20_u64, after in 0..20_u64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::new(settings(folder.path())).unwrap().0;
        let owner = session(1, MORNING);
        let record = |recorder: &mut Recorder, seqs: std::ops::Range<u64>| {
            for seq in seqs.clone() {
                recorder.statement(&owner, &exchange(seq, MORNING, "select 1"));
            }
            recorder.commit(seqs.end);
            recorder.builders.flush();
        };
        record(&mut recorder, 0..before);
        recorder.queue.push(malformed(&owner), Duration::ZERO);
        record(&mut recorder, before..before + after);
        let summary = recorder.finish().unwrap();

        prop_assert_eq!(summary.lost_rows, before + 1);
        let gaps = read(folder.path(), Table::Gaps);
        let lost = column(&gaps, "lost_rows");
        prop_assert_eq!(lost.as_primitive::<Int64Type>().values().iter().sum::<i64>(), before as i64 + 1);
        prop_assert_eq!(column(&gaps, "session_id").null_count(), 0);
        prop_assert_eq!(read(folder.path(), Table::Statements).num_rows() as u64, after);
    }
}

/// A statement whose columns are none of its table's.
fn malformed(owner: &SessionInfo) -> Batch {
    let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(vec![1]))];
    let fields = vec![Field::new("session_id", DataType::Int32, false)];
    let loss = Loss {
        session: Some(owner.origin.id),
        table: Table::Statements,
        direction: Direction::Frontend,
        range: None,
        statements: None,
        rows: 1,
        at: MORNING,
    };
    Batch {
        table: Table::Statements,
        day: Day::of(MORNING),
        rows: RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap(),
        bytes: 1,
        stake: vec![loss],
        piece: Piece { after: None, span: Span { first: Lsn(0), last: Lsn(0) } },
    }
}
