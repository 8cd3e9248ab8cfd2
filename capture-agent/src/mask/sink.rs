//! The sink that hands on what is left.

use std::sync::Arc;

use super::literal::replace_patterns;
use super::message::{self, Failed};
use super::plan::Plan;
use super::rules::Applies;
use super::values::{Masking, Sent, is_suspicious};
use super::{Masker, SessionMasks};
use crate::session::{
    Column, DataRow, Exchange, Gap, Param, RowRun, RowValues, SessionEnd, SessionInfo, Sink, Status, Values,
    data_row,
};

/// Masks what a session says, and hands it to `sink`.
pub struct Masked<'m, S> {
    masker: &'m mut Masker,
    session: &'m mut SessionMasks,
    sink: &'m mut S,
}

/// What is masked of the rows of a result.
#[derive(Debug)]
pub(super) struct RowPlan {
    /// The statement that it was found for.
    seq: u64,
    sql: Option<Arc<str>>,
    columns: Box<[Column]>,
    /// The rule for each value.
    rules: Vec<Option<Applies>>,
    /// Whether there is any.
    masks: bool,
    /// Whether it holds for no other statement with the same text.
    once: bool,
    /// The columns of what is left.
    left: Box<[Column]>,
}

impl<'m, S: Sink> Masked<'m, S> {
    /// Between a session and `sink`.
    pub fn new(masker: &'m mut Masker, session: &'m mut SessionMasks, sink: &'m mut S) -> Self {
        Self { masker, session, sink }
    }

    fn plan(&mut self, sql: Option<&Arc<str>>, info: &SessionInfo) -> Arc<Plan> {
        let Some(text) = sql else { return Arc::clone(&self.masker.sets[self.session.set].1.unseen) };
        let plan = self.masker.plan(self.session.set, text, info.standard_conforming_strings);
        let Some(table) = &plan.unnamed else { return plan };
        let Self { masker, session, .. } = self;
        let SessionMasks { tables, told, set, .. } = &mut **session;
        let Some(columns) = tables.columns(table, &masker.changes) else { return plan };
        match told {
            Some((known, plan)) if known == text => Arc::clone(plan),
            _ => {
                let columns = Some((table, columns));
                let plan = masker.plan_with(*set, text, info.standard_conforming_strings, columns);
                *told = Some((Arc::clone(text), Arc::clone(&plan)));
                plan
            }
        }
    }

    /// Makes sure that the session's plan for rows is this row's.
    fn plan_row(&mut self, info: &SessionInfo, row: &RowValues<'_>, count: usize) {
        if let Some(known) = self.session.row.as_mut().filter(|known| known.holds(row, count)) {
            // The next row comes with the same text, not only an equal one.
            known.sql = row.sql.cloned();
            return;
        }
        let plan = self.plan(row.sql, info);
        let rules = &self.masker.sets[self.session.set].1.rules;
        let copied = matches!(row.values, Values::Fields { .. });
        // Places of columns that are not named hold as long as nothing changes the table.
        let mut once = plan.unnamed.is_some();
        let found = if copied {
            plan.copied.resolve(&[], count, rules)
        } else if let Some(name) = &plan.uses {
            once = true;
            let named = self.session.names.get(name);
            let mut found = named.unwrap_or(&plan.outputs).resolve(row.columns, count, rules);
            self.masker.learned.apply(info, row.columns, rules, named.is_none(), &mut found);
            found
        } else {
            let mut found = plan.outputs.resolve(row.columns, count, rules);
            if rules.have_columns() {
                self.masker.learned.learn(info, &plan.outputs, row.columns);
                if self.session.tables.see(&plan.outputs, row.columns, rules, &self.masker.changes) {
                    self.session.told = None;
                }
                self.masker.learned.apply(info, row.columns, rules, false, &mut found);
            }
            found
        };
        self.session.row = Some(RowPlan::new(row, found, once));
    }
}

impl RowPlan {
    fn new(row: &RowValues<'_>, rules: Vec<Option<Applies>>, once: bool) -> Self {
        let masks = rules.iter().any(Option::is_some);
        let binary = matches!(row.values, Values::Fields { binary: true, .. });
        let mut left: Vec<Column> = row.columns.to_vec();
        if masks && binary && left.is_empty() {
            let column =
                Column { name: "".into(), type_oid: 0, table_oid: 0, attnum: 0, format: i16::from(binary) };
            left = vec![column; rules.len()];
        }
        for (column, rule) in left.iter_mut().zip(&rules) {
            if rule.is_some() {
                column.format = 0;
            }
        }
        Self {
            seq: row.seq,
            sql: row.sql.cloned(),
            columns: row.columns.into(),
            rules,
            masks,
            once,
            left: left.into(),
        }
    }

    /// Whether it is about a row of this statement.
    fn holds(&self, row: &RowValues<'_>, count: usize) -> bool {
        let same_text = match (&self.sql, row.sql) {
            (Some(known), Some(text)) => Arc::ptr_eq(known, text) || known == text,
            (known, text) => known.is_none() && text.is_none(),
        };
        same_text
            && self.rules.len() == count
            && (self.seq == row.seq || !self.once)
            && self.columns.len() == row.columns.len()
            && self.columns.iter().zip(row.columns).all(|(known, column)| {
                Arc::ptr_eq(&known.name, &column.name)
                    && (known.type_oid, known.table_oid, known.attnum, known.format)
                        == (column.type_oid, column.table_oid, column.attnum, column.format)
            })
    }
}

impl<S: Sink> Sink for Masked<'_, S> {
    fn row(&mut self, info: &SessionInfo, row: RowValues<'_>) {
        self.session.refresh(self.masker, info);
        if self.masker.sets[self.session.set].1.rules.is_empty() {
            return self.sink.row(info, row);
        }
        let values: Vec<Option<&[u8]>> = match row.values {
            Values::DataRow(body) => DataRow::new(body).collect(),
            Values::Fields { fields, .. } => fields.to_vec(),
        };
        if self.masker.sets[self.session.set].1.rules.have_columns() {
            self.plan_row(info, &row, values.len());
        } else {
            self.session.row = None;
        }
        let Masked { masker, session, sink } = self;
        let rules = &masker.sets[session.set].1.rules;
        let plan = session.row.as_ref();
        if !rules.have_patterns() && !plan.is_some_and(|plan| plan.masks) {
            return sink.row(info, row);
        }
        let masking = Masking { rules, key: masker.key.as_ref(), encoding: info.client_encoding };
        let binary = matches!(row.values, Values::Fields { binary: true, .. });
        let mut columns = plan.map_or(row.columns, |plan| &plan.left);
        let mut patterned: Vec<Column> = Vec::new();
        let mut count = 0u32;
        let mut left: Vec<Option<Vec<u8>>> = vec![None; values.len()];
        for (at, value) in values.iter().enumerate() {
            let Some(bytes) = *value else { continue };
            let (type_oid, format) =
                row.columns.get(at).map_or((0, i16::from(binary)), |column| (column.type_oid, column.format));
            let sent = Sent { type_oid, format, bytes };
            let rule = plan.and_then(|plan| plan.rules.get(at).copied().flatten());
            let (text, hits) = match rule {
                Some(rule) => (masking.whole(sent, rule).into_bytes(), 1),
                None => match masking.patterns(sent) {
                    Some((text, hits)) => {
                        if format != 0 {
                            as_text(at, columns, values.len(), &mut patterned);
                        }
                        (text, hits)
                    }
                    None => continue,
                },
            };
            if let Some(place) = left.get_mut(at) {
                *place = Some(text);
            }
            count = count.saturating_add(hits);
        }
        if !patterned.is_empty() {
            columns = &patterned;
        }
        if session.seq != row.seq {
            (session.seq, session.count) = (row.seq, 0);
        }
        session.count = session.count.saturating_add(count);
        masker.masked += u64::from(count);
        let merged: Vec<Option<&[u8]>> =
            values.iter().zip(&left).map(|(value, left)| left.as_deref().or(*value)).collect();
        let mut body = Vec::new();
        let values = match row.values {
            Values::DataRow(_) => {
                let number = u16::try_from(merged.len()).unwrap_or(u16::MAX);
                body.extend_from_slice(&number.to_be_bytes());
                // None is longer than what the server sent, which fitted.
                let _fits = merged.iter().all(|value| data_row::put(*value, &mut body));
                Values::DataRow(&body)
            }
            Values::Fields { binary, .. } => Values::Fields { fields: &merged, binary },
        };
        sink.row(info, RowValues { columns, values, ..row });
    }

    fn rows(&mut self, info: &SessionInfo, run: RowRun<'_>) {
        self.session.refresh(self.masker, info);
        if self.masker.sets[self.session.set].1.rules.is_empty() {
            return self.sink.rows(info, run);
        }
        run.each(|row| self.row(info, row));
    }

    fn statement(&mut self, info: &SessionInfo, exchange: &Exchange) {
        self.session.refresh(self.masker, info);
        let plan = self.plan(exchange.sql.as_ref(), info);
        let of_rows =
            if self.session.seq == exchange.seq { std::mem::take(&mut self.session.count) } else { 0 };
        let tag = exchange.command_tag.as_deref().unwrap_or_default();
        if tag.starts_with("ALTER") || tag.starts_with("DROP") {
            self.masker.learned.forget(info);
        }
        if tag.starts_with("DEALLOCATE") || tag.starts_with("DISCARD") {
            // The names may stand for something else from here on.
            self.session.names.clear();
        }
        if let Some((name, outputs)) = plan.defines.as_ref().filter(|_| exchange.status == Status::Completed)
        {
            if self.session.names.len() >= MOST_NAMES {
                self.session.names.clear();
            }
            self.session.names.insert(name.clone(), outputs.clone());
        }
        let Masked { masker, session, sink } = self;
        if masker.have_columns && session.tables.after(exchange, &mut masker.changes) {
            (session.row, session.told) = (None, None);
        }
        let rules = &masker.sets[session.set].1.rules;
        let suspicious = exchange.params_body.len() >= 10 && is_suspicious(&exchange.params_body);
        if plan.is_clear() && of_rows == 0 && !rules.have_patterns() && !suspicious {
            return sink.statement(info, exchange);
        }
        let masking = Masking { rules, key: masker.key.as_ref(), encoding: info.client_encoding };
        let mut masked = plan.count;
        // Only an error may repeat them.
        let mut values = match exchange.error_message {
            Some(_) => plan.values.clone(),
            None => Vec::new(),
        };
        let of_text = values.len();
        let (params, params_body) = parameters(exchange, &plan, masking, &mut values, &mut masked);
        // A function may say in its own words what it was given.
        let given = values.len() > of_text;
        let sql = plan.text.clone().or_else(|| exchange.sql.clone());
        let mut error_message = exchange.error_message.clone();
        if let Some(message) = &mut error_message {
            let failed = Failed {
                text: sql.as_deref().unwrap_or_default(),
                values: &values,
                // What a guardrail stopped fails with the guardrail's words.
                touched: (plan.touched.is_some() || given)
                    && !exchange.judged.as_ref().is_some_and(|judged| judged.verdict.stops()),
                sqlstate: exchange.sqlstate.as_deref(),
            };
            masked = masked.saturating_add(message::rewrite(message, &failed, rules, masking.key));
            masked = masked.saturating_add(replace_patterns(message, rules, masking.key));
        }
        masker.masked += u64::from(masked);
        let left = Exchange {
            sql,
            params,
            params_body,
            error_message,
            masked: masked.saturating_add(of_rows),
            statement_name: exchange.statement_name.clone(),
            columns: exchange.columns.clone(),
            command_tag: exchange.command_tag.clone(),
            judged: exchange.judged.clone(),
            ..*exchange
        };
        sink.statement(info, &left);
    }

    fn gap(&mut self, info: &SessionInfo, gap: &Gap) {
        // Nobody knows what was in it.
        self.session.tables.forget();
        (self.session.row, self.session.told) = (None, None);
        self.sink.gap(info, gap);
    }

    fn end(&mut self, info: &SessionInfo, end: &SessionEnd) {
        self.sink.end(info, end);
    }
}

/// The parameters without what is masked, and their bytes.
fn parameters(
    exchange: &Exchange,
    plan: &Plan,
    masking: Masking<'_>,
    values: &mut Vec<(String, Applies)>,
    masked: &mut u32,
) -> (Vec<Param>, Vec<u8>) {
    let mut params = exchange.params.clone();
    let mut left: Vec<Option<Vec<u8>>> = vec![None; params.len()];
    for (at, (param, left)) in params.iter_mut().zip(&mut left).enumerate() {
        let Some((start, end)) = param.value else { continue };
        let bytes = exchange.params_body.get(start as usize..end as usize).unwrap_or_default();
        let sent = Sent { type_oid: param.type_oid, format: param.format, bytes };
        let (text, hits) = match plan.params.at(at) {
            Some(rule) => {
                values.push((masking.text(sent), rule));
                (masking.whole(sent, rule).into_bytes(), 1)
            }
            None => match masking.parameter(sent) {
                Some(left) => left,
                None => continue,
            },
        };
        *left = Some(text);
        param.format = 0;
        *masked = masked.saturating_add(hits);
    }
    if left.iter().all(Option::is_none) {
        return (params, exchange.params_body.clone());
    }
    // Anew, since the old bytes are a whole message.
    let mut body = Vec::new();
    for (param, left) in params.iter_mut().zip(left) {
        let Some((start, end)) = param.value else { continue };
        let bytes = left.as_deref().or_else(|| exchange.params_body.get(start as usize..end as usize));
        let from = body.len();
        body.extend_from_slice(bytes.unwrap_or_default());
        param.value = u32::try_from(from).ok().zip(u32::try_from(body.len()).ok());
    }
    (params, body)
}

/// Says that the value at a place is text from here on.
fn as_text(at: usize, columns: &[Column], count: usize, patterned: &mut Vec<Column>) {
    if patterned.is_empty() {
        patterned.extend_from_slice(columns);
        if patterned.is_empty() {
            let column = Column { name: "".into(), type_oid: 0, table_oid: 0, attnum: 0, format: 1 };
            patterned.resize(count, column);
        }
    }
    if let Some(column) = patterned.get_mut(at) {
        column.format = 0;
    }
}

/// Prepared statements and cursors of one session of which it is known what comes back of them.
const MOST_NAMES: usize = 1_024;
