//! Statements that store in columns without naming them: what was seen of the table tells which those are, as long as it
//! can be trusted.

use super::*;
use crate::session::testing::{copy_data, copy_done, copy_response};

const STAR: &[(&str, u32, i16)] = &[("id", 100, 1), ("ssn", 100, 3)];
const SEEN: Query<'_> = ("select * from customers", STAR, "SELECT 1");
const INSERT: Query<'_> = ("insert into customers values (1, 'canary')", &[], "INSERT 0 1");

/// What the last of these statements is recorded as, with `?` for what is masked.
fn last(masker: &mut Masker, queries: &[Query<'_>]) -> String {
    let recorder = played_by(masker, &asked(queries), &[1_000], false);
    let text = recorder.statements.last().and_then(|statement| statement.sql.as_deref()).unwrap_or_default();
    let pieces = text.split('\'').map(|piece| if piece.starts_with("hmac:") { "?" } else { piece });
    pieces.collect()
}

fn alone(queries: &[Query<'_>]) -> String {
    last(&mut masker(), queries)
}

const ALL: &str = "insert into customers values (?, ?)";
const ONE: &str = "insert into customers values (1, ?)";

#[test]
fn places_are_the_columns_that_the_session_has_seen() {
    assert_eq!(alone(&[INSERT]), ALL);
    assert_eq!(alone(&[SEEN, INSERT]), ONE);
    assert_eq!(alone(&[("table customers", STAR, "SELECT 1"), INSERT]), ONE);
    assert_eq!(alone(&[("select c.* from customers c", STAR, "SELECT 1"), INSERT]), ONE);
    let prepared = ("update customers set ssn = 'x' where id = 1", &[][..], "UPDATE 1");
    assert_eq!(alone(&[SEEN, ("begin", &[], "BEGIN"), prepared, ("commit", &[], "COMMIT"), INSERT]), ONE);
    let select = "insert into customers select 1, 'canary'";
    assert_eq!(alone(&[SEEN, (select, &[], "INSERT 0 1")]), "insert into customers select 1, ?");
    let rows = "insert into customers values (1, 'a'), (2, 'b') on conflict do nothing";
    let left = "insert into customers values (1, ?), (2, ?) on conflict do nothing";
    assert_eq!(alone(&[SEEN, (rows, &[], "INSERT 0 2")]), left);
}

#[test]
fn what_is_not_all_of_a_table_tells_no_places() {
    for (text, columns) in [
        ("select id, ssn from customers", STAR),
        ("select * from customers c(a, b)", STAR),
        ("select * from customers, orders", STAR),
        ("select * from other.customers", STAR),
        ("select *, 1 as ssn from customers", STAR),
        ("select * from customers", &[("id", 0, 0), ("ssn", 0, 0)][..]),
        ("select * from customers", &[("id", 100, 3), ("ssn", 100, 1)][..]),
        ("select * from customers", &[("id", 100, 1), ("ssn", 101, 2)][..]),
    ] {
        assert_eq!(alone(&[(text, columns, "SELECT 1"), INSERT]), ALL, "{text} {columns:?}");
    }
}

#[test]
fn another_number_of_values_than_of_columns_tells_no_places() {
    for (text, left) in [
        ("insert into customers values ('canary')", "insert into customers values (?)"),
        ("insert into customers values (1, 2, 'canary')", "insert into customers values (?, ?, ?)"),
        ("insert into customers values (1, 2), (3)", "insert into customers values (?, ?), (?)"),
        ("insert into customers select 1", "insert into customers select ?"),
        ("insert into customers select 1, x.* from x", "insert into customers select ?, x.* from x"),
    ] {
        assert_eq!(alone(&[SEEN, (text, &[], "INSERT 0 1")]), left);
    }
}

#[test]
fn what_may_mean_another_table_since_then_is_forgotten() {
    for (text, tag) in [
        ("alter table customers drop column id", "ALTER TABLE"),
        ("create temp table customers (ssn text, id int)", "CREATE TABLE"),
        ("create temp table customers as select 1", "SELECT 1"),
        ("select 'a' as ssn, 1 as id into temp customers", "SELECT 1"),
        ("select set_config('search_path', 'other', false)", "SELECT 1"),
        ("set search_path to other", "SET"),
        ("set role other", "SET"),
        ("discard all", "DISCARD ALL"),
        ("rollback", "ROLLBACK"),
        ("explain analyze create table a as select 1", "EXPLAIN"),
        ("do $$ begin end $$", "DO"),
        ("call something()", "CALL"),
        ("execute something", "SELECT 1"),
        ("a new command", "A NEW COMMAND"),
    ] {
        assert_eq!(alone(&[SEEN, (text, &[], tag), INSERT]), ALL, "{text}");
        assert_eq!(alone(&[SEEN, (text, &[], tag), SEEN, INSERT]), ONE, "{text}");
    }
    // What holds until the end of the transaction.
    let local = ("set local search_path to other", &[][..], "SET");
    assert_eq!(alone(&[local, SEEN, ("commit", &[], "COMMIT"), INSERT]), ALL);
}

#[test]
fn tables_that_another_session_changes_are_forgotten_and_its_settings_are_its_own() {
    for (text, tag, left) in [
        ("alter table customers drop column id", "ALTER TABLE", ALL),
        ("create table public.customers (ssn text, id int)", "CREATE TABLE", ALL),
        ("explain analyze create table a as select 1", "EXPLAIN", ALL),
        ("set search_path to other", "SET", ONE),
        ("select 1", "SELECT 1", ONE),
    ] {
        let recorder = interrupted(&asked(&[SEEN, INSERT]), 2, &[(text, &[], tag)]);
        let text_left = recorder.statements.last().and_then(|row| row.sql.as_deref()).unwrap_or_default();
        assert_eq!(text_left.contains("values (1,"), left == ONE, "{text}: {text_left}");
    }
}

#[test]
fn copied_rows_are_looked_at_anew_for_each_copy() {
    let copy = |talk: Talk| {
        let data = [copy_data(b"1\tcanary\n"), copy_done()];
        let talk =
            talk.client(&[query("copy customers from stdin")]).server(&[copy_response(b'G', false, 2)]);
        talk.client(&data).server(&[done("COPY 1"), ready(b'I')])
    };
    let seen = Talk::started().client(&[query(SEEN.0)]);
    let seen = seen.server(&[described(STAR), row(&[t("1"), t("canary")]), done(SEEN.2), ready(b'I')]);
    let calls = copy(copy(seen)).calls();
    for (text, tag, left) in [
        ("select 1", "SELECT 1", ["1 ?", "1 ?"]),
        ("alter table customers drop column id", "ALTER TABLE", ["1 ?", "? ?"]),
    ] {
        let recorder = interrupted(&calls, 4, &[(text, &[], tag)]);
        let value = |value: &Option<Vec<u8>>| {
            let text = String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
            if text.starts_with("hmac:") { "?".to_owned() } else { text }
        };
        let rows = recorder.rows.iter().skip(1).map(|row| row.values.iter().map(value).collect::<Vec<_>>());
        assert_eq!(rows.map(|row| row.join(" ")).collect::<Vec<_>>(), left, "{text}");
    }
}

/// Plays a talk, and before the last of its calls another session's queries.
fn interrupted(calls: &[(Direction, Vec<u8>)], last: usize, between: &[Query<'_>]) -> Recorder {
    let (mut masker, mut masks) = (masker(), SessionMasks::default());
    let mut session = Session::new(origin(), Limits::default());
    let mut recorder = Recorder::default();
    let mut offsets = [0u64; 2];
    for (at, (direction, bytes)) in calls.iter().enumerate() {
        if at + last == calls.len() {
            played_by(&mut masker, &asked(between), &[1_000], false);
        }
        let offset = &mut offsets[*direction as usize];
        let data = Data {
            direction: *direction,
            offset: *offset,
            bytes,
            loss: None,
            end_of_call: true,
            plaintext: false,
            at: Micros(1_000),
        };
        session.data(data, &mut Masked::new(&mut masker, &mut masks, &mut recorder));
        *offset += bytes.len() as u64;
    }
    recorder
}
