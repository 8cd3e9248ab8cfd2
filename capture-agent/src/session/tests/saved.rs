//! A session saved and restored; that nothing is lost by it is a property in `pieces`.

use uuid::Uuid;

use crate::session::testing::*;
use crate::session::*;

/// In the middle of things: a named statement, a portal that waits, a COPY's worth of state, half a message.
fn midway() -> Session {
    let half = query("SELECT 'the rest never comes'");
    Talk::started()
        .client(&[parse("named", "SELECT $1::text", &[25]), bind("open", "named", &[t("value")])])
        .client(&[execute("open", 1), sync(), half[..9].to_vec()])
        .server(&[empty(b'1'), empty(b'2'), row(&[t("value")])])
        .play(Origin { id: SessionId(Uuid::nil()), ..origin() }, Limits::default(), &mut Recorder::default())
}

fn saved(session: &Session) -> (Vec<u8>, Vec<u8>) {
    let (mut state, mut prepared) = (Vec::new(), Vec::new());
    session.save(&mut state);
    session.save_prepared(&mut prepared);
    (state, prepared)
}

#[test]
fn another_layout_is_refused() {
    let (mut state, prepared) = saved(&midway());
    state[0] += 1;
    let refused = Session::restore(&state, &prepared, Limits::default()).unwrap_err();
    assert_eq!(refused.to_string(), "the session was saved in layout 8, this agent reads layout 7");
}

/// If this fails, a type that sessions are saved in has changed: raise `LAYOUT` in `saved.rs`, then these figures.
#[test]
fn the_layout_is_the_one_that_its_number_names() {
    let (state, prepared) = saved(&midway());
    let sum = |bytes: &[u8]| {
        bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()))
    };
    assert_eq!((state[0], state.len(), sum(&state)), (7, 376, 2_217_392_438));
    assert_eq!((prepared.len(), sum(&prepared)), (44, 1_571_373_191));
}

#[test]
fn no_secret_of_the_login_is_saved() {
    let mut password = message(b'p', &[b"a canary\0"]);
    password.truncate(password.len() - 2);
    let login = Talk::default().client(&[startup(&[("user", "ann")])]).server(&[auth(3, &[])]);
    let waiting =
        login.clone().client(&[password]).play(origin(), Limits::default(), &mut Recorder::default());
    let key = message(b'K', &[&[0, 0, 16, 0], b"a canary"]);
    let key = login.server(&[auth(0, &[]), key[..12].to_vec()]);
    let keyed = key.play(origin(), Limits::default(), &mut Recorder::default());
    let cancel = packet(&[&80_877_102_u32.to_be_bytes()[..], &7_u32.to_be_bytes(), b"a canary"].concat());
    let cancel = Talk::default().client(&[cancel[..18].to_vec()]);
    let cancelling = cancel.play(origin(), Limits::default(), &mut Recorder::default());
    for session in [waiting, keyed, cancelling] {
        let (state, _) = saved(&session);
        assert!(!state.windows(4).any(|window| b"a canary".windows(4).any(|part| part == window)));
    }
}

#[test]
fn an_outline_tells_who_and_how_much_and_no_text() {
    let session = midway();
    let mut outline = Vec::new();
    session.save_outline(&mut outline);
    let (info, end) = Session::read_outline(&outline).unwrap();
    assert_eq!(info.origin.backend_pid, session.info().origin.backend_pid);
    assert_eq!((end.ended_at, end.bytes_in), (None, session.frontend.recorded()));
    let text = String::from_utf8_lossy(&outline).into_owned();
    assert!(!text.contains("SELECT") && !text.contains("value") && !text.contains("named"), "{text}");
    assert!(Session::read_outline(&outline[..4]).is_err());
}

#[test]
fn a_long_message_is_cut_off() {
    let text = "x".repeat(3 << 20);
    let long = query(&text);
    let talk = Talk::started().client(&[long[..2 << 20].to_vec()]);
    let mut recorder = Recorder::default();
    let session = talk.play(origin(), Limits::default(), &mut recorder);
    let (state, prepared) = saved(&session);
    assert!(state.len() < (1 << 20) + 4_096, "{}", state.len());
    let mut session = Session::restore(&state, &prepared, Limits::default()).unwrap();
    let [frontend, backend] = talk.ends();
    let mut go_on = |direction, offset, bytes: &[u8]| {
        let data = Data {
            direction,
            offset,
            bytes,
            loss: None,
            end_of_call: true,
            plaintext: false,
            at: Micros(2_000),
        };
        session.data(data, &mut recorder);
    };
    go_on(Direction::Frontend, frontend, &long[2 << 20..]);
    go_on(Direction::Backend, backend, &[done("SELECT 1"), ready(b'I')].concat());
    let [statement] = recorder.statements.as_slice() else { panic!("{:?}", recorder.log) };
    assert!(statement.params_truncated);
    assert_eq!(statement.status, Status::Completed);
    assert!(statement.sql.as_ref().is_some_and(|sql| text.starts_with(&**sql)));
}
