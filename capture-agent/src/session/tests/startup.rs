//! From the first byte to the first ReadyForQuery.

use crate::session::testing::*;
use crate::session::*;

const SSL: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

fn ann() -> Vec<u8> {
    startup(&[("user", "ann"), ("_pq_.test", "1")])
}

#[test]
fn encryption_that_the_server_declines_is_followed_by_a_plain_startup() {
    let recorder = Talk::default()
        .client(&[GSS.to_vec()])
        .server(&[b"N".to_vec()])
        .client(&[SSL.to_vec()])
        .server(&[b"N".to_vec()])
        .client(&[ann()])
        .server(&[auth(0, &[]), ready(b'I')])
        .client(&[query("SELECT 1")])
        .server(&[columns(&[("a", 23)]), row(&[t("1")]), done("SELECT 1"), ready(b'I')])
        .record();
    assert_eq!(recorder.statuses(), [Status::Completed]);
    assert_eq!(text(&recorder.info().database), Some("ann"));
    assert!(!recorder.info().tls);
    assert_eq!(recorder.end().gap_bytes, 0);
}

#[test]
fn encrypted_bytes_are_declared_and_never_read() {
    let talk = Talk::default()
        .client(&[SSL.to_vec()])
        .server(&[b"S".to_vec()])
        .client(&[vec![0x16; 500]])
        .server(&[vec![0x17; 700]])
        .client(&[query("SELECT 1")]);
    let recorder = talk.record();
    assert!(recorder.info().tls);
    assert!(recorder.statements.is_empty());
    let end = recorder.end();
    assert_eq!((end.bytes_in, end.bytes_out), (8, 1));
    let gaps: Vec<_> = recorder.gaps.iter().map(|gap| (gap.offset, gap.length, gap.reason)).collect();
    let frontend = 500 + query("SELECT 1").len() as u64;
    assert_eq!(gaps, [(8, frontend, GapReason::Encrypted), (1, 700, GapReason::Encrypted)]);
}

#[test]
fn tls_from_the_first_byte_is_recognized() {
    let hello = [&[0x16, 3, 1, 2, 0][..], &[7; 512]].concat();
    let recorder = Talk::default().client(&[hello]).server(&[vec![0x16; 90]]).record();
    assert!(recorder.info().tls);
    assert_eq!(recorder.end().gap_bytes, 517 + 90);
    assert_eq!(recorder.end().protocol_error, None);
}

#[test]
fn a_server_without_encryption_may_answer_with_an_error() {
    let refused = error("FATAL", "0A000", "unsupported frontend protocol");
    let recorder = Talk::default().client(&[SSL.to_vec()]).server(&[refused]).record();
    assert_eq!(recorder.end().reason, EndReason::Fatal("0A000".into()));
}

#[test]
fn every_authentication_method_is_named_and_no_secret_is_kept() {
    let methods: [(u32, &[u8], &str); 6] = [
        (3, b"", "password"),
        (5, b"salt", "md5"),
        (7, b"", "gss"),
        (9, b"", "sspi"),
        (10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", "scram-sha-256"),
        (10, b"OAUTHBEARER\0\0", "OAUTHBEARER"),
    ];
    for (kind, rest, name) in methods {
        let recorder = Talk::default()
            .client(&[ann()])
            .server(&[auth(kind, rest)])
            .client(&[message(b'p', &[b"hunter2\0"])])
            .server(&[auth(12, b"v=hunter2"), auth(0, &[]), ready(b'I')])
            .client(&[empty(b'X')])
            .record();
        assert_eq!(text(&recorder.info().auth_method), Some(name));
        assert!(!recorder.log.join("\n").contains("hunter2"));
        assert_eq!(recorder.end().reason, EndReason::Terminate);
    }
}

#[test]
fn an_error_before_the_client_is_let_in_ends_the_session() {
    let recorder = Talk::default()
        .client(&[ann()])
        .server(&[auth(5, b"salt")])
        .client(&[message(b'p', &[b"md5\0"])])
        .server(&[error("FATAL", "28P01", "password authentication failed")])
        .record();
    assert_eq!(recorder.end().reason, EndReason::Fatal("28P01".into()));
    assert_eq!((recorder.end().errors, recorder.end().statements), (1, 0));
}

#[test]
fn a_client_that_is_not_let_in_runs_nothing() {
    let recorder = Talk::default()
        .client(&[ann(), query("DROP TABLE t")])
        .server(&[error("FATAL", "3D000", "database \"ann\" does not exist")])
        .record();
    assert!(recorder.statements.is_empty());
}

#[test]
fn what_a_trusted_client_sends_at_once_is_answered_in_order() {
    let recorder = Talk::default()
        .client(&[ann(), query("SELECT 1")])
        .server(&[auth(0, &[]), ready(b'I')])
        .server(&[columns(&[("a", 23)]), row(&[t("1")]), done("SELECT 1"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["SELECT 1"]);
    assert_eq!(recorder.statuses(), [Status::Completed]);
}

#[test]
fn an_older_server_negotiates_the_protocol_down() {
    let negotiate = message(b'v', &[&[0, 3, 0, 0], &[0, 0, 0, 1], &z("_pq_.test")]);
    let key = message(b'K', &[&[0, 0, 0, 9], &[7; 256]]);
    let recorder =
        Talk::default().client(&[ann()]).server(&[negotiate, auth(0, &[]), key, ready(b'I')]).record();
    assert_eq!(recorder.end().gap_bytes, 0);
    assert_eq!(text(&recorder.info().user), Some("ann"));
}

#[test]
fn another_protocol_s_bytes_are_a_protocol_error() {
    let request = b"GET / HTTP/1.1\r\nHost: db\r\n\r\n";
    let recorder = Talk::default().client(&[request.to_vec()]).record();
    let end = recorder.end();
    assert_eq!(end.protocol_error.as_deref(), Some("invalid length 1195725856 of startup packet"));
    assert_eq!((end.bytes_in, end.gap_bytes), (0, request.len() as u64));
    assert_eq!(recorder.gaps[0].reason, GapReason::ProtocolError);
}

#[test]
fn an_unknown_message_type_is_a_protocol_error() {
    let recorder = Talk::started()
        .client(&[query("SELECT 1")])
        .server(&[columns(&[("a", 23)]), row(&[t("1")]), done("SELECT 1"), ready(b'I')])
        .client(&[vec![b'!', 0, 0, 0, 4]])
        .server(&[error("FATAL", "08P01", "invalid frontend message type 33")])
        .record();
    assert_eq!(recorder.end().protocol_error.as_deref(), Some("invalid message type 0x21"));
    assert_eq!(recorder.end().gap_bytes, 5);
    assert_eq!(recorder.end().reason, EndReason::Fatal("08P01".into()));
    assert_eq!(recorder.statuses(), [Status::Completed]);
}
