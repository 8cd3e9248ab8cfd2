//! Hand-made sessions and statements, for tests.

pub(crate) mod calls;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::journal::SEGMENT_BYTES;
use super::{Keys, Recorder, Settings};
use crate::session::value::Encoding;
use crate::session::{
    Column, EndReason, Exchange, Micros, Origin, Param, Protocol, RowValues, ServerOrigin, SessionEnd,
    SessionId, SessionInfo, Sink, Status, Transport, Values,
};

/// 2026-07-25T10:00:00Z.
pub(crate) const MORNING: Micros = Micros(1_784_973_600_000_000);

/// A recorder that completes files when it ends.
pub(crate) fn recorder(data_dir: &Path) -> Recorder {
    Recorder::new(settings(data_dir)).unwrap().0
}

/// Settings with which files are completed at the end only.
pub(crate) fn settings(data_dir: &Path) -> Settings {
    Settings {
        data_dir: data_dir.to_owned(),
        node: "node-1".to_owned(),
        rotate_age: Duration::from_secs(3_600),
        rotate_size: 64 << 20,
        journal_sync: None,
        segment_bytes: SEGMENT_BYTES,
        seal_key: None,
        anchor: None,
        keys: Keys::default(),
    }
}

/// A session of `alice` with `shop`, which began at `started_at`.
pub(crate) fn session(n: u128, started_at: Micros) -> SessionInfo {
    let milliseconds = u128::try_from(started_at.0 / 1_000).unwrap();
    let id = milliseconds << 80 | 0x7000_8000_0000_0000_0000 | n;
    SessionInfo {
        origin: Origin {
            id: SessionId(Uuid::from_u128(id)),
            started_at,
            transport: Transport::Tcp,
            client_addr: Some("10.1.2.3".parse().unwrap()),
            client_port: Some(50_000),
            backend_pid: 4_242,
            peer_pid: None,
            peer_exe: None,
            host_pid: 4343,
            server: Arc::new(ServerOrigin {
                pid: 977,
                port: Some(5432),
                version: Some("15".to_owned()),
                container_id: Some("0a".repeat(32)),
                pod_uid: Some("8dbc1f4e-7b1a-4f0e-9d1c-2f6f3c9f3a11".to_owned()),
                pod: Some("orders-db-0".to_owned()),
                namespace: Some("payments".to_owned()),
            }),
            user: None,
            database: None,
            partial: false,
            idle: false,
        },
        user: Some("alice".into()),
        database: Some("shop".into()),
        application_name: Some("psql".into()),
        auth_method: Some("scram-sha-256".into()),
        server_version: Some("15.18".into()),
        client_encoding: Encoding::default(),
        standard_conforming_strings: true,
        tls: false,
        gss_encrypted: false,
        tls_version: None,
        tls_cipher: None,
    }
}

/// A statement that went well.
pub(crate) fn exchange(seq: u64, started_at: Micros, sql: &str) -> Exchange {
    Exchange {
        seq,
        started_at,
        duration_us: Some(1_500),
        first_row_us: None,
        protocol: Protocol::Simple,
        sql: Some(sql.into()),
        statement_name: None,
        params: Vec::new(),
        params_body: Vec::new(),
        columns: None,
        rows: Some(0),
        command_tag: None,
        status: Status::Completed,
        sqlstate: None,
        error_message: None,
        bytes_in: 20,
        bytes_out: 40,
        frontend_range: (seq * 20, seq * 20 + 20),
        complete: true,
        results_truncated: false,
        params_truncated: false,
        masked: 0,
        judged: None,
    }
}

/// The same statement with parameters in text format.
pub(crate) fn with_params(mut exchange: Exchange, params: &[(u32, Option<&[u8]>)]) -> Exchange {
    exchange.protocol = Protocol::Extended;
    exchange.statement_name = Some("".into());
    for (type_oid, value) in params {
        let value = value.map(|value| {
            let start = exchange.params_body.len() as u32;
            exchange.params_body.extend_from_slice(value);
            (start, exchange.params_body.len() as u32)
        });
        exchange.params.push(Param { type_oid: *type_oid, format: 0, value });
    }
    exchange
}

/// Columns of type text in text format.
pub(crate) fn columns(names: &[&str]) -> Arc<[Column]> {
    let column =
        |name: &&str| Column { name: (*name).into(), type_oid: 25, table_oid: 0, attnum: 0, format: 0 };
    names.iter().map(column).collect()
}

/// Sends a row of text values.
pub(crate) fn row(
    sink: &mut impl Sink,
    session: &SessionInfo,
    exchange: &Exchange,
    row: u64,
    values: &[Option<&str>],
) {
    let fields: Vec<_> = values.iter().map(|value| value.map(str::as_bytes)).collect();
    let values = Values::Fields { fields: &fields, binary: false };
    let columns = exchange.columns.as_deref().unwrap_or_default();
    let (seq, sql, started_at) = (exchange.seq, exchange.sql.as_ref(), exchange.started_at);
    let row = RowValues { seq, row, sql, started_at, columns, values };
    sink.row(session, row);
}

/// An ordinary end, a second after the start.
pub(crate) fn end(session: &SessionInfo, statements: u64) -> SessionEnd {
    SessionEnd {
        ended_at: Some(Micros(session.origin.started_at.0 + 1_000_000)),
        reason: EndReason::Terminate,
        statements,
        errors: 0,
        bytes_in: 100,
        bytes_out: 200,
        gap_bytes: 0,
        socket_bytes_in: 100,
        socket_bytes_out: 200,
        protocol_error: None,
    }
}
