//! What a statement costs the capture thread: `cargo bench -p capture-agent --bench statement` prints nanoseconds of
//! processor time per prepared pgbench statement, from its bytes to the recorder's columns, with eight sessions that
//! are saved and committed as the agent does.
//!
//! A number as argument runs one round of so many statements: under `valgrind --tool=callgrind --separate-threads=yes`
//! it counts instructions, which no other load on the machine disturbs.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its result")]
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use capture_agent::record::journal::SEGMENT_BYTES;
use capture_agent::record::{Keys, Recorder, Settings};
use capture_agent::session::{Data, Direction, Limits, Micros, Origin, Session, SessionId, Transport};

const ROUNDS: usize = 5;
const STATEMENTS: u64 = 200_000;
/// Sessions, and statements between two commits: what a busy server leaves in the ring between two looks at it.
const SESSIONS: u64 = 8;
const TRANSACTION: u64 = 400;
/// Different requests of a session.
const REQUESTS: u64 = 256;
/// 2026-07-25T10:00:00Z.
const MORNING: i64 = 1_784_973_600_000_000;
const SQL: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = $1;\0";

fn main() {
    // Cargo passes `--bench`.
    if let Some(statements) = std::env::args().nth(1).and_then(|count| count.parse().ok()) {
        println!("{} ns per statement", round(statements));
        return;
    }
    let mut rounds: Vec<u64> = (0..ROUNDS).map(|_| round(STATEMENTS)).collect();
    rounds.sort_unstable();
    println!("{} ns per statement ({} to {})", rounds[ROUNDS / 2], rounds[0], rounds[ROUNDS - 1]);
}

/// Nanoseconds of this thread per statement.
fn round(statements: u64) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let (mut recorder, _) = Recorder::new(Settings {
        data_dir: folder.path().to_owned(),
        node: "bench".to_owned(),
        rotate_age: Duration::from_secs(10),
        rotate_size: 64 << 20,
        journal_sync: Some(Duration::from_secs(1)),
        segment_bytes: SEGMENT_BYTES,
        seal_key: None,
        anchor: None,
        keys: Keys::default(),
    })
    .unwrap();
    let mut clients: Vec<Client> = (0..SESSIONS).map(|n| Client::connect(n, &mut recorder)).collect();
    let mut state = Vec::new();
    let from = processor_time();
    for n in 0..statements {
        let at = Micros(MORNING + i64::try_from(n).unwrap() * 20);
        clients[(n % SESSIONS) as usize].select(n, at, &mut recorder);
        if n % TRANSACTION == 0 {
            for (key, client) in (0..).zip(&clients) {
                state.clear();
                client.session.save(&mut state);
                recorder.save_state([key; 16], &state);
            }
            recorder.commit(n);
        }
        if n % 4_096 == 0 {
            recorder.tick(at);
        }
    }
    let to = processor_time();
    recorder.finish().unwrap();
    (to - from) / statements
}

/// One session, how far its streams have come, and what it says again and again.
struct Client {
    session: Session,
    sent: u64,
    received: u64,
    requests: Vec<Vec<u8>>,
    reply: Vec<u8>,
}

impl Client {
    fn connect(n: u64, recorder: &mut Recorder) -> Self {
        let session = Session::new(origin(n), Limits::default());
        let requests = (0..REQUESTS).map(request).collect();
        let mut client = Self { session, sent: 0, received: 0, requests, reply: reply() };
        let at = Micros(MORNING);
        let options = b"user\0alice\0database\0shop\0application_name\0pgbench\0\0";
        let startup = [&196_608_u32.to_be_bytes(), &options[..]].concat();
        let length = u32::try_from(startup.len() + 4).unwrap().to_be_bytes();
        client.frontend(&[&length, &startup[..]].concat(), at, recorder);
        let mut hello = message(b'R', &0_u32.to_be_bytes());
        hello.extend(message(b'S', b"server_version\x0015.18\0"));
        hello.extend(message(b'K', &[0; 8]));
        hello.extend(message(b'Z', b"I"));
        client.backend(&hello, at, recorder);
        let parse = [b"P_0\0", SQL, &[0, 0]].concat();
        client.frontend(&[message(b'P', &parse), message(b'S', b"")].concat(), at, recorder);
        client.backend(&[message(b'1', b""), message(b'Z', b"I")].concat(), at, recorder);
        client
    }

    /// One execution, and its answer.
    fn select(&mut self, n: u64, at: Micros, recorder: &mut Recorder) {
        let request = &self.requests[(n / SESSIONS % REQUESTS) as usize];
        self.session.data(data(Direction::Frontend, self.sent, request, at), recorder);
        self.sent += request.len() as u64;
        let later = Micros(at.0 + 80);
        self.session.data(data(Direction::Backend, self.received, &self.reply, later), recorder);
        self.received += self.reply.len() as u64;
    }

    fn frontend(&mut self, bytes: &[u8], at: Micros, recorder: &mut Recorder) {
        self.session.data(data(Direction::Frontend, self.sent, bytes, at), recorder);
        self.sent += bytes.len() as u64;
    }

    fn backend(&mut self, bytes: &[u8], at: Micros, recorder: &mut Recorder) {
        self.session.data(data(Direction::Backend, self.received, bytes, at), recorder);
        self.received += bytes.len() as u64;
    }
}

/// An execution, as pgbench asks for it.
fn request(n: u64) -> Vec<u8> {
    let mut bind = b"\0P_0\0\0\0\0\x01\0\0\0\x06".to_vec();
    bind.extend(format!("{:06}", n * 7_919 % 1_000_000).as_bytes());
    bind.extend([0, 1, 0, 0]);
    [message(b'B', &bind), message(b'D', b"P\0"), message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat()
}

fn reply() -> Vec<u8> {
    let column = b"\0\x01abalance\0\0\0\x40\x0c\0\x03\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
    let messages = [
        message(b'2', b""),
        message(b'T', column),
        message(b'D', b"\0\x01\0\0\0\x01\x30"),
        message(b'C', b"SELECT 1\0"),
        message(b'Z', b"I"),
    ];
    messages.concat()
}

fn data(direction: Direction, offset: u64, bytes: &[u8], at: Micros) -> Data<'_> {
    Data { direction, offset, bytes, loss: None, end_of_call: true, plaintext: false, at }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], &length[..], body].concat()
}

fn origin(n: u64) -> Origin {
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

/// Nanoseconds that this thread has run.
fn processor_time() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
