//! Rows of `sessions`.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Int32Array, Int32Builder, Int64Array, NullBufferBuilder, RecordBatch,
    StringArray, StringBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder, new_null_array,
};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::labels::{Labels, constant, text_bytes};
use super::loss::{Loss, Stake};
use super::table::{Table, timestamp};
use crate::session::{Direction, EndReason, ServerOrigin, SessionEnd, SessionInfo, Transport};

/// Builds the table `sessions`.
#[derive(Debug)]
pub(super) struct Sessions {
    session_id: StringBuilder,
    started_at: Vec<i64>,
    ended_at: TimestampMicrosecondBuilder,
    end_reason: StringBuilder,
    pg_user: StringBuilder,
    database: StringBuilder,
    application_name: StringBuilder,
    client_addr: StringBuilder,
    client_port: Int32Builder,
    transport: Vec<&'static str>,
    tls: BooleanBuilder,
    gss_encrypted: BooleanBuilder,
    auth_method: StringBuilder,
    backend_pid: Vec<i32>,
    server_version: StringBuilder,
    peer_pid: Int32Builder,
    peer_exe: StringBuilder,
    statements: Vec<i64>,
    errors: Vec<i64>,
    bytes_in: Vec<i64>,
    bytes_out: Vec<i64>,
    gap_bytes: Vec<i64>,
    partial: BooleanBuilder,
    protocol_error: StringBuilder,
    host_pid: Vec<i32>,
    servers: Vec<Arc<ServerOrigin>>,
    tls_version: StringBuilder,
    tls_cipher: StringBuilder,
    socket_bytes_in: Vec<i64>,
    socket_bytes_out: Vec<i64>,
    stake: Stake,
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self {
            session_id: StringBuilder::new(),
            started_at: Vec::new(),
            ended_at: TimestampMicrosecondBuilder::new().with_data_type(timestamp()),
            end_reason: StringBuilder::new(),
            pg_user: StringBuilder::new(),
            database: StringBuilder::new(),
            application_name: StringBuilder::new(),
            client_addr: StringBuilder::new(),
            client_port: Int32Builder::new(),
            transport: Vec::new(),
            tls: BooleanBuilder::new(),
            gss_encrypted: BooleanBuilder::new(),
            auth_method: StringBuilder::new(),
            backend_pid: Vec::new(),
            server_version: StringBuilder::new(),
            peer_pid: Int32Builder::new(),
            peer_exe: StringBuilder::new(),
            statements: Vec::new(),
            errors: Vec::new(),
            bytes_in: Vec::new(),
            bytes_out: Vec::new(),
            gap_bytes: Vec::new(),
            partial: BooleanBuilder::new(),
            protocol_error: StringBuilder::new(),
            host_pid: Vec::new(),
            servers: Vec::new(),
            tls_version: StringBuilder::new(),
            tls_cipher: StringBuilder::new(),
            socket_bytes_in: Vec::new(),
            socket_bytes_out: Vec::new(),
            stake: Stake::default(),
        }
    }

    /// Appends a session that ended, or that is open as the agent stops.
    pub(super) fn append(&mut self, labels: &Labels, session: &SessionInfo, end: &SessionEnd) {
        let origin = &session.origin;
        self.session_id.append_value(labels.id());
        self.started_at.push(origin.started_at.0);
        self.ended_at.append_option(end.ended_at.map(|at| at.0));
        append_reason(&mut self.end_reason, &end.reason);
        self.pg_user.append_option(session.user.as_deref().or(origin.user.as_deref()));
        self.database.append_option(session.database.as_deref().or(origin.database.as_deref()));
        self.application_name.append_option(session.application_name.as_deref());
        self.client_addr.append_option(labels.client_addr.as_deref());
        self.client_port.append_option(origin.client_port.map(i32::from));
        self.transport.push(match origin.transport {
            Transport::Tcp => "tcp",
            Transport::Unix => "unix",
        });
        self.tls.append_value(session.tls);
        self.gss_encrypted.append_value(session.gss_encrypted);
        self.auth_method.append_option(session.auth_method.as_deref());
        self.backend_pid.push(process_id(origin.backend_pid));
        let version = session.server_version.as_deref().or(origin.server.version.as_deref());
        self.server_version.append_option(version);
        self.peer_pid.append_option(origin.peer_pid.map(process_id));
        self.peer_exe.append_option(origin.peer_exe.as_deref());
        self.statements.push(number(end.statements));
        self.errors.push(number(end.errors));
        self.bytes_in.push(number(end.bytes_in));
        self.bytes_out.push(number(end.bytes_out));
        self.gap_bytes.push(number(end.gap_bytes));
        self.partial.append_value(origin.partial);
        self.protocol_error.append_option(end.protocol_error.as_deref());
        self.host_pid.push(process_id(origin.host_pid));
        self.servers.push(Arc::clone(&origin.server));
        self.tls_version.append_option(session.tls_version.as_deref());
        self.tls_cipher.append_option(session.tls_cipher.as_deref());
        self.socket_bytes_in.push(number(end.socket_bytes_in));
        self.socket_bytes_out.push(number(end.socket_bytes_out));
        self.stake.note(Loss {
            session: Some(origin.id),
            table: Table::Sessions,
            direction: Direction::Frontend,
            range: None,
            statements: None,
            rows: 1,
            at: origin.started_at,
        });
    }

    /// Rows so far.
    pub(super) fn len(&self) -> usize {
        self.started_at.len()
    }

    /// Memory in use, about.
    pub(super) fn bytes(&self) -> usize {
        text_bytes(&self.protocol_error) + text_bytes(&self.application_name) + self.len() * 300
    }

    /// The rows, and an empty table in their place.
    pub(super) fn finish(&mut self, node: &str) -> Result<RecordBatch, ArrowError> {
        let rows = self.len();
        let servers = std::mem::take(&mut self.servers);
        let of_server = |text: fn(&ServerOrigin) -> Option<&str>| -> ArrayRef {
            Arc::new(servers.iter().map(|server| text(server)).collect::<StringArray>())
        };
        let number_of_server = |number: fn(&ServerOrigin) -> Option<i32>| -> ArrayRef {
            Arc::new(servers.iter().map(|server| number(server)).collect::<Int32Array>())
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.session_id.finish()),
            constant(node, rows),
            times(&mut self.started_at),
            Arc::new(self.ended_at.finish()),
            Arc::new(self.end_reason.finish()),
            Arc::new(self.pg_user.finish()),
            Arc::new(self.database.finish()),
            Arc::new(self.application_name.finish()),
            Arc::new(self.client_addr.finish()),
            Arc::new(self.client_port.finish()),
            Arc::new(StringArray::from_iter_values(self.transport.drain(..))),
            Arc::new(self.tls.finish()),
            Arc::new(self.auth_method.finish()),
            Arc::new(Int32Array::from(std::mem::take(&mut self.backend_pid))),
            Arc::new(self.server_version.finish()),
            Arc::new(self.peer_pid.finish()),
            Arc::new(self.peer_exe.finish()),
            of_server(|server| server.container_id.as_deref()),
            of_server(|server| server.pod.as_deref()),
            of_server(|server| server.namespace.as_deref()),
            // subject: not known today.
            new_null_array(&DataType::Utf8, rows),
            numbers(&mut self.statements),
            numbers(&mut self.errors),
            numbers(&mut self.bytes_in),
            numbers(&mut self.bytes_out),
            numbers(&mut self.gap_bytes),
            Arc::new(self.partial.finish()),
            Arc::new(self.protocol_error.finish()),
            Arc::new(Int32Array::from(std::mem::take(&mut self.host_pid))),
            number_of_server(|server| (server.pid != 0).then(|| process_id(server.pid))),
            number_of_server(|server| server.port.map(i32::from)),
            of_server(|server| server.pod_uid.as_deref()),
            Arc::new(self.tls_version.finish()),
            Arc::new(self.tls_cipher.finish()),
            numbers(&mut self.socket_bytes_in),
            numbers(&mut self.socket_bytes_out),
            Arc::new(self.gss_encrypted.finish()),
        ];
        RecordBatch::try_new(Table::Sessions.schema(), columns)
    }

    /// What is lost if the rows that were finished are.
    pub(super) fn take_stake(&mut self) -> Vec<Loss> {
        self.stake.take()
    }
}

/// A column of timestamps, taken out of `values`.
pub(super) fn times(values: &mut Vec<i64>) -> ArrayRef {
    let array = TimestampMicrosecondArray::from(take(values));
    Arc::new(array.with_timezone("UTC"))
}

/// A column of numbers, taken out of `values`.
pub(super) fn numbers(values: &mut Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(take(values)))
}

/// The values, and in their place none, with room for as many again.
fn take(values: &mut Vec<i64>) -> Vec<i64> {
    let room = Vec::with_capacity(values.len());
    std::mem::replace(values, room)
}

/// Builds a column of numbers, some of which are not known.
#[derive(Debug)]
pub(super) struct Numbers {
    values: Vec<i64>,
    nulls: NullBufferBuilder,
}

impl Numbers {
    /// An empty column.
    pub(super) fn new() -> Self {
        Self { values: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }

    /// Appends a number, or that it is not known.
    #[inline]
    pub(super) fn append(&mut self, number: Option<i64>) {
        self.values.push(number.unwrap_or_default());
        match number {
            Some(_) => self.nulls.append_non_null(),
            None => self.nulls.append_null(),
        }
    }

    /// The column, and an empty one in its place.
    pub(super) fn finish(&mut self) -> ArrayRef {
        Arc::new(Int64Array::new(take(&mut self.values).into(), self.nulls.finish()))
    }
}

/// A count as it is stored: no stream reaches 2^63 bytes.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Linux process ids are at most 2^22 (`PID_MAX_LIMIT` in `include/linux/threads.h`).
fn process_id(pid: u32) -> i32 {
    i32::try_from(pid).unwrap_or(i32::MAX)
}

fn append_reason(column: &mut StringBuilder, reason: &EndReason) {
    match reason {
        EndReason::Terminate => column.append_value("terminate"),
        EndReason::CancelRequest => column.append_value("cancel_request"),
        EndReason::Disconnected => column.append_value("disconnected"),
        EndReason::AgentStopped => column.append_value("agent_stopped"),
        // Writing to a builder does not fail.
        EndReason::Fatal(sqlstate) => {
            let _ = write!(column, "fatal {sqlstate}");
            column.append_value("");
        }
        EndReason::Signal(signal) => {
            let _ = write!(column, "signal {signal}");
            column.append_value("");
        }
    }
}
