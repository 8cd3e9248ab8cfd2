//! What the recorder wrote, read back.

use std::path::Path;
use std::sync::LazyLock;

use uuid::Uuid;

use super::{Filter, Found, Item, SessionRow, Source, StatementFilter, find, sessions, show};
use crate::record::fixture::{MORNING, columns, end, exchange, recorder, row, session, with_params};
use crate::record::{Decision, DecisionKind, Keys, Outcome};
use crate::session::{Direction, Gap as StreamGap, GapReason, Micros, SessionInfo, Sink, Status};

#[test]
fn sessions_are_listed_by_start_with_what_is_known_of_open_ones() {
    let folder = record();
    let rows = list(folder.path(), &Filter::default());
    assert_eq!(
        rows.iter().map(|row| row.pg_user.as_deref()).collect::<Vec<_>>(),
        [Some("alice"), Some("bob"), Some("carol")]
    );
    assert_eq!(rows[0].ended_at, Some(later(1)));
    assert_eq!((rows[0].statements, rows[0].client_port), (Some(2), Some(50_000)));
    // Carol's session has no row yet: this is what her statements tell.
    assert_eq!((rows[2].statements, rows[2].errors, rows[2].ended_at), (Some(1), Some(1), None));
}

#[test]
fn filters_take_what_they_say_and_nothing_else() {
    let folder = record();
    let users = |filter: &Filter| -> Vec<_> {
        list(folder.path(), filter).into_iter().filter_map(|row| row.pg_user).collect()
    };
    let user = |name: &str| Filter { user: Some(name.to_owned()), ..Filter::default() };
    assert_eq!(users(&user("bob")), ["bob"]);
    assert_eq!(users(&user("carol")), ["carol"]);
    assert_eq!(users(&user("nobody")), [""; 0]);
    assert_eq!(users(&Filter { since: Some(later(100)), ..Filter::default() }), ["bob", "carol"]);
    assert_eq!(users(&Filter { until: Some(later(100)), ..Filter::default() }), ["alice"]);
    assert_eq!(users(&Filter { since: Some(later(999_999)), ..Filter::default() }), [""; 0]);
    assert_eq!(users(&Filter { limit: Some(1), ..Filter::default() }), ["carol"]);
    let statement = |text: Option<&str>, status: Option<&str>| Filter {
        statement: StatementFilter { text: text.map(str::to_owned), status: status.map(str::to_owned) },
        ..Filter::default()
    };
    assert_eq!(users(&statement(Some("CUSTOMERS"), None)), ["alice"]);
    assert_eq!(users(&statement(None, Some("failed"))), ["carol"]);
    assert_eq!(users(&statement(Some("select"), Some("completed"))), ["alice", "bob"]);
    assert_eq!(users(&statement(Some("customers"), Some("failed"))), [""; 0]);
}

#[test]
fn the_row_of_an_ended_session_supersedes_the_one_of_an_open_one() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(1, MORNING);
    for ended_at in [None, Some(later(50))] {
        let mut recorder = recorder(folder.path());
        let mut last = end(&session, 1);
        last.ended_at = ended_at;
        recorder.end(&session, &last);
        recorder.finish().unwrap();
    }
    let rows = list(folder.path(), &Filter::default());
    assert_eq!(rows.iter().map(|row| row.ended_at).collect::<Vec<_>>(), [Some(later(50))]);
}

#[test]
fn a_session_is_found_by_its_id_and_by_either_end_of_it() {
    let folder = record();
    let id = alice().origin.id.0.to_string();
    for name in [id.clone(), id.to_uppercase(), id.replace('-', ""), id[24..].to_owned()] {
        match find(source(folder.path()), &name).unwrap() {
            Found::One(row) => assert_eq!(row.session_id, id, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    // All of this morning's ids begin alike.
    assert!(
        matches!(find(source(folder.path()), &id[..6]).unwrap(), Found::Several(rows) if rows.len() == 2)
    );
    let open = carol().origin.id.0.to_string();
    assert!(matches!(find(source(folder.path()), &open).unwrap(), Found::One(row) if row.session_id == open));
    for name in ["", "xyz", "no such id", &Uuid::nil().to_string()] {
        assert_eq!(find(source(folder.path()), name).unwrap(), Found::None, "{name}");
    }
}

#[test]
fn a_session_is_shown_in_its_order_with_its_rows_and_gaps() {
    let folder = record();
    let Found::One(session) = find(source(folder.path()), &alice().origin.id.0.to_string()).unwrap() else {
        panic!()
    };
    let items: Vec<_> = show(source(folder.path()), &session, true).unwrap().map(Result::unwrap).collect();
    let [Item::Statement(select), Item::Gap(gap), Item::Statement(other)] = items.as_slice() else {
        panic!("{items:?}")
    };
    assert_eq!(select.params, [Some("42".to_owned()), None]);
    assert_eq!(select.columns, [Some("id".to_owned()), Some("ssn".to_owned())]);
    let rows = select.results.as_deref().unwrap();
    assert_eq!(rows, [[Some("42".to_owned()), None], [Some("43".to_owned()), Some("x".to_owned())]]);
    assert_eq!(select.json["params"][0]["type_oid"], 23);
    assert_eq!(select.json["started_at"], "2026-07-25T10:00:00Z");
    assert_eq!((gap.length, gap.reason.as_deref()), (Some(5), Some("ring_full")));
    assert_eq!((other.seq, other.results.as_deref()), (1, Some(&[][..])));
    let without = show(source(folder.path()), &session, false).unwrap().next().unwrap().unwrap();
    assert!(matches!(without, Item::Statement(statement) if statement.results.is_none()));
}

#[test]
fn a_decision_is_shown_after_the_statement_that_it_is_about() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorder(folder.path());
    let alice = alice();
    for seq in 0..2 {
        let at = Micros(MORNING.0 + i64::try_from(seq).unwrap() * 1_000);
        recorder.statement(&alice, &exchange(seq, at, "select 1"));
        let blocked = Decision {
            seq: Some(seq),
            verdict: Some(Outcome::Blocked),
            ..Decision::new(DecisionKind::Verdict, Micros(at.0 + 50))
        };
        recorder.decision(Some(&alice), &blocked);
        recorder.decision(Some(&bob()), &blocked);
    }
    recorder.end(&alice, &end(&alice, 2));
    recorder.finish().unwrap();
    let Found::One(session) = find(source(folder.path()), &alice.origin.id.0.to_string()).unwrap() else {
        panic!()
    };
    let items: Vec<_> = show(source(folder.path()), &session, false)
        .unwrap()
        .map(|item| match item.unwrap() {
            Item::Statement(statement) => ("statement", Some(statement.seq)),
            Item::Decision(decision) => ("decision", decision.seq),
            Item::Gap(gap) => panic!("{gap:?}"),
        })
        .collect();
    let expected = [0, 1].map(|seq| [("statement", Some(seq)), ("decision", Some(seq))]).concat();
    assert_eq!(items, expected);
}

#[test]
fn a_folder_that_is_no_record_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    for path in [folder.path(), &missing] {
        let error = sessions(source(path), &Filter::default()).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains("#no-record"), "{error}");
    }
}

#[test]
fn a_file_that_is_none_is_named() {
    let folder = record();
    let broken = folder.path().join("sessions/date=2026-07-25/broken.parquet");
    std::fs::write(&broken, "PAR1 not at all").unwrap();
    let error = sessions(source(folder.path()), &Filter::default()).unwrap_err().to_string();
    assert!(error.contains("broken.parquet"), "{error}");
}

/// Three sessions: Alice's and Bob's have ended, Carol's has statements only.
fn record() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorder(folder.path());
    let (alice, bob, carol) = (alice(), bob(), carol());
    let mut select = with_params(
        exchange(0, MORNING, "SELECT * FROM customers WHERE id = $1 OR ssn = $2"),
        &[(23, Some(b"42")), (25, None)],
    );
    select.columns = Some(columns(&["id", "ssn"]));
    row(&mut recorder, &alice, &select, 0, &[Some("42"), None]);
    row(&mut recorder, &bob, &select, 0, &[Some("bob's")]);
    row(&mut recorder, &alice, &select, 1, &[Some("43"), Some("x")]);
    recorder.statement(&alice, &select);
    recorder.gap(
        &alice,
        &StreamGap {
            direction: Direction::Backend,
            offset: 10,
            length: 5,
            at: Micros(MORNING.0 + 1_000),
            reason: GapReason::RingFull,
        },
    );
    recorder.statement(&alice, &exchange(1, Micros(MORNING.0 + 2_000), "COMMIT"));
    recorder.statement(&bob, &exchange(0, later(200), "select 1"));
    let mut failed = exchange(0, later(90_000), "select 1/0");
    failed.status = Status::Failed;
    recorder.statement(&carol, &failed);
    recorder.end(&alice, &end(&alice, 2));
    recorder.end(&bob, &end(&bob, 1));
    recorder.finish().unwrap();
    folder
}

fn alice() -> SessionInfo {
    session(1, MORNING)
}

fn bob() -> SessionInfo {
    let mut bob = session(2, later(200));
    bob.user = Some("bob".into());
    bob
}

/// The next day.
fn carol() -> SessionInfo {
    let mut carol = session(3, later(90_000));
    carol.user = Some("carol".into());
    carol
}

fn later(seconds: i64) -> Micros {
    Micros(MORNING.0 + seconds * 1_000_000)
}

fn list(data_dir: &Path, filter: &Filter) -> Vec<SessionRow> {
    sessions(source(data_dir), filter).unwrap().0
}

/// A record that is not encrypted.
fn source(data_dir: &Path) -> Source<'_> {
    static NONE: LazyLock<Keys> = LazyLock::new(Keys::default);
    Source { data_dir, keys: &NONE }
}
