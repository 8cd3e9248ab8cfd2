//! What clients and servers said to each other, kept by `record.py`, and a session that hears it: shared by the benchmarks.
#![allow(dead_code, reason = "each benchmark uses its own part of it")]

pub(crate) mod work;

use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use capture_agent::record::journal::SEGMENT_BYTES;
use capture_agent::record::{Keys, Settings};
use capture_agent::session::value::Encoding;
use capture_agent::session::{
    Data, Direction, Exchange, Gap, Limits, Micros, Origin, RowValues, Session, SessionEnd, SessionId,
    SessionInfo, Sink, Transport,
};

/// 2026-07-25T10:00:00Z.
pub(crate) const MORNING: i64 = 1_784_973_600_000_000;

/// A system call of the backend: it received, or sent.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) direction: Direction,
    pub(crate) bytes: Vec<u8>,
}

/// A session as a real client and PostgreSQL 15 led it, without its end.
pub(crate) struct Recording {
    /// Up to the point from which on it can be told again and again.
    pub(crate) login: Vec<Call>,
    /// The rest.
    pub(crate) talk: Vec<Call>,
}

impl Recording {
    /// `pgbench -S -M prepared -t 256`: 256 executions, with a row each. The statement is prepared within `login`.
    pub(crate) fn prepared() -> Self {
        let recording = Self::read(include_bytes!("prepared.calls"), 2);
        assert_eq!(recording.talk.len(), 512, "requests and replies alternate");
        recording
    }

    /// `pgbench -M simple -t 20`: twenty transactions of seven statements.
    pub(crate) fn simple() -> Self {
        Self::read(include_bytes!("simple.calls"), 1)
    }

    /// `psql -c SELECT`: 250 rows of six columns, one of them often NULL.
    pub(crate) fn rows() -> Self {
        Self::read(include_bytes!("rows.calls"), 1)
    }

    /// `psql -c 'COPY orders FROM stdin'`: 400 such rows.
    pub(crate) fn copy_in() -> Self {
        Self::read(include_bytes!("copy_in.calls"), 1)
    }

    /// `psql -c 'COPY orders TO stdout'`: the same rows.
    pub(crate) fn copy_out() -> Self {
        Self::read(include_bytes!("copy_out.calls"), 1)
    }

    /// What `record.py` wrote, of which so many ReadyForQuery belong to `login`.
    fn read(mut file: &[u8], ready: usize) -> Self {
        let mut calls = Vec::new();
        while let [speaker, low, high, rest @ ..] = file {
            let (bytes, rest) = rest.split_at(u16::from_le_bytes([*low, *high]).into());
            let direction = if *speaker == 0 { Direction::Frontend } else { Direction::Backend };
            calls.push(Call { direction, bytes: bytes.to_vec() });
            file = rest;
        }
        let ends = |call: &Call| call.bytes.ends_with(b"Z\0\0\0\x05I");
        let at = calls.iter().enumerate().filter(|(_, call)| ends(call)).nth(ready - 1).unwrap().0;
        let talk = calls.drain(at + 1..).filter(|call| call.bytes != b"X\0\0\0\x04").collect();
        Self { login: calls, talk }
    }

    /// How many bytes `talk` has.
    pub(crate) fn bytes(&self) -> u64 {
        self.talk.iter().map(|call| call.bytes.len() as u64).sum()
    }
}

/// A session, and how far its streams have come.
pub(crate) struct Client {
    pub(crate) session: Session,
    ends: [u64; 2],
}

impl Client {
    /// The `n`-th session, which has heard its login.
    pub(crate) fn connect(n: u64, recording: &Recording, sink: &mut impl Sink) -> Self {
        let mut client = Self { session: Session::new(origin(n), Limits::default()), ends: [0; 2] };
        for call in &recording.login {
            client.hear(call, Micros(MORNING), sink);
        }
        client
    }

    /// The backend's next call.
    pub(crate) fn hear(&mut self, call: &Call, at: Micros, sink: &mut impl Sink) {
        let Call { direction, bytes } = call;
        let end = &mut self.ends[usize::from(*direction == Direction::Backend)];
        let offset = *end;
        *end += bytes.len() as u64;
        let data = Data {
            direction: *direction,
            offset,
            bytes,
            loss: None,
            end_of_call: true,
            plaintext: false,
            at,
        };
        self.session.data(data, sink);
    }
}

/// Takes everything and keeps how many statements and rows it was; but all of it has to be there.
#[derive(Default)]
pub(crate) struct Discard {
    pub(crate) statements: u64,
    pub(crate) rows: u64,
}

impl Sink for Discard {
    fn row(&mut self, session: &SessionInfo, row: RowValues<'_>) {
        black_box((session, row));
        self.rows += 1;
    }

    fn statement(&mut self, session: &SessionInfo, exchange: &Exchange) {
        black_box((session, exchange));
        self.statements += 1;
    }

    fn gap(&mut self, _: &SessionInfo, gap: &Gap) {
        panic!("a recording has no {gap:?}");
    }

    fn end(&mut self, _: &SessionInfo, _: &SessionEnd) {}
}

/// A session that came over TCP.
pub(crate) fn origin(n: u64) -> Origin {
    Origin {
        id: SessionId(uuid::Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0000 | u128::from(n))),
        started_at: Micros(MORNING),
        transport: Transport::Tcp,
        client_addr: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        client_port: Some(50_000),
        backend_pid: 4_242,
        peer_pid: None,
        peer_exe: None,
        host_pid: 4_242,
        server: Arc::default(),
        user: None,
        database: None,
        partial: false,
        idle: false,
    }
}

/// The same, of which is known what it said of itself.
pub(crate) fn session(n: u64) -> SessionInfo {
    SessionInfo {
        origin: origin(n),
        user: Some("alice".into()),
        database: Some("shop".into()),
        application_name: Some("pgbench".into()),
        auth_method: None,
        server_version: Some("15.18".into()),
        client_encoding: Encoding::default(),
        standard_conforming_strings: true,
        tls: false,
        gss_encrypted: false,
        tls_version: None,
        tls_cipher: None,
    }
}

/// The agent's own, but for the age of files.
pub(crate) fn settings(data_dir: &Path) -> Settings {
    Settings {
        data_dir: data_dir.to_owned(),
        node: "bench".to_owned(),
        rotate_age: Duration::from_secs(10),
        rotate_size: 64 << 20,
        journal_sync: Some(Duration::from_secs(1)),
        segment_bytes: SEGMENT_BYTES,
        seal_key: None,
        anchor: None,
        keys: Keys::default(),
    }
}

/// Nanoseconds that this thread has run.
pub(crate) fn processor_time() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
