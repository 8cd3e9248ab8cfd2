//! What a statement's text costs: analysis, splitting, values as text, and a policy's decision. `cargo bench -p capture-agent --bench texts`
//! prints nanoseconds per call, medians of several rounds.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its result")]
#![expect(clippy::disallowed_types, reason = "a benchmark looks at the clock")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use capture_agent::policy::{Policy, RowLimits, SessionFacts, StatementFacts};
use capture_agent::session::value::{Encoding, write_text};
use capture_agent::session::{Protocol, split};
use capture_agent::sql::{Analyzer, Examiner, Opinions, Reading};

const ROUNDS: usize = 7;

fn main() {
    analyses();
    splits();
    values();
    decisions();
}

/// What a guarded session's statement costs: what it would do, and what the corpus's nine guardrails say of it.
fn decisions() {
    let rules = include_str!("../../tests/policy/policy.toml");
    let policy = Policy::compile(rules, RowLimits::default()).expect("the corpus's policy is valid");
    let guarded = SessionFacts { user: Some("mcp_agent".into()), ..SessionFacts::default() };
    let other = SessionFacts { user: Some("app".into()), ..SessionFacts::default() };
    let mut examiner = Examiner::default();
    let texts: Vec<Arc<str>> = (0..10_000).map(pgbench).collect();
    for (name, opinions) in [("one opinion", Opinions::One), ("two opinions", Opinions::Two)] {
        measure(&format!("examine, a known shape, {name}"), 10_000, |n| {
            black_box(examiner.examine(texts[n].as_bytes(), Reading::default(), opinions));
        });
    }
    let mut fresh = Examiner::default();
    let others: Vec<String> = (0..5_000).map(|n| pgbench(n).replace("aid", &format!("c{n}"))).collect();
    measure("examine, a new shape, two opinions", 500, |n| {
        if n == 0 {
            fresh = Examiner::default();
        }
        black_box(fresh.examine(others[n].as_bytes(), Reading::default(), Opinions::Two));
    });
    let examined = examiner.examine(texts[0].as_bytes(), Reading::default(), Opinions::Two);
    let facts =
        || StatementFacts::new(Arc::clone(&examined.text), Protocol::Simple, Arc::clone(&examined.analysis));
    measure("facts of a statement", 10_000, |_| {
        black_box(facts());
    });
    let stmt = facts();
    measure("decide, nine guardrails about the session", 10_000, |_| {
        black_box(policy.decide(&guarded, &stmt));
    });
    measure("decide, nine guardrails about others", 10_000, |_| {
        black_box(policy.decide(&other, &stmt));
    });
    measure("waits", 10_000, |_| {
        black_box(policy.waits(&guarded));
    });
    measure("compile the policy", 5, |_| {
        black_box(Policy::compile(rules, RowLimits::default()).is_ok());
    });
}

fn analyses() {
    let mut analyzer = Analyzer::default();
    let same = pgbench(0);
    let copies: Vec<Arc<str>> = (0..10_000).map(|_| pgbench(0)).collect();
    let literals: Vec<Arc<str>> = (0..10_000).map(pgbench).collect();
    let others: Vec<Arc<str>> =
        (0..5_000).map(|n| pgbench(n).replace("aid", &format!("c{n}")).into()).collect();
    measure("analyze, the same Arc again", 10_000, |_| {
        black_box(analyzer.analyze(&same, true));
    });
    measure("analyze, the same text in another Arc", 10_000, |n| {
        black_box(analyzer.analyze(&copies[n], true));
    });
    measure("analyze, the same shape with another literal", 10_000, |n| {
        black_box(analyzer.analyze(&literals[n], true));
    });
    let long: Arc<str> = format!("SELECT '{}'", "x".repeat(500_000)).into();
    measure("analyze, the same Arc of 500 kB again", 100, |_| {
        black_box(analyzer.analyze(&long, true));
    });
    let mut fresh = Analyzer::default();
    measure("analyze, a new shape", 500, |n| {
        if n == 0 {
            fresh = Analyzer::default();
        }
        black_box(fresh.analyze(&others[n], true));
    });
}

fn pgbench(aid: usize) -> Arc<str> {
    format!("SELECT abalance FROM pgbench_accounts WHERE aid = {aid:05};").into()
}

fn splits() {
    let one = pgbench(1);
    measure("split, one statement", 10_000, |_| {
        black_box(split::statements(black_box(&one), true).count());
    });
    let large = "INSERT INTO t VALUES (1, 'abc', 2.5); ".repeat(28_000);
    measure("split, 1 MB of statements", 20, |_| {
        black_box(split::statements(black_box(&large), true).count());
    });
}

fn values() {
    let mut out = String::with_capacity(1 << 10);
    let mut value = |name: &str, type_oid: u32, format: i16, bytes: &[u8]| {
        measure(name, 10_000, |_| {
            out.clear();
            let _ = write_text(type_oid, format, black_box(bytes), Encoding::Utf8, &mut out);
            black_box(&out);
        });
    };
    value("value, int4 as text", 23, 0, b"123456");
    value("value, int4 in binary", 23, 1, &123_456i32.to_be_bytes());
    value("value, int8 in binary", 20, 1, &123_456_789_012i64.to_be_bytes());
    value("value, float8 in binary", 701, 1, &0.123_456f64.to_be_bytes());
    value("value, timestamptz in binary", 1184, 1, &761_234_567_890_123i64.to_be_bytes());
    value("value, 40 bytes of text in binary", 25, 1, &[b'x'; 40]);
    value("value, numeric in binary", 1700, 1, b"\0\x03\0\x01\0\0\0\x04\x00\x01\x09\x29\x1a\x85");
    value("value, uuid in binary", 2950, 1, &[7; 16]);
}

fn measure(name: &str, calls: usize, mut call: impl FnMut(usize)) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..calls).for_each(&mut call);
            start.elapsed().as_nanos() as f64 / calls as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{:>12.1} ns  {name}", rounds[ROUNDS / 2]);
}
