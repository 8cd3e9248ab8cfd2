//! What is measured: each piece of work passes over its recordings once, again and again, and says how many items that was.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use capture_agent::frames::{Decoder, Mode, Side, Step};
use capture_agent::record::{Recorder, Settings};
use capture_agent::session::{
    Column, Direction, Exchange, Gap, Micros, RowValues, SessionEnd, SessionInfo, Sink, Values,
};

use super::{Client, Discard, MORNING, Recording, session, settings};

/// Some work on recordings.
pub(crate) trait Work {
    /// Does it once, and yields how many items that was: always as many.
    fn pass(&mut self) -> u64;
}

/// Bytes to frames: both sides of what pgbench said, with both protocols, and a result of many rows.
pub(crate) struct Frames(Vec<Recording>);

impl Frames {
    pub(crate) fn new() -> Self {
        Self(vec![Recording::prepared(), Recording::simple(), Recording::rows()])
    }
}

impl Work for Frames {
    fn pass(&mut self) -> u64 {
        let mut frames = 0;
        for recording in &self.0 {
            let [mut frontend, mut backend] = [Side::Frontend, Side::Backend].map(Decoder::new);
            frontend.set_mode(Mode::Messages);
            for call in &recording.talk {
                let decoder = match call.direction {
                    Direction::Frontend => &mut frontend,
                    Direction::Backend => &mut backend,
                };
                let mut rest = &call.bytes[..];
                while let Step::Frame(frame) = decoder.next(&mut rest, |_, body| body as usize) {
                    black_box(frame.body());
                    frames += 1;
                }
            }
            assert_eq!([frontend.mode(), backend.mode()], [Mode::Messages; 2], "a recording is well formed");
        }
        frames
    }
}

/// Bytes to exchanges, which nobody wants.
pub(crate) struct Exchanges {
    recording: Recording,
    client: Client,
    sink: Discard,
    now: i64,
}

impl Exchanges {
    pub(crate) fn new(recording: Recording) -> Self {
        let mut sink = Discard::default();
        let client = Client::connect(0, &recording, &mut sink);
        Self { recording, client, sink, now: MORNING }
    }
}

impl Work for Exchanges {
    fn pass(&mut self) -> u64 {
        let before = self.sink.statements;
        for call in &self.recording.talk {
            self.now += 20;
            self.client.hear(call, Micros(self.now), &mut self.sink);
        }
        self.sink.statements - before
    }
}

/// The same of a COPY, whose items are bytes.
pub(crate) struct Copy(Exchanges);

impl Copy {
    pub(crate) fn new(recording: Recording) -> Self {
        Self(Exchanges::new(recording))
    }
}

impl Work for Copy {
    fn pass(&mut self) -> u64 {
        let rows = self.0.sink.rows;
        assert_eq!(self.0.pass(), 1, "one COPY");
        assert_eq!(self.0.sink.rows - rows, 400);
        self.0.recording.bytes()
    }
}

/// Rows to Arrow: values of a result to the recorder's columns, without a journal.
pub(crate) struct Rows {
    told: Told,
    record: Record,
    seq: u64,
}

/// The rows of a recording, as the session told of them.
struct Told {
    columns: Vec<Column>,
    rows: Vec<Vec<u8>>,
}

impl Rows {
    pub(crate) fn new() -> Self {
        let recording = Recording::rows();
        let mut told = Told { columns: Vec::new(), rows: Vec::new() };
        let mut client = Client::connect(0, &recording, &mut told);
        for call in &recording.talk {
            client.hear(call, Micros(MORNING), &mut told);
        }
        // No disk has this much to reserve, so the journal stays off.
        let record = Record::new(|data_dir| Settings { segment_bytes: 1 << 60, ..lasting(data_dir) });
        Self { told, record, seq: 0 }
    }
}

impl Work for Rows {
    fn pass(&mut self) -> u64 {
        let session = session(0);
        let recorder = self.record.recorder();
        for (row, values) in (0..).zip(&self.told.rows) {
            let row = RowValues {
                seq: self.seq,
                row,
                sql: None,
                started_at: Micros(MORNING),
                columns: &self.told.columns,
                values: Values::DataRow(values),
            };
            recorder.row(&session, row);
        }
        recorder.commit(self.seq);
        self.seq += 1;
        self.told.rows.len() as u64
    }
}

impl Sink for Told {
    fn row(&mut self, _: &SessionInfo, row: RowValues<'_>) {
        let Values::DataRow(values) = row.values else { return };
        self.columns = row.columns.to_vec();
        self.rows.push(values.to_vec());
    }

    fn statement(&mut self, _: &SessionInfo, _: &Exchange) {}

    fn gap(&mut self, _: &SessionInfo, _: &Gap) {}

    fn end(&mut self, _: &SessionInfo, _: &SessionEnd) {}
}

/// Everything that the capture thread does for a prepared statement, from its bytes to the recorder's columns, with
/// sessions that take turns and are saved and committed as the agent does.
pub(crate) struct Statements {
    recording: Recording,
    clients: Vec<Client>,
    record: Record,
    state: Vec<u8>,
    done: u64,
}

/// Sessions, and statements between two commits: what a busy server leaves in the ring between two looks at it.
const SESSIONS: u64 = 8;
const TRANSACTION: u64 = 400;

impl Statements {
    pub(crate) fn new() -> Self {
        let recording = Recording::prepared();
        let mut record = Record::new(lasting);
        let clients = (0..SESSIONS).map(|n| Client::connect(n, &recording, record.recorder())).collect();
        Self { recording, clients, record, state: Vec::new(), done: 0 }
    }
}

impl Work for Statements {
    fn pass(&mut self) -> u64 {
        let before = self.done;
        let recorder = self.record.recorder();
        for calls in self.recording.talk.chunks_exact(2) {
            for n in 0..self.clients.len() {
                let at = MORNING + i64::try_from(self.done).unwrap() * 20;
                self.clients[n].hear(&calls[0], Micros(at), recorder);
                self.clients[n].hear(&calls[1], Micros(at + 80), recorder);
                if self.done.is_multiple_of(TRANSACTION) {
                    for (key, client) in (0..).zip(&self.clients) {
                        self.state.clear();
                        client.session.save(&mut self.state);
                        recorder.save_state([key; 16], &self.state);
                    }
                    recorder.commit(self.done);
                }
                if self.done.is_multiple_of(4_096) {
                    recorder.tick(Micros(at));
                }
                self.done += 1;
            }
        }
        self.done - before
    }
}

/// A recorder whose files are completed at its end, and a folder that is removed then.
struct Record {
    recorder: Option<Recorder>,
    _folder: tempfile::TempDir,
}

impl Record {
    fn new(settings: impl FnOnce(&Path) -> Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (recorder, _) = Recorder::new(settings(folder.path())).unwrap();
        Self { recorder: Some(recorder), _folder: folder }
    }

    fn recorder(&mut self) -> &mut Recorder {
        self.recorder.as_mut().unwrap()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.recorder.take().unwrap().finish().unwrap();
    }
}

/// Files that do not end by their age: under valgrind everything takes fifty times as long.
fn lasting(data_dir: &Path) -> Settings {
    Settings { rotate_age: Duration::from_secs(3_600), ..settings(data_dir) }
}
