//! Encrypted sessions: what passes over the socket, and what passes in clear in front of it.

use crate::session::testing::*;
use crate::session::*;

const SSL: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

/// A session whose encryption is fed by hand: offsets of the streams and of the socket run on by themselves.
struct Tls {
    session: Session,
    recorder: Recorder,
    streams: [u64; 2],
    socket: [u64; 2],
}

impl Tls {
    fn new(origin: Origin) -> Self {
        let session = Session::new(origin, Limits::default());
        Self { session, recorder: Recorder::default(), streams: [0; 2], socket: [0; 2] }
    }

    fn socket(mut self, direction: Direction, bytes: &[u8]) -> Self {
        self.socket[direction as usize] += bytes.len() as u64;
        self.stream(direction, bytes, false)
    }

    fn sealed(mut self, direction: Direction, bytes: &[u8]) -> Self {
        self.session.sealed(direction, self.socket[direction as usize], bytes);
        self.socket[direction as usize] += bytes.len() as u64;
        self
    }

    /// A record of application data for it passes over the socket first, uncounted by anybody but the kernel.
    fn clear(mut self, direction: Direction, messages: &[Vec<u8>]) -> Self {
        let info = self.session.info();
        if info.origin.partial && !info.tls && !info.gss_encrypted {
            self.streams = [0; 2];
        }
        self.socket[direction as usize] += messages.concat().len() as u64 + 22;
        self.stream(direction, &messages.concat(), true)
    }

    fn lost(mut self, direction: Direction, length: u64) -> Self {
        self.streams[direction as usize] += length;
        self
    }

    fn stream(mut self, direction: Direction, bytes: &[u8], plaintext: bool) -> Self {
        let offset = self.streams[direction as usize];
        let (loss, end_of_call) = (None, true);
        let data = Data { direction, offset, bytes, loss, end_of_call, plaintext, at: Micros(1) };
        self.session.data(data, &mut self.recorder);
        self.streams[direction as usize] += bytes.len() as u64;
        self
    }

    fn close(mut self) -> Recorder {
        let close = Close {
            ends: self.streams,
            socket: self.socket,
            losses: [None; 2],
            exit_status: 0,
            at: Micros(9),
        };
        self.session.close(close, &mut self.recorder);
        let end = self.recorder.end();
        assert_eq!(self.recorder.gaps.iter().map(|gap| gap.length).sum::<u64>(), end.gap_bytes);
        assert_eq!([end.socket_bytes_in, end.socket_bytes_out], self.socket);
        self.recorder
    }

    fn handshake(self) -> Self {
        self.sealed(Direction::Frontend, &record(22, 300))
            .sealed(Direction::Backend, &record(22, 90))
            .sealed(Direction::Backend, &record(23, 1200))
            .sealed(Direction::Frontend, &record(23, 53))
    }

    fn login(self) -> Self {
        self.clear(Direction::Frontend, &[startup(&[("user", "ann")])])
            .clear(Direction::Backend, &[auth(0, &[]), ready(b'I')])
    }

    fn select(self) -> Self {
        self.clear(Direction::Frontend, &[query("SELECT 1")]).clear(
            Direction::Backend,
            &[columns(&[("a", 23)]), row(&[t("1")]), done("SELECT 1"), ready(b'I')],
        )
    }
}

fn record(content: u8, length: u16) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    [vec![content, 3, 3, high, low], vec![0; usize::from(length)]].concat()
}

#[test]
fn the_plaintext_of_a_tls_session_is_its_stream() {
    let recorder = Tls::new(origin())
        .socket(Direction::Frontend, &SSL)
        .socket(Direction::Backend, b"S")
        .handshake()
        .login()
        .select()
        .close();
    assert_eq!(recorder.texts(), ["SELECT 1"]);
    assert!(recorder.info().tls && recorder.statements[0].complete);
    assert_eq!(text(&recorder.info().user), Some("ann"));
    let end = recorder.end();
    assert_eq!((end.gap_bytes, end.protocol_error.as_deref()), (0, None));
    let frontend = 8 + startup(&[("user", "ann")]).len() + query("SELECT 1").len();
    assert_eq!(end.bytes_in, frontend as u64);
}

#[test]
fn gss_encrypts_like_tls_and_is_not_taken_for_it() {
    let established = |login: bool| {
        let tls = Tls::new(origin())
            .socket(Direction::Frontend, &GSS)
            .socket(Direction::Backend, b"G")
            .sealed(Direction::Frontend, &[&[0, 0, 0, 90][..], &[0x60; 90]].concat())
            .sealed(Direction::Backend, &[&[0, 0, 0, 50][..], &[0x60; 50]].concat());
        if login { tls.login().select() } else { tls }.close()
    };
    let recorder = established(true);
    assert_eq!(recorder.texts(), ["SELECT 1"]);
    let info = recorder.info();
    assert!(info.gss_encrypted && !info.tls && info.tls_version.is_none());
    assert_eq!((text(&info.auth_method), recorder.end().gap_bytes), (Some("gss"), 0));
    // Without its plaintext, all that passed is missing.
    let unread = established(false);
    let end = unread.end();
    assert_eq!(end.bytes_in + end.bytes_out + end.gap_bytes, end.socket_bytes_in + end.socket_bytes_out);
}

#[test]
fn an_open_session_is_known_to_be_gss_by_its_first_plaintext() {
    let origin = Origin { partial: true, idle: true, ..origin() };
    let mut gss = Tls::new(origin).socket(Direction::Frontend, &[0, 0, 0, 60]);
    gss.session.by_gss();
    gss.streams = [0; 2];
    let recorder = gss.select().close();
    assert_eq!((recorder.texts(), recorder.gaps.len()), (vec!["SELECT 1"], 0));
    assert!(recorder.info().gss_encrypted && !recorder.info().tls);
}

#[test]
fn direct_negotiation_begins_in_the_handshake() {
    let recorder = Tls::new(origin()).handshake().login().select().close();
    assert_eq!(recorder.texts(), ["SELECT 1"]);
    assert!(recorder.info().tls);
    assert_eq!(recorder.end().gap_bytes, 0);
}

#[test]
fn data_of_which_no_plaintext_comes_is_a_gap_as_long_as_on_the_socket() {
    let recorder = Tls::new(origin())
        .socket(Direction::Frontend, &SSL)
        .socket(Direction::Backend, b"S")
        .handshake()
        .sealed(Direction::Frontend, &record(23, 90))
        .close();
    let gaps: Vec<_> = recorder.gaps.iter().map(|gap| (gap.direction, gap.offset, gap.reason)).collect();
    let encrypted = GapReason::Encrypted;
    assert_eq!(gaps, [(Direction::Frontend, 8, encrypted), (Direction::Backend, 1, encrypted)]);
    let end = recorder.end();
    let accounted = end.bytes_in + end.bytes_out + end.gap_bytes;
    assert_eq!(accounted, end.socket_bytes_in + end.socket_bytes_out);
}

#[test]
fn a_handshake_that_leads_nowhere_is_no_gap() {
    let recorder = Tls::new(origin())
        .socket(Direction::Frontend, &SSL)
        .socket(Direction::Backend, b"S")
        .sealed(Direction::Frontend, &record(22, 300))
        .sealed(Direction::Backend, &record(22, 2000))
        .sealed(Direction::Frontend, &record(21, 2))
        .close();
    assert!(recorder.info().tls);
    assert_eq!((recorder.gaps.len(), recorder.end().bytes_in, recorder.end().bytes_out), (0, 8, 1));
}

#[test]
fn an_open_session_that_waits_is_read_from_its_first_plaintext_on() {
    let origin = Origin { partial: true, idle: true, ..origin() };
    let recorder = Tls::new(origin)
        .socket(Direction::Frontend, &record(23, 40)[..5])
        .socket(Direction::Frontend, &record(23, 40)[5..])
        .select()
        .close();
    assert_eq!((recorder.texts(), recorder.statements[0].complete), (vec!["SELECT 1"], true));
    assert!(recorder.info().tls);
    assert!(recorder.gaps.is_empty(), "{:?}", recorder.gaps);
    assert_eq!(recorder.end().bytes_in, query("SELECT 1").len() as u64);
}

#[test]
fn an_open_session_that_works_is_read_from_where_it_waits() {
    let origin = Origin { partial: true, idle: false, ..origin() };
    let recorder = Tls::new(origin)
        .socket(Direction::Backend, &record(23, 400))
        .clear(Direction::Backend, &[vec![7; 300], ready(b'I')])
        .select()
        .select()
        .close();
    assert_eq!(recorder.texts(), ["SELECT 1", "SELECT 1"]);
    assert_eq!(recorder.end().protocol_error, None);
}

#[test]
fn plaintext_that_is_lost_at_the_start_is_not_guessed_at() {
    let recorder = Tls::new(origin())
        .socket(Direction::Frontend, &SSL)
        .socket(Direction::Backend, b"S")
        .handshake()
        .lost(Direction::Frontend, 30)
        .clear(Direction::Backend, &[auth(0, &[]), ready(b'I')])
        .select()
        .select()
        .close();
    // The receive that shows the loss is not trusted, the next one is.
    assert_eq!(recorder.texts(), ["SELECT 1"]);
    let gap_bytes = 30 + query("SELECT 1").len() as u64;
    assert_eq!((recorder.end().gap_bytes, recorder.end().protocol_error.as_deref()), (gap_bytes, None));
}
