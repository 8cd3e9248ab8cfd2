//! Support for tests: messages as bytes, conversations as lists of system calls, and a sink that remembers.

use std::sync::Arc;

use super::*;

/// A message: tag, length, body.
pub(crate) fn message(tag: u8, body: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![tag, 0, 0, 0, 0];
    bytes.extend(body.concat());
    let length = u32::try_from(bytes.len() - 1).unwrap();
    bytes[1..5].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// A string with its terminating zero.
pub(crate) fn z(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// A count and as many parts.
fn counted(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = u16::try_from(parts.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(parts.concat());
    bytes
}

fn codes(codes: &[i16]) -> Vec<u8> {
    counted(&codes.iter().map(|code| code.to_be_bytes().to_vec()).collect::<Vec<_>>())
}

fn value(value: Option<&[u8]>) -> Vec<u8> {
    match value {
        Some(bytes) => [&i32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat(),
        None => (-1_i32).to_be_bytes().to_vec(),
    }
}

pub(crate) fn startup(options: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 0x0003_0000_u32.to_be_bytes().to_vec();
    for (name, value) in options {
        body.extend([z(name), z(value)].concat());
    }
    body.push(0);
    packet(&body)
}

/// A packet without a tag.
pub(crate) fn packet(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
}

pub(crate) fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[&z(text)])
}

pub(crate) fn parse(name: &str, text: &str, types: &[u32]) -> Vec<u8> {
    let types = counted(&types.iter().map(|oid| oid.to_be_bytes().to_vec()).collect::<Vec<_>>());
    message(b'P', &[&z(name), &z(text), &types])
}

pub(crate) fn bind(portal: &str, statement: &str, params: &[Option<&[u8]>]) -> Vec<u8> {
    bind_with(portal, statement, &[], params, &[])
}

pub(crate) fn bind_with(
    portal: &str,
    statement: &str,
    formats: &[i16],
    params: &[Option<&[u8]>],
    results: &[i16],
) -> Vec<u8> {
    let params = counted(&params.iter().map(|param| value(*param)).collect::<Vec<_>>());
    message(b'B', &[&z(portal), &z(statement), &codes(formats), &params, &codes(results)])
}

pub(crate) fn describe(kind: u8, name: &str) -> Vec<u8> {
    message(b'D', &[&[kind], &z(name)])
}

pub(crate) fn close(kind: u8, name: &str) -> Vec<u8> {
    message(b'C', &[&[kind], &z(name)])
}

pub(crate) fn execute(portal: &str, rows: i32) -> Vec<u8> {
    message(b'E', &[&z(portal), &rows.to_be_bytes()])
}

pub(crate) fn sync() -> Vec<u8> {
    message(b'S', &[])
}

pub(crate) fn flush() -> Vec<u8> {
    message(b'H', &[])
}

pub(crate) fn copy_data(data: &[u8]) -> Vec<u8> {
    message(b'd', &[data])
}

pub(crate) fn copy_done() -> Vec<u8> {
    message(b'c', &[])
}

pub(crate) fn function_call(oid: u32, args: &[Option<&[u8]>]) -> Vec<u8> {
    let args = counted(&args.iter().map(|arg| value(*arg)).collect::<Vec<_>>());
    message(b'F', &[&oid.to_be_bytes(), &codes(&[]), &args, &1_i16.to_be_bytes()])
}

pub(crate) fn auth(kind: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes(), rest])
}

pub(crate) fn setting(name: &str, value: &str) -> Vec<u8> {
    message(b'S', &[&z(name), &z(value)])
}

pub(crate) fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[&[status]])
}

/// Columns by name and type.
pub(crate) fn columns(columns: &[(&str, u32)]) -> Vec<u8> {
    let fields = columns.iter().map(|(name, oid)| {
        [&z(name)[..], &[0; 4], &[0; 2], &oid.to_be_bytes(), &[0, 4], &[0xff; 4], &[0; 2]].concat()
    });
    message(b'T', &[&counted(&fields.collect::<Vec<_>>())])
}

pub(crate) fn parameters(types: &[u32]) -> Vec<u8> {
    message(b't', &[&counted(&types.iter().map(|oid| oid.to_be_bytes().to_vec()).collect::<Vec<_>>())])
}

pub(crate) fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
    message(b'D', &[&counted(&values.iter().map(|field| value(*field)).collect::<Vec<_>>())])
}

pub(crate) fn done(tag: &str) -> Vec<u8> {
    message(b'C', &[&z(tag)])
}

pub(crate) fn empty(tag: u8) -> Vec<u8> {
    message(tag, &[])
}

pub(crate) fn error(severity: &str, code: &str, text: &str) -> Vec<u8> {
    error_in(severity, code, text, "execMain.c")
}

pub(crate) fn error_in(severity: &str, code: &str, text: &str, file: &str) -> Vec<u8> {
    let fields = [('S', severity), ('V', severity), ('C', code), ('M', text), ('F', file)];
    let mut body = Vec::new();
    for (kind, value) in fields {
        body.push(kind as u8);
        body.extend(z(value));
    }
    body.push(0);
    message(b'E', &[&body])
}

pub(crate) fn copy_response(tag: u8, binary: bool, columns: usize) -> Vec<u8> {
    message(tag, &[&[u8::from(binary)], &codes(&vec![i16::from(binary); columns])])
}

/// A system call of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) direction: Direction,
    pub(crate) bytes: Vec<u8>,
}

/// What a client and a server said, as the backend's system calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Talk(pub(crate) Vec<Call>);

impl Talk {
    /// A session that got as far as ReadyForQuery.
    pub(crate) fn started() -> Self {
        Self::default()
            .client(&[startup(&[("user", "ann"), ("database", "shop"), ("application_name", "till")])])
            .server(&[
                auth(0, &[]),
                setting("server_version", "15.18"),
                setting("client_encoding", "UTF8"),
                message(b'K', &[&[0, 0, 16, 0, 1, 2, 3, 4]]),
                ready(b'I'),
            ])
    }

    /// The server receives messages.
    pub(crate) fn client(mut self, messages: &[Vec<u8>]) -> Self {
        self.0.push(Call { direction: Direction::Frontend, bytes: messages.concat() });
        self
    }

    /// The server sends messages.
    pub(crate) fn server(mut self, messages: &[Vec<u8>]) -> Self {
        self.0.push(Call { direction: Direction::Backend, bytes: messages.concat() });
        self
    }

    /// What was sent, call by call.
    pub(crate) fn calls(&self) -> Vec<(Direction, Vec<u8>)> {
        self.0.iter().map(|call| (call.direction, call.bytes.clone())).collect()
    }

    /// Length of both streams.
    pub(crate) fn ends(&self) -> [u64; 2] {
        let mut ends = [0; 2];
        for call in &self.0 {
            ends[call.direction as usize] += call.bytes.len() as u64;
        }
        ends
    }

    /// Plays it to a new session, one event per call, and ends the session.
    pub(crate) fn record(&self) -> Recorder {
        self.record_with(origin(), Limits::default())
    }

    pub(crate) fn record_with(&self, origin: Origin, limits: Limits) -> Recorder {
        let mut recorder = Recorder::default();
        let session = self.play(origin, limits, &mut recorder);
        session.close(self.closing(0), &mut recorder);
        recorder
    }

    pub(crate) fn closing(&self, exit_status: u32) -> Close {
        let at = Micros(1_000 + self.0.len() as i64);
        Close { ends: self.ends(), socket: self.ends(), losses: [None; 2], exit_status, at }
    }

    pub(crate) fn play(&self, origin: Origin, limits: Limits, recorder: &mut Recorder) -> Session {
        let mut session = Session::new(origin, limits);
        let mut offsets = [0; 2];
        for (index, call) in self.0.iter().enumerate() {
            let offset = &mut offsets[call.direction as usize];
            let data = Data {
                direction: call.direction,
                offset: *offset,
                bytes: &call.bytes,
                loss: None,
                end_of_call: true,
                plaintext: false,
                at: Micros(1_000 + index as i64),
            };
            session.data(data, recorder);
            *offset += call.bytes.len() as u64;
        }
        session
    }
}

pub(crate) fn origin() -> Origin {
    Origin {
        id: SessionId(uuid::Uuid::nil()),
        started_at: Micros(0),
        transport: Transport::Unix,
        client_addr: None,
        client_port: None,
        backend_pid: 4096,
        peer_pid: None,
        peer_exe: None,
        host_pid: 4242,
        server: Arc::default(),
        user: None,
        database: None,
        partial: false,
        idle: false,
    }
}

/// A row as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) seq: u64,
    pub(crate) row: u64,
    pub(crate) columns: Vec<String>,
    pub(crate) values: Vec<Option<Vec<u8>>>,
}

/// Remembers everything that a session says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) rows: Vec<Row>,
    pub(crate) statements: Vec<Exchange>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) end: Option<SessionEnd>,
    pub(crate) info: Option<SessionInfo>,
    /// Every call in order, as text.
    pub(crate) log: Vec<String>,
}

impl Recorder {
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.statements.iter().map(|row| row.sql.as_deref().unwrap_or("?")).collect()
    }

    pub(crate) fn statuses(&self) -> Vec<Status> {
        self.statements.iter().map(|row| row.status).collect()
    }

    pub(crate) fn params(&self, statement: usize) -> Vec<Option<&[u8]>> {
        let row = &self.statements[statement];
        let place = |(start, end): (u32, u32)| &row.params_body[start as usize..end as usize];
        row.params.iter().map(|param| param.value.map(place)).collect()
    }

    pub(crate) fn end(&self) -> &SessionEnd {
        self.end.as_ref().unwrap()
    }

    pub(crate) fn info(&self) -> &SessionInfo {
        self.info.as_ref().unwrap()
    }
}

impl Sink for Recorder {
    fn row(&mut self, _session: &SessionInfo, row: RowValues<'_>) {
        let values = match row.values {
            Values::DataRow(body) => split(body),
            Values::Fields { fields, .. } => fields.iter().map(|field| field.map(<[u8]>::to_vec)).collect(),
        };
        let columns = row.columns.iter().map(|column| column.name.to_string()).collect();
        let row = Row { seq: row.seq, row: row.row, columns, values };
        self.log.push(format!("{row:?}"));
        self.rows.push(row);
    }

    fn statement(&mut self, _session: &SessionInfo, exchange: &Exchange) {
        self.log.push(format!("{exchange:?}"));
        self.statements.push(exchange.clone());
    }

    fn gap(&mut self, _session: &SessionInfo, gap: &Gap) {
        self.log.push(format!("{gap:?}"));
        self.gaps.push(*gap);
    }

    fn end(&mut self, session: &SessionInfo, end: &SessionEnd) {
        self.log.push(format!("{end:?}"));
        self.end = Some(end.clone());
        self.info = Some(session.clone());
    }
}

/// The values of a DataRow, as far as they are there: the server may be any bytes in a test.
fn split(body: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut rest = body.get(2..).unwrap_or_default();
    let mut values = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        let (value, after) = after.split_at(length.unwrap_or(0).min(after.len()));
        values.push(length.map(|_| value.to_vec()));
        rest = after;
    }
    values
}

/// Text as a value.
pub(crate) fn t(text: &str) -> Option<&[u8]> {
    Some(text.as_bytes())
}

/// The text of a shared string.
pub(crate) fn text(value: &Option<Arc<str>>) -> Option<&str> {
    value.as_deref()
}
