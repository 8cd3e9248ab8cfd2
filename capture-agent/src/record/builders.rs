//! Rows on their way into columns, and full batches on their way to the writer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use super::batch::{Batch, Day};
use super::decision::Decision;
use super::decisions::Decisions;
use super::gaps::Gaps;
use super::journal::Rows;
use super::labels::LabelCache;
use super::loss::Loss;
use super::lsn::{Lsn, Piece, Span, Spans};
use super::queue::Queue;
use super::results::Results;
use super::sessions::Sessions;
use super::statements::Statements;
use super::table::Table;
use super::tap::Tap;
use crate::session::{Exchange, Gap, Micros, RowRun, RowValues, SessionEnd, SessionInfo};
use crate::sql::{Analyzer, Limits};

/// The columns of all tables.
#[derive(Debug)]
pub(super) struct Builders {
    node: String,
    queue: Arc<Queue>,
    patience: Duration,
    labels: LabelCache,
    analyzer: Analyzer,
    sessions: Pending<Sessions>,
    statements: Pending<Statements>,
    results: Pending<Results>,
    gaps: Pending<Gaps>,
    decisions: Pending<Decisions>,
    now: Micros,
    /// Who else is told.
    tap: Option<Box<dyn Tap>>,
}

impl Builders {
    /// No rows. Waits at most `patience` for room in `queue`; what finds none is lost.
    pub(super) fn new(
        node: String,
        queue: Arc<Queue>,
        patience: Duration,
        tap: Option<Box<dyn Tap>>,
    ) -> Self {
        Self {
            node,
            queue,
            patience,
            labels: LabelCache::new(),
            analyzer: Analyzer::new(Limits::default()),
            sessions: Pending::new(Sessions::new()),
            statements: Pending::new(Statements::new()),
            results: Pending::new(Results::new()),
            gaps: Pending::new(Gaps::new()),
            decisions: Pending::new(Decisions::new()),
            now: Micros(0),
            tap,
        }
    }

    /// Who else is told.
    pub(super) fn tap(&mut self) -> Option<&mut (dyn Tap + 'static)> {
        self.tap.as_deref_mut()
    }

    /// Waits at most `patience` from now on.
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Time passes: hands over what has waited long enough.
    pub(super) fn tick(&mut self, now: Micros) {
        self.now = now;
        let due = Micros(now.0.saturating_sub(BATCH_AGE_US));
        if self.sessions.is_older_than(due) {
            self.flush_sessions();
        }
        if self.statements.is_older_than(due) {
            self.flush_statements();
        }
        if self.results.is_older_than(due) {
            self.flush_results();
        }
        if self.gaps.is_older_than(due) {
            self.flush_gaps();
        }
        if self.decisions.is_older_than(due) {
            self.flush_decisions();
        }
    }

    /// Hands over everything.
    pub(super) fn flush(&mut self) {
        self.flush_results();
        self.flush_statements();
        self.flush_sessions();
        self.flush_gaps();
        self.flush_decisions();
    }

    /// The first row that was not handed over.
    pub(super) fn first(&self) -> Option<Lsn> {
        let tables = [
            self.sessions.span,
            self.statements.span,
            self.results.span,
            self.gaps.span,
            self.decisions.span,
        ];
        tables.into_iter().flatten().map(|span| span.first).min()
    }

    fn flush_sessions(&mut self) {
        let bytes = self.sessions.rows.bytes();
        let rows = self.sessions.rows.finish(&self.node);
        let stake = self.sessions.rows.take_stake();
        let piece = self.sessions.end();
        self.send(Table::Sessions, self.sessions.day, bytes, rows, stake, piece);
    }

    fn flush_statements(&mut self) {
        let bytes = self.statements.rows.bytes();
        let rows = self.statements.rows.finish(&self.node);
        let stake = self.statements.rows.take_stake();
        if rows.is_err() {
            // What is left of it fits no other row.
            self.statements.rows = Statements::new();
        }
        let piece = self.statements.end();
        self.send(Table::Statements, self.statements.day, bytes, rows, stake, piece);
    }

    fn flush_results(&mut self) {
        let bytes = self.results.rows.bytes();
        let rows = self.results.rows.finish();
        let stake = self.results.rows.take_stake();
        if rows.is_err() {
            self.results.rows = Results::new();
        }
        let piece = self.results.end();
        self.send(Table::Results, self.results.day, bytes, rows, stake, piece);
    }

    /// Rows of a statement that began at `at` are about to be added, which stand at `lsn`.
    #[inline]
    fn begin_results(&mut self, lsn: Lsn, at: Micros) {
        let day = Day::of(at);
        if self.results.must_turn(day, self.results.rows.len()) {
            self.flush_results();
        }
        self.results.begin(day, self.now, lsn);
    }

    /// They were added.
    #[inline]
    fn end_results(&mut self) {
        if self.results.rows.bytes() >= BATCH_BYTES {
            self.flush_results();
        }
    }

    fn flush_gaps(&mut self) {
        let bytes = self.gaps.rows.bytes();
        let rows = self.gaps.rows.finish(&self.node);
        let stake = self.gaps.rows.take_stake();
        let piece = self.gaps.end();
        self.send(Table::Gaps, self.gaps.day, bytes, rows, stake, piece);
    }

    fn flush_decisions(&mut self) {
        let bytes = self.decisions.rows.bytes();
        let rows = self.decisions.rows.finish(&self.node);
        let stake = self.decisions.rows.take_stake();
        let piece = self.decisions.end();
        self.send(Table::Decisions, self.decisions.day, bytes, rows, stake, piece);
    }

    fn send(
        &self,
        table: Table,
        day: Day,
        bytes: usize,
        rows: Result<RecordBatch, ArrowError>,
        stake: Vec<Loss>,
        piece: Option<Piece>,
    ) {
        let Some(piece) = piece else { return };
        match rows {
            Ok(rows) => self.queue.push(Batch { table, day, rows, bytes, stake, piece }, self.patience),
            // The builders of a table always agree in their number of rows.
            Err(error) => {
                tracing::error!(table = table.name(), %error, "a batch was malformed; `gaps` declares its rows lost");
                self.queue.lose(table, day, &stake, &Spans::from_iter([piece]));
            }
        }
    }
}

impl Rows for Builders {
    fn row(&mut self, lsn: Lsn, session: &SessionInfo, row: RowValues<'_>) {
        self.begin_results(lsn, row.started_at);
        self.results.rows.append(self.labels.of(session), session, &row);
        self.end_results();
    }

    fn rows(&mut self, lsn: Lsn, session: &SessionInfo, run: RowRun<'_>) {
        // They are one record of the journal, and so go into one batch.
        self.begin_results(lsn, run.started_at);
        self.results.rows.append_run(self.labels.of(session), session, &run);
        self.end_results();
    }

    fn statement(&mut self, lsn: Lsn, session: &SessionInfo, exchange: &Exchange) {
        let day = Day::of(exchange.started_at);
        if exchange.params_body.len() >= LARGE_BYTES {
            // Otherwise the writer's copies of the value before this one would add to the copies of this one.
            self.flush_statements();
            self.queue.wait_idle(self.patience);
        }
        if self.statements.must_turn(day, self.statements.rows.len()) {
            self.flush_statements();
        }
        self.statements.begin(day, self.now, lsn);
        let analyzer = &mut self.analyzer;
        let mut analyze = || {
            let text = exchange.sql.as_ref()?;
            Some(analyzer.analyze(text, session.standard_conforming_strings))
        };
        let labels = self.labels.of(session);
        self.statements.rows.append(labels, session, exchange, &mut analyze);
        if let Some(tap) = &mut self.tap {
            tap.statement(lsn.0, session, exchange, analyze().as_ref());
        }
        if self.statements.rows.bytes() >= BATCH_BYTES {
            self.flush_statements();
        }
    }

    fn gap(&mut self, lsn: Lsn, session: &SessionInfo, gap: &Gap) {
        let day = Day::of(gap.at);
        if self.gaps.must_turn(day, self.gaps.rows.len()) {
            self.flush_gaps();
        }
        self.gaps.begin(day, self.now, lsn);
        self.gaps.rows.append(session.origin.id, gap);
    }

    fn end(&mut self, lsn: Lsn, session: &SessionInfo, end: &SessionEnd) {
        let day = Day::of(session.origin.started_at);
        if self.sessions.must_turn(day, self.sessions.rows.len()) {
            self.flush_sessions();
        }
        self.sessions.begin(day, self.now, lsn);
        let labels = self.labels.of(session);
        self.sessions.rows.append(labels, session, end);
    }

    fn decision(&mut self, lsn: Lsn, session: Option<&SessionInfo>, decision: &Decision) {
        if let Some(tap) = &mut self.tap {
            tap.decision(lsn.0, session, decision);
        }
        let day = Day::of(decision.at);
        if self.decisions.must_turn(day, self.decisions.rows.len()) {
            self.flush_decisions();
        }
        self.decisions.begin(day, self.now, lsn);
        let session = session.map(|session| (self.labels.of(session), session));
        self.decisions.rows.append(session, decision);
        if self.decisions.rows.bytes() >= BATCH_BYTES {
            self.flush_decisions();
        }
    }

    fn told_statement(&mut self, lsn: Lsn, session: &SessionInfo, exchange: &Exchange) {
        let Some(tap) = &mut self.tap else { return };
        let analysis = exchange
            .sql
            .as_ref()
            .map(|text| self.analyzer.analyze(text, session.standard_conforming_strings));
        tap.statement(lsn.0, session, exchange, analysis.as_ref());
    }

    fn told_decision(&mut self, lsn: Lsn, session: Option<&SessionInfo>, decision: &Decision) {
        if let Some(tap) = &mut self.tap {
            tap.decision(lsn.0, session, decision);
        }
    }

    fn loss(&mut self, lsn: Lsn, loss: &Loss) {
        let day = Day::of(loss.at);
        if self.gaps.must_turn(day, self.gaps.rows.len()) {
            self.flush_gaps();
        }
        self.gaps.begin(day, self.now, lsn);
        self.gaps.rows.append_loss(*loss);
    }
}

/// The rows of one table and one day that were not handed over yet.
#[derive(Debug)]
struct Pending<T> {
    rows: T,
    day: Day,
    /// When the first of them came.
    since: Option<Micros>,
    /// Where they stand in the journal.
    span: Option<Span>,
    /// The last row of each day that was handed over.
    handed_over: HashMap<Day, Lsn, foldhash::fast::RandomState>,
}

impl<T> Pending<T> {
    fn new(rows: T) -> Self {
        Self { rows, day: Day(0), since: None, span: None, handed_over: HashMap::default() }
    }

    /// Whether the `rows` so far must be handed over before one of `day` is added.
    fn must_turn(&self, day: Day, rows: usize) -> bool {
        rows >= BATCH_ROWS || (rows > 0 && day != self.day)
    }

    /// A row of `day` is about to be added, which stands at `lsn`.
    fn begin(&mut self, day: Day, now: Micros, lsn: Lsn) {
        self.day = day;
        self.since.get_or_insert(now);
        self.span.get_or_insert(Span::of(lsn)).last = lsn;
    }

    /// The rows were taken: where they stand in the journal, if there were any.
    fn end(&mut self) -> Option<Piece> {
        self.since = None;
        let span = self.span.take()?;
        if self.handed_over.len() >= MAX_DAYS {
            // Forgetting costs a longer list in a footer.
            self.handed_over.clear();
        }
        let after = self.handed_over.insert(self.day, span.last);
        Some(Piece { span, after })
    }

    fn is_older_than(&self, due: Micros) -> bool {
        self.since.is_some_and(|since| since <= due)
    }
}

/// Rows of a batch: large enough that the cost per batch (about 50 column writes) vanishes.
const BATCH_ROWS: usize = 8_192;

/// Bytes of a batch, before it is handed over.
const BATCH_BYTES: usize = 4 << 20;

/// Parameters from this size on are copied only when the writer is done with all that came before.
const LARGE_BYTES: usize = 16 << 20;

/// How long rows wait for their batch to fill: half a second.
const BATCH_AGE_US: i64 = 500_000;

/// Days of which it is known what was handed over last: sessions end on other days than they began.
const MAX_DAYS: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::fixture::{MORNING, exchange, session};
    use super::*;

    #[test]
    fn a_malformed_batch_is_lost_by_those_whose_rows_it_had() {
        let queue = Arc::new(Queue::new(1 << 20));
        let mut builders = Builders::new("node-1".to_owned(), Arc::clone(&queue), Duration::ZERO, None);
        let owner = session(1, MORNING);
        for seq in 0..3 {
            builders.statement(Lsn(seq), &owner, &exchange(seq, MORNING, "select 1"));
        }
        let stake = builders.statements.rows.take_stake();
        let piece = builders.statements.end();
        let refused = Err(ArrowError::SchemaError("made by this test".to_owned()));
        builders.send(Table::Statements, Day::of(MORNING), 1, refused, stake, piece);
        let losses = queue.losses(|losses| losses.take());
        assert_eq!(
            losses.iter().map(|loss| (loss.session, loss.rows)).collect::<Vec<_>>(),
            [(Some(owner.origin.id), 3)]
        );
        assert_eq!(queue.lost_rows(), 3);
    }
}
