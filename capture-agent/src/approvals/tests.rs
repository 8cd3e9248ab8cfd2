//! Approvals over a real socket.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use uuid::Uuid;

use super::*;
use crate::policy::Approval;
use crate::probes::monotonic_now;
use crate::session::SessionId;

fn request(sql: &str) -> Request {
    let now = monotonic_now();
    Request {
        session: SessionId(Uuid::from_u128(7)),
        who: Who { user: Some("mcp".into()), host_pid: 4242, ..Who::default() },
        guardrail: Arc::from("ask-first"),
        message: Some("somebody looks at it".to_owned()),
        exact: Some(sql.into()),
        sql: Some(sql.into()),
        params: vec![Some("42".to_owned()), None],
        since: now,
        deadline: now + 60_000_000_000,
        approval: Approval { text: true, at_most: None },
        max_blocked: None,
    }
}

/// Does what the capture thread does, while `approver` works on another thread. Yields what was decided.
fn rounds(approvals: &mut Approvals, approver: impl FnOnce() + Send) -> Vec<Decided> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let _over = SetOnDrop(&over);
            approver();
        });
        let mut decided = Vec::new();
        while !over.load(Ordering::Acquire) {
            let mut fds = [PollFd::from_borrowed_fd(approvals.descriptor(), PollFlags::IN)];
            let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
            decided.extend(approvals.decided(monotonic_now()));
        }
        working.join().unwrap();
        decided
    })
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn approve(id: RequestId, cover: &str) -> Question {
    Question::Approve(Approve { id: id.to_string(), cover: Some(cover.to_owned()), reason: None })
}

#[test]
fn what_waits_is_listed_and_decided_by_whoever_the_kernel_says_asked() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent/approvals");
    let mut approvals = Approvals::start(&socket, None).unwrap();
    let id = approvals.book.ask(request("drop table t")).unwrap();
    let other = approvals.book.ask(request("truncate t")).unwrap();
    assert!(!approvals.book.set_blocked(id, 3));
    assert_eq!(approvals.book.waiting().len(), 2);
    let decided = rounds(&mut approvals, || {
        let Reply::Requests(listed) = ask(&socket, &Question::List {}).unwrap() else { panic!("no list") };
        let [one, _] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!(
            (&one.id, one.sql.as_deref(), one.blocked),
            (&id.to_string(), Some("drop table t"), Some(3))
        );
        assert_eq!((one.user.as_deref(), one.guardrail.as_str()), (Some("mcp"), "ask-first"));
        assert_eq!(one.params, [Some("42".to_owned()), None]);
        assert_eq!(one.covers, ["statement", "text"]);
        assert!((59_000..=60_000).contains(&one.left_ms), "{one:?}");
        let refused = ask(&socket, &approve(id, "30m")).unwrap();
        assert!(matches!(refused, Reply::Refused { why: Why::NotAllowed, .. }), "{refused:?}");
        assert_eq!(ask(&socket, &approve(id, "text")).unwrap(), Reply::Done { id: id.to_string() });
        let deny = Question::Deny(Deny { id: id.to_string(), reason: "too late".to_owned() });
        let refused = ask(&socket, &deny).unwrap();
        assert!(matches!(refused, Reply::Refused { why: Why::Decided, .. }), "{refused:?}");
        let unknown = ask(&socket, &approve(RequestId::of(u32::MAX), "statement")).unwrap();
        assert!(matches!(unknown, Reply::Refused { why: Why::Unknown, .. }), "{unknown:?}");
    });
    let [decided] = &decided[..] else { panic!("{decided:?}") };
    assert_eq!((decided.id, decided.choice.answer), (id, Answer::Approve(Cover::Text)));
    assert_eq!(decided.approver.uid, rustix::process::getuid().as_raw());
    let (session, now) = (decided.request.session, monotonic_now());
    assert!(approvals.book.granted(session, "ask-first", Some("drop table t"), now).is_some());
    assert!(approvals.book.granted(session, "ask-first", Some("truncate t"), now).is_none());
    approvals.book.withdraw(other);
    assert!(approvals.book.waiting().is_empty());
    approvals.book.end_session(session);
    assert!(approvals.book.granted(session, "ask-first", Some("drop table t"), now).is_none());
    drop(approvals);
    assert!(!socket.parent().unwrap().exists(), "the socket and its folder are removed");
    assert!(matches!(ask(&socket, &Question::List {}), Err(ClientError::NoAgent(_))));
}

#[test]
fn hostile_bytes_disturb_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("approvals");
    let mut approvals = Approvals::start(&socket, None).unwrap();
    let id = approvals.book.ask(request("select 1")).unwrap();
    let decided = rounds(&mut approvals, || {
        let hostile: [&[u8]; 6] = [
            b"\n",
            b"\0\xff\xfe{{{{[[[[\n",
            b"{\"approve\":{\"id\":\"k7f2\",\"uid\":0}}\n",
            b"{\"deny\":{\"id\":7,\"reason\":[]}}\n",
            "[".repeat(7_000).leak().as_bytes(),
            "x".repeat(100_000).leak().as_bytes(),
        ];
        for bytes in hostile {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            // The agent may hang up in the middle.
            let _ = stream.write_all(bytes).and_then(|()| stream.write_all(b"\n"));
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            assert!(line.is_empty() || line.contains("\"malformed\""), "{line}");
        }
        // More than the agent hears at once, all of them silent, one in the middle of a question and gone.
        let mut silent: Vec<_> = (0..40).map(|_| UnixStream::connect(&socket).unwrap()).collect();
        silent[0].write_all(b"{\"list\":").unwrap();
        silent[1].write_all(b"{\"list\":{}}\n").unwrap();
        silent.remove(1);
        let done = ask(&socket, &approve(id, "statement")).unwrap();
        assert_eq!(done, Reply::Done { id: id.to_string() });
    });
    assert_eq!(decided.len(), 1);
}

#[test]
fn an_agent_that_does_not_answer_leaves_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("approvals");
    let mut approvals = Approvals::start(&socket, None).unwrap();
    let id = approvals.book.ask(request("select 1")).unwrap();
    // No round of the capture thread.
    let busy = ask(&socket, &approve(id, "statement")).unwrap();
    assert!(matches!(busy, Reply::Refused { why: Why::Busy, .. }), "{busy:?}");
    // What was asked is done all the same, as it was said.
    assert_eq!(approvals.decided(monotonic_now()).len(), 1);
    // Nor does the thread that speaks to approvers wait for one of them.
    drop(approvals);
}

#[test]
fn a_group_may_pass_to_the_socket_and_to_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/agent/approvals");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let own = Approvals::start(&socket, None).unwrap();
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    let again = Approvals::start(&socket, None).unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    drop(own);
    let group = rustix::process::getgid().as_raw();
    let shared = Approvals::start(&socket, Some(group)).unwrap();
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o660, 0o710));
    assert_eq!(std::fs::metadata(&socket).unwrap().gid(), group);
    assert_eq!(mode(&folder.path().join("run")), 0o711);
    drop(shared);
}
