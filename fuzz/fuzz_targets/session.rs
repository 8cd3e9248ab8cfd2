//! Whatever two sides say, and whatever of it is lost: a session never panics, every byte is accounted for, and
//! the record does not depend on how the bytes were cut into events.
//!
//! Input: calls. Each is a byte of choices (bit 0 the server sent, else the client; bit 1 the call was lost), a
//! length of 16 bits, and its bytes.
#![no_main]

use std::fmt::Write as _;

use capture_agent::session::{
    Close, Data, Direction, Exchange, Gap, Limits, Micros, Origin, RowValues, Session, SessionEnd, SessionId,
    SessionInfo, Sink, Transport,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let calls = calls(input);
    let whole = record(&calls, usize::MAX);
    let pieces = record(&calls, 7);
    assert_eq!(whole, pieces, "the record depends on the pieces");
});

struct Call<'a> {
    direction: Direction,
    lost: bool,
    bytes: &'a [u8],
}

fn calls(mut input: &[u8]) -> Vec<Call<'_>> {
    let mut calls = Vec::new();
    while let [choices, low, high, rest @ ..] = input {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        let direction = if choices & 1 == 0 { Direction::Frontend } else { Direction::Backend };
        calls.push(Call { direction, lost: choices & 2 != 0, bytes });
        input = rest;
    }
    calls
}

fn record(calls: &[Call<'_>], piece: usize) -> String {
    let mut said = Said::default();
    let mut session = Session::new(origin(), Limits::default());
    let mut ends = [0u64; 2];
    for (number, call) in calls.iter().enumerate() {
        let end = &mut ends[usize::from(call.direction == Direction::Backend)];
        let at = Micros(number as i64);
        let pieces = call.bytes.chunks(piece.min(call.bytes.len().max(1)));
        let last = pieces.len();
        for (index, bytes) in pieces.enumerate() {
            let offset = *end;
            *end += bytes.len() as u64;
            if !call.lost {
                let end_of_call = index + 1 == last;
                let data = Data { direction: call.direction, offset, bytes, loss: None, end_of_call, plaintext: false, at };
                session.data(data, &mut said);
            }
        }
    }
    let at = Micros(calls.len() as i64);
    session.close(Close { ends, socket: ends, losses: [None; 2], exit_status: 0, at }, &mut said);
    assert_eq!(said.counted, ends[0] + ends[1], "captured and declared are not what passed");
    assert_eq!(said.declared, said.gap_bytes, "the gaps do not add up");
    said.text
}

fn origin() -> Origin {
    Origin {
        id: SessionId(uuid::Uuid::nil()),
        started_at: Micros(0),
        transport: Transport::Unix,
        client_addr: None,
        client_port: None,
        backend_pid: 1,
        peer_pid: None,
        peer_exe: None,
        host_pid: 1,
        server: Default::default(),
        user: None,
        database: None,
        partial: false,
        idle: false,
    }
}

/// Everything that a session said, as text, and its sums.
#[derive(Default)]
struct Said {
    text: String,
    counted: u64,
    declared: u64,
    gap_bytes: u64,
}

impl Sink for Said {
    fn row(&mut self, _: &SessionInfo, row: RowValues<'_>) {
        let _ = writeln!(self.text, "{row:?}");
    }

    fn statement(&mut self, _: &SessionInfo, exchange: &Exchange) {
        let _ = writeln!(self.text, "{exchange:?}");
    }

    fn gap(&mut self, _: &SessionInfo, gap: &Gap) {
        self.declared += gap.length;
        let _ = writeln!(self.text, "{gap:?}");
    }

    fn end(&mut self, _: &SessionInfo, end: &SessionEnd) {
        self.counted = end.bytes_in + end.bytes_out + end.gap_bytes;
        self.gap_bytes = end.gap_bytes;
        let _ = writeln!(self.text, "{end:?}");
    }
}
