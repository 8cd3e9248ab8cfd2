//! What a session is made of, as the rooms below see it: the contract between `session` and everything that
//! records, judges or shows.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::judged::Judged;
use super::rows::{RowRun, RowValues};
use super::saved::clipped;

/// Microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Micros(pub i64);

/// A session's name in every table: a UUIDv7 made when the session was first seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub uuid::Uuid);

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// From the client to the server.
    Frontend,
    /// From the server to the client.
    Backend,
}

/// How the client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// TCP, over IPv4 or IPv6.
    Tcp,
    /// A Unix-domain socket.
    Unix,
}

/// What the system knows of a session before its first byte is read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// The session's id.
    pub id: SessionId,
    /// When the server accepted the connection, or when the agent found the session.
    pub started_at: Micros,
    /// How the client is connected.
    pub transport: Transport,
    /// The client's address; none for Unix sockets.
    pub client_addr: Option<IpAddr>,
    /// The client's port; none for Unix sockets.
    pub client_port: Option<u16>,
    /// The backend's process id, as the server itself knows it: another one than the host's in a container.
    pub backend_pid: u32,
    /// The backend's process id, as the host sees it.
    pub host_pid: u32,
    /// The client's process id, for local clients where the kernel tells it.
    pub peer_pid: Option<u32>,
    /// The client's executable, for local clients.
    pub peer_exe: Option<String>,
    /// The server that accepted the connection.
    pub server: Arc<ServerOrigin>,
    /// The role, for a session that was open before the agent: from the server's process title.
    pub user: Option<String>,
    /// The database, for a session that was open before the agent: from the server's process title.
    pub database: Option<String>,
    /// Whether the session was open before the agent saw it: its beginning is not in the record.
    pub partial: bool,
    /// Whether the server was seen to wait for the client's next request before anything was read: only of a
    /// session that was open before the agent. Its first request is then known to begin a message.
    pub idle: bool,
}

/// What the system knows of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerOrigin {
    /// The postmaster's process id, as the host sees it; 0 if it is not known.
    pub pid: u32,
    /// The port that it listens on, in its own network namespace.
    pub port: Option<u16>,
    /// Its version as its data directory tells it, such as `15`.
    pub version: Option<String>,
    /// The container that it runs in.
    pub container_id: Option<String>,
    /// The UID of its Kubernetes pod.
    pub pod_uid: Option<String>,
    /// The pod's name.
    pub pod: Option<String>,
    /// The pod's namespace.
    pub namespace: Option<String>,
}

/// What is known of a session so far. Fields fill up as the session proceeds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionInfo {
    /// What the system knew at the start.
    pub origin: Origin,
    /// The role that the client asked for.
    pub user: Option<Arc<str>>,
    /// The database that the client asked for; PostgreSQL's default is the role's name.
    pub database: Option<Arc<str>>,
    /// The current `application_name`.
    pub application_name: Option<Arc<str>>,
    /// `trust`, `password`, `md5`, `scram-sha-256`, `gss`, `sspi`, or the SASL mechanism's own name.
    pub auth_method: Option<Arc<str>>,
    /// The server's version, from ParameterStatus where it was sent.
    pub server_version: Option<Arc<str>>,
    /// The current `client_encoding`, to decode text with.
    pub client_encoding: super::value::Encoding,
    /// The current `standard_conforming_strings`.
    pub standard_conforming_strings: bool,
    /// Whether TLS encrypts the session's bytes.
    pub tls: bool,
    /// Whether GSSAPI does.
    pub gss_encrypted: bool,
    /// The version of TLS, such as `TLSv1.3`, if the handshake was seen.
    pub tls_version: Option<Arc<str>>,
    /// The cipher suite, as OpenSSL names it, if the handshake was seen.
    pub tls_cipher: Option<Arc<str>>,
}

/// How a statement reached the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// In a Query message.
    Simple,
    /// Through Parse, Bind and Execute.
    Extended,
    /// In a FunctionCall message.
    Function,
    /// A statement that moved rows with COPY, by either protocol.
    Copy,
    /// A command of a replication session.
    Replication,
}

impl Protocol {
    /// As `statements.protocol` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Function => "function",
            Self::Copy => "copy",
            Self::Replication => "replication",
        }
    }
}

/// What became of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// CommandComplete, EmptyQueryResponse or FunctionCallResponse came.
    Completed,
    /// ErrorResponse came, other than for a cancel.
    Failed,
    /// The server never ran it: an earlier statement of the same query string or pipeline failed.
    Skipped,
    /// PortalSuspended came: the row limit of this Execute was reached.
    Suspended,
    /// ErrorResponse with SQLSTATE 57014 (`query_canceled`) came.
    Canceled,
    /// The session, or the agent, ended before the reply did.
    InFlight,
    /// A gap swallowed the end of the reply.
    Unknown,
}

impl Status {
    /// As `statements.status` has it, unless a guardrail stopped the statement.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Suspended => "suspended",
            Self::Canceled => "canceled",
            Self::InFlight => "in_flight",
            Self::Unknown => "unknown",
        }
    }
}

/// One executed statement: a statement of a Query message, one Execute, or one FunctionCall.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exchange {
    /// 0-based number of the statement in its session.
    pub seq: u64,
    /// When the server received the message that runs it, or finished the statement before it in the same
    /// query string.
    pub started_at: Micros,
    /// From `started_at` to the end of the reply; none while it is not known.
    pub duration_us: Option<i64>,
    /// From `started_at` to the first row.
    pub first_row_us: Option<i64>,
    /// How it reached the server.
    pub protocol: Protocol,
    /// Its text, decoded to UTF-8; none if it was prepared where the record does not reach.
    #[serde(serialize_with = "clipped::text")]
    pub sql: Option<Arc<str>>,
    /// The prepared statement's name; empty for the unnamed one, none for other protocols.
    pub statement_name: Option<Arc<str>>,
    /// Its parameters, in order.
    #[serde(serialize_with = "clipped::params")]
    pub params: Vec<Param>,
    /// The bytes that `params` point into: a Bind or FunctionCall body, as captured.
    #[serde(serialize_with = "clipped::bytes", deserialize_with = "serde_bytes::deserialize")]
    pub params_body: Vec<u8>,
    /// The columns of its result, as far as the server described them.
    pub columns: Option<Arc<[Column]>>,
    /// Rows returned, copied or affected: from the command tag, else counted; none if not known.
    pub rows: Option<u64>,
    /// CommandComplete's tag, such as `INSERT 0 1`.
    pub command_tag: Option<Tag>,
    /// What became of it.
    pub status: Status,
    /// SQLSTATE of the error that ended it.
    pub sqlstate: Option<SqlState>,
    /// Primary message of the error that ended it.
    pub error_message: Option<String>,
    /// Bytes of the client's messages that belong to it.
    pub bytes_in: u64,
    /// Bytes of the server's messages that belong to it.
    pub bytes_out: u64,
    /// Where its messages stand in the client's stream: first byte and one past the last. What ties a lost
    /// row of the record to its bytes.
    pub frontend_range: (u64, u64),
    /// Whether no gap touched it.
    pub complete: bool,
    /// Whether rows were left out of `results` by a limit.
    pub results_truncated: bool,
    /// Whether a parameter, or the text, was longer than what is kept of one message.
    pub params_truncated: bool,
    /// How many values of it were masked, in its text, parameters, rows and error: 0 until it is recorded.
    pub masked: u32,
    /// What was decided about it before it ran; none if no guardrail was asked.
    pub judged: Option<Arc<Judged>>,
}

/// CommandComplete's tag. The server's own tags fit in 64 bytes (`COMPLETION_TAG_BUFSIZE` in
/// `src/include/tcop/cmdtag.h`); a longer one is cut off. Statements that end alike share it.
#[derive(Clone, PartialEq, Eq)]
pub struct Tag(Arc<str>);

impl Tag {
    const CAPACITY: usize = 64;
}

impl Serialize for Tag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&str>::deserialize(deserializer).map(Self::from)
    }
}

impl From<&str> for Tag {
    fn from(text: &str) -> Self {
        Self(text.get(..text.floor_char_boundary(Self::CAPACITY)).unwrap_or(text).into())
    }
}

impl std::ops::Deref for Tag {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&**self, f)
    }
}

impl std::fmt::Display for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self)
    }
}

/// An SQLSTATE: five digits and upper-case letters
/// ([Error Codes](https://www.postgresql.org/docs/current/errcodes-appendix.html)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// From its text; none if that is no SQLSTATE.
    pub fn new(text: &[u8]) -> Option<Self> {
        let code: [u8; 5] = text.try_into().ok()?;
        code.iter().all(u8::is_ascii_alphanumeric).then_some(Self(code))
    }
}

impl std::ops::Deref for SqlState {
    type Target = str;

    fn deref(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Debug for SqlState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&**self, f)
    }
}

impl std::fmt::Display for SqlState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self)
    }
}

/// One parameter of an [`Exchange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    /// The type's OID in `pg_type`; 0 if neither side said it.
    pub type_oid: u32,
    /// 0 text, 1 binary.
    pub format: i16,
    /// Where its value stands in [`Exchange::params_body`], start and end; none for NULL.
    pub value: Option<(u32, u32)>,
}

/// One column of a result, from RowDescription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The column's name or alias.
    pub name: Arc<str>,
    /// The type's OID in `pg_type`.
    pub type_oid: u32,
    /// The table's OID in `pg_class`; 0 if the column is not a plain table column.
    pub table_oid: u32,
    /// The column's number in the table; 0 if it is not a plain table column.
    pub attnum: i16,
    /// 0 text, 1 binary: as the values of this execution are sent.
    pub format: i16,
}

/// A stretch of one direction's stream that is not in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Which stream.
    pub direction: Direction,
    /// Position of the first missing byte.
    pub offset: u64,
    /// How many bytes are missing.
    pub length: u64,
    /// When the agent learned of it.
    pub at: Micros,
    /// Why.
    pub reason: GapReason,
}

/// Why bytes are not in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GapReason {
    /// The ring between kernel and agent was full.
    RingFull,
    /// The server's memory could not be read.
    Unreadable,
    /// One system call moved more than is captured of one call.
    Oversize,
    /// Captured, but before the first point after a gap where a message provably begins.
    Resync,
    /// Captured, but not understood: the bytes break the protocol.
    ProtocolError,
    /// Captured, but encrypted.
    Encrypted,
    /// The agent's own stop fell into it, or no agent ran and nothing captured in its place.
    AgentStopped,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// The client sent Terminate.
    Terminate,
    /// The connection carried a CancelRequest only.
    CancelRequest,
    /// The server ended it with a FATAL error; the SQLSTATE.
    Fatal(String),
    /// The client went away without Terminate.
    Disconnected,
    /// The backend was killed by a signal; its number.
    Signal(u8),
    /// The session is still open: the agent stops.
    AgentStopped,
}

/// A session's totals, when it ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionEnd {
    /// When it ended; none if it is still open.
    pub ended_at: Option<Micros>,
    /// Why it ended.
    pub reason: EndReason,
    /// Statements recorded.
    pub statements: u64,
    /// ErrorResponses seen.
    pub errors: u64,
    /// Bytes of the client's stream that are in the record.
    pub bytes_in: u64,
    /// Bytes of the server's stream that are in the record.
    pub bytes_out: u64,
    /// Bytes of both streams that are not: the sum of the session's gaps. `bytes_in + bytes_out + gap_bytes`
    /// is what the kernel counted: on the socket, or, where encryption could be read, in front of it.
    pub gap_bytes: u64,
    /// Bytes that the kernel counted on the socket, from the client.
    pub socket_bytes_in: u64,
    /// Bytes that the kernel counted on the socket, to the client.
    pub socket_bytes_out: u64,
    /// The first violation of the protocol, in words, if there was one.
    pub protocol_error: Option<String>,
}

/// Where everything that a session says goes. Calls of one session come in order; nothing may block for long.
pub trait Sink {
    /// A row of a result. Comes before the statement that it belongs to.
    fn row(&mut self, session: &SessionInfo, row: RowValues<'_>);
    /// Rows of a result that follow each other: the same as each of them by itself.
    fn rows(&mut self, session: &SessionInfo, run: RowRun<'_>) {
        run.each(|row| self.row(session, row));
    }
    /// A statement ended, one way or another.
    fn statement(&mut self, session: &SessionInfo, exchange: &Exchange);
    /// Bytes are missing from the record.
    fn gap(&mut self, session: &SessionInfo, gap: &Gap);
    /// The session ended, or the agent stops while it is open.
    fn end(&mut self, session: &SessionInfo, end: &SessionEnd);
}
