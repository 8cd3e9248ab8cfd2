//! The sink as a whole: whatever a session is cut into, no canary passes.

use std::sync::Arc;

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest};

use super::{Key, Masked, Masker, SessionMasks};
use crate::policy::{Policy, RowLimits};
use crate::session::testing::{
    Recorder, Talk, bind, columns, done, empty, error, execute, message, origin, parse, query, ready, row,
    sync, t, z,
};
use crate::session::{Data, Direction, Limits, Micros, Session};

mod places;

const RULES: &str = "[[mask]]\nname = 'm'\ncolumns = ['customers.ssn']\nstrategy = 'hash'\n\
    [[mask]]\nname = 'p'\npatterns = ['email']\n";

fn masker() -> Masker {
    Masker::new(&Policy::compile(RULES, RowLimits::default()).unwrap(), Some(Key::new(&[7; 32])))
}

/// Plays a talk whose bytes come in pieces of these lengths; with each, another agent may take over.
fn played(calls: &[(Direction, Vec<u8>)], pieces: &[usize], taken_over: bool) -> Recorder {
    played_by(&mut masker(), calls, pieces, taken_over)
}

fn played_by(
    masker: &mut Masker,
    calls: &[(Direction, Vec<u8>)],
    pieces: &[usize],
    taken_over: bool,
) -> Recorder {
    let mut masks = SessionMasks::default();
    let mut recorder = Recorder::default();
    let mut session = Session::new(origin(), Limits::default());
    let mut lengths = pieces.iter().copied().cycle();
    let mut offsets = [0u64; 2];
    for (direction, bytes) in calls {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(lengths.next().unwrap_or(1).clamp(1, rest.len()));
            rest = after;
            let offset = &mut offsets[*direction as usize];
            let data = Data {
                direction: *direction,
                offset: *offset,
                bytes: piece,
                loss: None,
                end_of_call: rest.is_empty(),
                plaintext: false,
                at: Micros(1_000),
            };
            session.data(data, &mut Masked::new(masker, &mut masks, &mut recorder));
            *offset += piece.len() as u64;
            if taken_over {
                masks = SessionMasks::restore(masks.save());
            }
        }
    }
    session.stop(Micros(2_000), &mut Masked::new(masker, &mut masks, &mut recorder));
    recorder
}

fn talk(canary: &str) -> Vec<(Direction, Vec<u8>)> {
    let text = format!("select id, ssn from customers where ssn = '{canary}'");
    let prepared = "select ssn as x from customers where ssn = $1";
    Talk::started()
        .client(&[query(&text)])
        .server(&[
            columns(&[("id", 23), ("ssn", 25)]),
            row(&[t("1"), t(canary)]),
            done("SELECT 1"),
            ready(b'I'),
        ])
        .client(&[parse("", prepared, &[25]), bind("", "", &[t(canary)]), execute("", 0), sync()])
        .server(&[empty(b'1'), empty(b'2'), row(&[t(canary)]), done("SELECT 1"), ready(b'I')])
        .client(&[query(&format!("select '{canary}@example.com'"))])
        .server(&[row(&[t(&format!("{canary}@example.com"))]), done("SELECT 1"), ready(b'I')])
        .calls()
}

proptest! {
    #[test]
    fn no_cut_lets_a_canary_pass(
        canary in "[a-z]{6}[0-9]{6}",
        pieces in proptest::collection::vec(1usize..40, 1..6),
    ) {
        let recorder = played(&talk(&canary), &pieces, true);
        let said = recorder.log.join("\n");
        prop_assert!(recorder.statements.len() == 3, "{said}");
        prop_assert!(!said.contains(&canary), "{said}");
        for row in &recorder.rows {
            prop_assert!(!row.values.iter().flatten().any(|value| String::from_utf8_lossy(value).contains(&canary)));
        }
        for statement in &recorder.statements {
            let bytes = String::from_utf8_lossy(&statement.params_body).into_owned();
            prop_assert!(!bytes.contains(&canary), "{bytes}");
        }
        let masked: Vec<_> = recorder.statements.iter().map(|statement| statement.masked).collect();
        prop_assert!(masked == [2, 2, 2], "{masked:?}");
    }

    #[test]
    fn no_text_makes_the_masker_panic_or_keep_what_it_must_not(
        parts in proptest::collection::vec(prop_oneof![
            Just("select ".to_owned()), Just("from customers ".to_owned()), Just("ssn = ".to_owned()),
            Just("'zq7canary' ".to_owned()), Just("where ".to_owned()), Just("$$ ".to_owned()), Just("E'\\' ".to_owned()),
            Just("-- ".to_owned()), Just("/* ".to_owned()), Just("\n".to_owned()), Just("( ".to_owned()), Just(") ".to_owned()),
            Just("union ".to_owned()), Just("insert into customers values ".to_owned()), "\\PC{0,6}".prop_map(|text| text),
        ], 0..14),
        setting in any::<bool>(),
    ) {
        let text: Arc<str> = parts.concat().into();
        let rules = super::rules::Rules::new(Policy::compile(RULES, RowLimits::default()).unwrap().mask_rules().iter());
        let plan = super::plan::Plan::of(&text, setting, &rules, None, None);
        if plan.touched.is_some() && plan.params == super::params::Params::all(Some(super::rules::Applies(0))) {
            // Nobody can vouch for it: no constant of it is left.
            prop_assert!(!plan.text.as_deref().unwrap_or(&text).contains("zq7canary"), "{text:?} {:?}", plan.text);
        }
    }
}

/// RowDescription with object ids: name, table, number.
fn described(columns: &[(&str, u32, i16)]) -> Vec<u8> {
    let mut body = i16::try_from(columns.len()).unwrap_or_default().to_be_bytes().to_vec();
    for (name, table, number) in columns {
        body.extend_from_slice(&z(name));
        body.extend_from_slice(&table.to_be_bytes());
        body.extend_from_slice(&number.to_be_bytes());
        body.extend_from_slice(&25u32.to_be_bytes());
        body.extend_from_slice(&[0, 4, 0, 0, 0, 0, 0, 0]);
    }
    message(b'T', &[&body])
}

/// A text, the columns that come back, and the tag.
type Query<'q> = (&'q str, &'q [(&'q str, u32, i16)], &'q str);

/// Each query, the columns that come back, and one row of them.
fn asked(queries: &[Query<'_>]) -> Vec<(Direction, Vec<u8>)> {
    let mut talk = Talk::started();
    for (text, columns, tag) in queries {
        let values: Vec<_> = columns.iter().map(|_| t("canary")).collect();
        let mut replies = Vec::new();
        if !columns.is_empty() {
            replies.extend([described(columns), row(&values)]);
        }
        replies.extend([done(tag), ready(b'I')]);
        talk = talk.client(&[query(text)]).server(&replies);
    }
    talk.calls()
}

/// What is recorded of the rows.
fn rows(queries: &[Query<'_>]) -> Vec<Vec<String>> {
    let recorder = played(&asked(queries), &[1_000], false);
    let text = |value: &Option<Vec<u8>>| {
        let text = String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
        if text.starts_with("hmac:") { "m".to_owned() } else { text }
    };
    recorder.rows.iter().map(|row| row.values.iter().map(text).collect()).collect()
}

#[test]
fn object_ids_tell_what_a_text_does_not() {
    let star: &[_] = &[("id", 100, 1), ("name", 100, 2), ("ssn", 100, 3)];
    let renamed: &[_] = &[("a", 100, 3), ("b", 100, 1), ("c", 0, 0), ("d", 200, 1)];
    // Nothing is known yet of what a cursor gives back that nobody saw declared: it is masked.
    assert_eq!(rows(&[("fetch 1 from c", renamed, "FETCH 1")]), [["m"; 4]]);
    // After the columns' ids are proven, those of the table are told apart; what was never seen stays masked.
    let found =
        rows(&[("select * from customers", star, "SELECT 1"), ("fetch 1 from c", renamed, "FETCH 1")]);
    assert_eq!(found[0], ["canary", "canary", "m"]);
    assert_eq!(found[1], ["m", "canary", "m", "m"]);
    // Any other statement whose columns are known by their ids, whatever its text says.
    let found = rows(&[
        ("select * from customers", star, "SELECT 1"),
        ("select x from orders", &[("x", 100, 3)], "SELECT 1"),
    ]);
    assert_eq!(found[1], ["m"]);
    // Names that may have changed prove nothing any more.
    let found = rows(&[
        ("select * from customers", star, "SELECT 1"),
        ("alter table customers rename name to ssn", &[], "ALTER TABLE"),
        ("fetch 1 from c", renamed, "FETCH 1"),
    ]);
    assert_eq!(found[1], ["m"; 4]);
}

#[test]
fn what_a_session_has_declared_is_told_apart() {
    let cursor: &[_] = &[("ssn", 100, 3), ("id", 100, 1)];
    let declared = ("declare c cursor for select ssn, id from customers", &[][..], "DECLARE CURSOR");
    assert_eq!(rows(&[declared, ("fetch 1 from c", cursor, "FETCH 1")]), [["m", "canary"]]);
    let other = ("declare c cursor for select total from orders", &[][..], "DECLARE CURSOR");
    assert_eq!(rows(&[other, ("fetch 1 from c", &[("total", 9, 1)], "FETCH 1")]), [["canary"]]);
}

/// What is masked of a text: its parameters, and what is left of it.
fn explained(masker: &mut Masker, text: &str) -> (String, String) {
    let found = masker.explain(&crate::policy::SessionFacts::default(), Some(&text.into()), true);
    (found.params.join(" "), found.sql.unwrap_or_default())
}

#[test]
fn parameters_are_masked_by_their_numbers_in_the_statements_that_a_rule_is_about() {
    let rules = "[[mask]]\nname = 'login'\nparams = [2, 3]\nwhen = '\"login\" in stmt.function_names'\n\
                 [[mask]]\nname = 'c'\ncolumns = ['customers.ssn']\n";
    let mut masker = Masker::new(&Policy::compile(rules, RowLimits::default()).unwrap(), None);
    for (text, params) in [
        ("select login($1, $2)", "$2 $3"),
        ("select 1 from (select app.login($1, $2)) x", "$2 $3"),
        ("select login($2) from customers where ssn = $1", "$1 $2 $3"),
        ("select other($1, $2)", ""),
        ("select 'login($1, $2)'", ""),
        // Nobody can tell what it calls.
        ("slect other($1, $2)", "$2 $3"),
        ("slect other($1, $2) from customers", "all"),
    ] {
        assert_eq!(explained(&mut masker, text).0, params, "{text}");
    }
}

#[test]
fn the_first_rule_in_the_file_says_what_is_left_of_a_parameter() {
    let rules = "[[mask]]\nname = 'second'\nparams = [2]\nstrategy = 'partial'\n\
                 [[mask]]\nname = 'rest'\nparams = 'all'\n";
    let mut masker = Masker::new(&Policy::compile(rules, RowLimits::default()).unwrap(), None);
    let mut masks = SessionMasks::default();
    let session = Session::new(origin(), Limits::default());
    let text: Arc<str> = "select $1, $2".into();
    let mut left = |at| masker.parameter(&mut masks, session.info(), Some(&text), at, "canary-123456789");
    assert_eq!(left(0).as_deref(), Some("[masked]"));
    assert_eq!(left(1).as_deref(), Some("****6789"));
}

/// Statements that were prepared before the agent came, and functions that are called by their number: nobody knows whose
/// parameters they have.
#[test]
fn parameters_of_a_text_that_nobody_saw_are_masked_by_every_rule() {
    let rules = "[[mask]]\nname = 'p'\nparams = [2]\nwhen = '\"login\" in stmt.function_names'\n";
    let mut masker = Masker::new(&Policy::compile(rules, RowLimits::default()).unwrap(), None);
    let mut masks = SessionMasks::default();
    let session = Session::new(origin(), Limits::default());
    let mut left = |at| masker.parameter(&mut masks, session.info(), None, at, "canary");
    assert_eq!((left(0), left(1).as_deref()), (None, Some("[masked]")));
}

#[test]
fn arguments_of_execute_are_parameters_wherever_it_stands() {
    let numbered = "[[mask]]\nname = 'p'\nparams = [2]\nwhen = '\"login\" in stmt.function_names'\n";
    let columns = "[[mask]]\nname = 'c'\ncolumns = ['customers.ssn']\n";
    let mut numbered = Masker::new(&Policy::compile(numbered, RowLimits::default()).unwrap(), None);
    let mut columns = Masker::new(&Policy::compile(columns, RowLimits::default()).unwrap(), None);
    for begin in ["", "/* c */ ", "explain ", "create table t as ", "begin; ", "select 1; select 2; "] {
        let text = format!("{begin}execute p(1, 'canary')");
        assert_eq!(explained(&mut numbered, &text).1, format!("{begin}execute p(1, '[masked]')"));
        assert_eq!(explained(&mut columns, &text).1, format!("{begin}execute p('[masked]', '[masked]')"));
    }
    // Words within a body name nothing.
    let body = "do $$ declare a int; begin execute 'x'; end $$";
    assert_eq!(explained(&mut columns, body).1, body);
}

#[test]
fn what_a_function_says_of_a_masked_parameter_is_masked_whole() {
    let rules = "[[mask]]\nname = 'p'\nparams = [1]\nwhen = '\"login\" in stmt.function_names'\n";
    let raised = error("ERROR", "P0001", "nobody has the password YRANAC");
    let asked = |text: &str| {
        let messages = [parse("", text, &[25]), bind("", "", &[t("canary")]), execute("", 0), sync()];
        let talk = Talk::started().client(&messages);
        let talk = talk.server(&[empty(b'1'), empty(b'2'), raised.clone(), ready(b'I')]);
        let executed = talk.client(&[query("execute p('canary')")]).server(&[raised.clone(), ready(b'I')]);
        let mut masker = Masker::new(&Policy::compile(rules, RowLimits::default()).unwrap(), None);
        let recorder = played_by(&mut masker, &executed.calls(), &[1_000], false);
        let said = recorder.statements.iter().map(|row| row.error_message.clone().unwrap_or_default());
        said.collect::<Vec<_>>()
    };
    assert_eq!(asked("select login($1)"), ["[masked]", "[masked]"]);
    assert_eq!(asked("select other($1)"), ["nobody has the password YRANAC", "[masked]"]);
}
