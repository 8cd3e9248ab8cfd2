//! Decides the corpora in `tests/policy`: what tries to get around the rules is denied, what ordinary programs send is
//! allowed, and what no parser can see is known not to be seen.
#![expect(clippy::unwrap_used, reason = "a test fails with what is wrong")]

use std::fs;
use std::path::{Path, PathBuf};

use capture_agent::policy::{Decision, Policy, RowLimits, SessionFacts, StatementFacts, Verdict};
use capture_agent::session::Protocol;
use capture_agent::session::value::Encoding;
use capture_agent::sql::{self, Examiner, Limits, Reading};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    case: Vec<Case>,
}

/// A case; `tests/policy/README.md` explains the keys. Those that only its execution needs are passed over.
#[derive(Deserialize)]
struct Case {
    name: String,
    sql: Option<String>,
    bytes: Option<String>,
    generate: Option<Generate>,
    function: Option<Function>,
    protocol: Option<String>,
    #[serde(default)]
    params: Vec<String>,
    #[serde(default)]
    first: Vec<String>,
    denied: Option<String>,
    client_encoding: Option<String>,
    standard_conforming_strings: Option<String>,
}

#[derive(Deserialize)]
struct Generate {
    prefix: String,
    open: String,
    times: usize,
    inner: String,
    close: String,
    #[serde(default)]
    suffix: String,
}

#[derive(Deserialize)]
struct Function {
    oid: u32,
    args: Vec<String>,
}

#[test]
fn what_tries_to_get_around_the_rules_is_denied() {
    let mut judge = Judge::new();
    let cases = cases(&folder().join("bypass"));
    assert!(cases.len() >= 150, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let stopped_before =
            case.first.iter().any(|sql| judge.text(sql.as_bytes(), case, true).verdict != Verdict::Allow);
        let expected = case.denied.as_deref() == Some("first");
        if stopped_before != expected {
            wrong.push(format!(
                "{}: what comes first is {}",
                case.name,
                if expected { "allowed" } else { "denied" }
            ));
        }
        if !expected && judge.statement(case).verdict == Verdict::Allow {
            wrong.push(format!("{}: allowed", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn what_ordinary_programs_send_is_allowed() {
    let mut judge = Judge::new();
    let mut wrong = Vec::new();
    let mut count = 0;
    for path in files(&folder().join("ordinary")) {
        let text = fs::read_to_string(&path).unwrap();
        // The first line says whose statements they are.
        let (_, statements) = text.split_once('\n').unwrap();
        for sql in statements.split_inclusive(";\n") {
            count += 1;
            let facts = judge.facts(sql.trim_end().as_bytes(), Reading::default(), Protocol::Simple);
            let decision = judge.policy.decide(&judge.session, &facts);
            if decision.verdict != Verdict::Allow {
                let name = path.file_stem().unwrap().to_string_lossy();
                let explanation = judge.policy.explain(&judge.session, Some(&facts));
                wrong.push(format!("{name}, by {}: {sql}", explanation.guardrail.unwrap()));
            }
        }
    }
    assert!(count >= 300, "{count}");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Should one of these be denied some day, it belongs to the other cases, and `docs/policy.md` is to be changed.
#[test]
fn what_no_parser_can_see_is_allowed() {
    let mut judge = Judge::new();
    for case in cases(&folder().join("gaps.toml")) {
        assert_eq!(judge.statement(&case).verdict, Verdict::Allow, "{}", case.name);
    }
}

/// Each guardrail of the corpus's policy is there for a reason: some case is denied by it alone.
#[test]
fn no_rule_of_the_corpus_is_idle() {
    let mut judge = Judge::new();
    let mut needed = vec![false; judge.policy.guardrails().len()];
    for case in cases(&folder().join("bypass")) {
        let mut texts: Vec<StatementFacts> = case
            .first
            .iter()
            .map(|sql| judge.facts(&filled(sql), reading(&case, true), Protocol::Simple))
            .collect();
        texts.push(judge.facts_of(&case));
        for facts in texts {
            let explanation = judge.policy.explain(&judge.session, Some(&facts));
            let caught = |report: &capture_agent::policy::GuardrailReport| {
                report.effect == capture_agent::policy::Effect::Catches
            };
            let catching: Vec<usize> = explanation
                .guardrails
                .iter()
                .enumerate()
                .filter(|(_, report)| caught(report))
                .map(|(at, _)| at)
                .collect();
            if let [only] = catching[..] {
                needed[only] = true;
            }
        }
    }
    let idle: Vec<_> =
        judge.policy.guardrails().iter().zip(&needed).filter(|(_, needed)| !**needed).collect();
    assert!(idle.is_empty(), "{:?}", idle.iter().map(|(guardrail, _)| &guardrail.name).collect::<Vec<_>>());
}

struct Judge {
    policy: Policy,
    session: SessionFacts,
    examiner: Examiner,
}

impl Judge {
    fn new() -> Self {
        let text = fs::read_to_string(folder().join("policy.toml")).unwrap();
        let policy = Policy::compile(&text, RowLimits::default()).unwrap_or_else(|errors| panic!("{errors}"));
        let session = SessionFacts { user: Some("mcp_agent".into()), ..SessionFacts::default() };
        Self { policy, session, examiner: Examiner::new(Limits::default()) }
    }

    fn text(&mut self, sql: &[u8], case: &Case, before: bool) -> Decision {
        let sql = str::from_utf8(sql).map_or(sql.to_vec(), filled);
        let facts = self.facts(&sql, reading(case, before), Protocol::Simple);
        self.policy.decide(&self.session, &facts)
    }

    fn facts(&mut self, sql: &[u8], reading: Reading, protocol: Protocol) -> StatementFacts {
        let opinions = self.policy.needs(&self.session).opinions;
        let examined = self.examiner.examine(sql, reading, opinions);
        StatementFacts::new(examined.text, protocol, examined.analysis)
    }

    fn statement(&mut self, case: &Case) -> Decision {
        let facts = self.facts_of(case);
        self.policy.decide(&self.session, &facts)
    }

    fn facts_of(&mut self, case: &Case) -> StatementFacts {
        if let Some(Function { oid, args }) = &case.function {
            let facts = StatementFacts::new("".into(), Protocol::Function, sql::function_call(*oid));
            return facts.with_params(args.iter().map(|arg| Some(arg.as_str())));
        }
        let sql = case.bytes();
        if case.protocol.as_deref() == Some("extended") {
            let facts = self.facts(&sql, reading(case, false), Protocol::Extended);
            facts.with_params(case.params.iter().map(|param| Some(param.as_str())))
        } else {
            self.facts(&sql, reading(case, false), Protocol::Simple)
        }
    }
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        if let Some(hex) = &self.bytes {
            return hex
                .as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect();
        }
        if let Some(Generate { prefix, open, times, inner, close, suffix }) = &self.generate {
            return [prefix, &open.repeat(*times), inner, &close.repeat(*times), suffix]
                .map(String::as_str)
                .concat()
                .into();
        }
        filled(self.sql.as_deref().unwrap_or_else(|| panic!("{} has no statement", self.name)))
    }
}

/// How the server reads the statement, or what comes before it.
fn reading(case: &Case, before: bool) -> Reading {
    if before {
        return Reading::default();
    }
    Reading {
        encoding: Encoding::from_name(case.client_encoding.as_deref().unwrap_or("UTF8")),
        standard_conforming_strings: match case.standard_conforming_strings.as_deref() {
            None | Some("on") => Some(true),
            Some("off") => Some(false),
            Some(_) => None,
        },
    }
}

/// The places that a real server gives stand for anything here.
fn filled(sql: &str) -> Vec<u8> {
    sql.replace("@DATABASE@", "postgres")
        .replace("@DATA@", "/data")
        .replace("@CONNECTION@", "dbname=postgres")
        .into()
}

fn cases(path: &Path) -> Vec<Case> {
    let paths = if path.is_dir() { files(path) } else { vec![path.to_owned()] };
    let read = |path: PathBuf| {
        let file: File = toml::from_str(&fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        file.case
    };
    paths.into_iter().flat_map(read).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn folder() -> PathBuf {
    // Of this run, not of the build: checkouts that share a target folder share the compiled tests.
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../tests/policy")
}
