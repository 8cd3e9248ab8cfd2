//! The second opinion: another parser's word on which kinds of statement a text holds.
//!
//! `sqlparser` shares no code with PostgreSQL's grammar. Where it reads a text too, both must see the same changes in
//! it; where it does not, PostgreSQL's grammar stands alone. Only kinds are compared, and only those that change or
//! run something: `sqlparser` reads names otherwise in places (`FROM ONLY t` as a table called ONLY).

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use sqlparser::ast::{Statement, Visit, Visitor};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::Analysis;

/// Whether the second parser reads the text, and as other kinds than `analysis` tells. `tokens` is their number.
pub(super) fn disputes(text: &str, tokens: usize, analysis: &Analysis) -> bool {
    if tokens > MOST_TOKENS || nesting(text) > MOST_NESTED {
        return false;
    }
    let Some(seen) = on_a_thread(text, tokens) else {
        return false;
    };
    let told = analysis.kinds.iter().filter_map(|kind| VERBS.into_iter().find(|verb| kind == verb));
    seen != told.collect()
}

/// Longer texts are not read twice: what the parser builds of them is as deep as their longest chain of operators,
/// and is walked and freed with recursion.
const MOST_TOKENS: usize = 2_000;
/// Stack for any text, and for each token. Measured without optimization: 3 KiB for a term of a flat chain.
const STACK_BASE: usize = 8 << 20;
const STACK_PER_TOKEN: usize = 8 << 10;
/// The parser tries alternatives, in the worst case all of them at every level: 17 times `position(` in each other took
/// 1.5 seconds, and each further one doubles that. Six levels of it take a millisecond. What people and programs write
/// is rarely nested more deeply, and then PostgreSQL's grammar stands alone.
const MOST_NESTED: usize = 6;
/// How deeply the parser itself may recurse, for what nests without brackets.
const RECURSION: usize = 24;

/// Brackets within brackets, and CASEs. Strings are not told apart: most of them are empty in a shape.
fn nesting(text: &str) -> usize {
    let mut open = 0usize;
    let mut most = 0;
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' => open += 1,
            b')' | b']' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    let cases = text.split_ascii_whitespace().filter(|word| word.eq_ignore_ascii_case("case")).count();
    most + cases
}

/// The kinds that are compared.
const VERBS: [&str; 12] = [
    "insert", "update", "delete", "merge", "truncate", "drop", "create", "alter", "copy", "call", "grant",
    "revoke",
];

fn on_a_thread(text: &str, tokens: usize) -> Option<BTreeSet<&'static str>> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("parse again".to_owned())
            .stack_size(STACK_BASE + tokens * STACK_PER_TOKEN)
            .spawn_scoped(scope, || catch_unwind(AssertUnwindSafe(|| verbs(text))).ok().flatten())
            .ok()?
            .join()
            .ok()?
    })
}

fn verbs(text: &str) -> Option<BTreeSet<&'static str>> {
    let parser = Parser::new(&PostgreSqlDialect {}).with_recursion_limit(RECURSION);
    let statements = parser.try_with_sql(text).ok()?.parse_statements().ok()?;
    let mut verbs = Verbs::default();
    let _ = statements.visit(&mut verbs);
    (!verbs.other).then_some(verbs.seen)
}

#[derive(Default)]
struct Verbs {
    seen: BTreeSet<&'static str>,
    /// Whether there is a statement that is no PostgreSQL statement: this parser is wrong then.
    other: bool,
}

impl Visitor for Verbs {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        match verb(statement) {
            Verb::Is(verb) => {
                self.seen.insert(verb);
            }
            Verb::None => {}
            Verb::Foreign => self.other = true,
        }
        ControlFlow::Continue(())
    }
}

enum Verb {
    Is(&'static str),
    /// One that is not compared.
    None,
    /// Of another product's SQL.
    Foreign,
}

fn verb(statement: &Statement) -> Verb {
    use Statement as S;
    Verb::Is(match statement {
        S::Insert(_) => "insert",
        S::Update(_) => "update",
        S::Delete(_) => "delete",
        S::Merge(_) => "merge",
        S::Truncate(_) => "truncate",
        S::Copy { .. } => "copy",
        S::Call(_) => "call",
        S::Grant(_) => "grant",
        S::Revoke(_) => "revoke",
        S::Drop { .. }
        | S::DropFunction(_)
        | S::DropDomain(_)
        | S::DropProcedure { .. }
        | S::DropPolicy(_)
        | S::DropExtension(_)
        | S::DropOperator(_)
        | S::DropOperatorFamily(_)
        | S::DropOperatorClass(_)
        | S::DropTrigger(_) => "drop",
        S::CreateView(_)
        | S::CreateTable(_)
        | S::CreateIndex(_)
        | S::CreateRole(_)
        | S::CreateServer(_)
        | S::CreatePolicy(_)
        | S::CreateOperator(_)
        | S::CreateOperatorFamily(_)
        | S::CreateOperatorClass(_)
        | S::CreateTextSearch(_)
        | S::CreateExtension(_)
        | S::CreateCollation(_)
        | S::CreateSchema { .. }
        | S::CreateDatabase { .. }
        | S::CreateFunction(_)
        | S::CreateTrigger(_)
        | S::CreateProcedure { .. }
        | S::CreateSequence { .. }
        | S::CreateDomain(_)
        | S::CreateType { .. }
        | S::CreateUser(_) => "create",
        S::AlterTable(_)
        | S::AlterSchema(_)
        | S::AlterIndex { .. }
        | S::AlterView { .. }
        | S::AlterFunction(_)
        | S::AlterType(_)
        | S::AlterCollation(_)
        | S::AlterOperator(_)
        | S::AlterOperatorFamily(_)
        | S::AlterOperatorClass(_)
        | S::AlterTextSearch(_)
        | S::AlterRole { .. }
        | S::AlterPolicy(_)
        | S::AlterUser(_) => "alter",
        S::Query(_)
        | S::Set(_)
        | S::Reset(_)
        | S::ShowVariable { .. }
        | S::Explain { .. }
        | S::Prepare { .. }
        | S::Execute { .. }
        | S::Deallocate { .. }
        | S::Declare { .. }
        | S::Fetch { .. }
        | S::Close { .. }
        | S::Discard { .. }
        | S::StartTransaction { .. }
        | S::Commit { .. }
        | S::Rollback { .. }
        | S::Savepoint { .. }
        | S::ReleaseSavepoint { .. }
        | S::Comment { .. }
        | S::Lock(_)
        | S::Analyze(_)
        | S::Vacuum(_)
        | S::LISTEN { .. }
        | S::UNLISTEN { .. }
        | S::NOTIFY { .. } => return Verb::None,
        _ => return Verb::Foreign,
    })
}
