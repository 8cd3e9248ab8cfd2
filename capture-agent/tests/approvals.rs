//! `capture-agent approvals`, the program, against the socket of an agent that runs in this process.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capture_agent::approvals::{Answer, Approvals, Cover, Decided, Request, Who, socket};
use capture_agent::policy::Approval;
use capture_agent::probes::{Pins, monotonic_now};
use capture_agent::session::SessionId;

/// A user and a group that need not have names.
const STRANGER: u32 = 61_234;
const GROUP: u32 = 61_235;

/// A configuration whose agent listens, and the program, where others than its owner may run it.
struct Place {
    folder: tempfile::TempDir,
    config: PathBuf,
    program: PathBuf,
    socket: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(path("data")).unwrap();
        fs::create_dir(path("run")).unwrap();
        let (data, run) = (path("data"), path("run"));
        let config = format!(
            "data_dir = {data:?}\n[shim]\nruntime_dir = {run:?}\n[kernel]\npin_dir = '/sys/fs/bpf/capture'\n"
        );
        fs::write(path("capture.toml"), config).unwrap();
        let program = path("capture-agent");
        let built = env!("CARGO_BIN_EXE_capture-agent");
        fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
        let pins = Pins::of(Path::new("/sys/fs/bpf/capture"), &data).unwrap();
        let socket = socket(&run, &pins);
        Self { config: path("capture.toml"), program, socket, folder }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("approvals").args(args).arg("--config").arg(&self.config).current_dir(self.folder.path());
        command
    }

    fn says(&self, args: &[&str], code: i32, words: &str) -> String {
        checked(self.command(args).output().unwrap(), code, words)
    }
}

/// What the program printed, if it ended as expected.
fn checked(output: Output, code: i32, words: &str) -> String {
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(words), "no {words:?} in: {text}");
    text
}

fn request(sql: &str) -> Request {
    let now = monotonic_now();
    Request {
        session: SessionId(uuid::Uuid::from_u128(7)),
        who: Who { user: Some("mcp_agent".into()), database: Some("shop".into()), ..Who::default() },
        guardrail: "ask-first".into(),
        message: None,
        exact: Some(sql.into()),
        sql: Some(sql.into()),
        params: vec![Some("\u{1b}[31m42".to_owned())],
        since: now,
        deadline: now + 600_000_000_000,
        approval: Approval { text: true, at_most: Some(Duration::from_secs(1_800)) },
        max_blocked: Some(5),
    }
}

/// Does what the capture thread does while `approver` works. Yields what was decided.
fn rounds(approvals: &mut Approvals, approver: impl FnOnce() + Send) -> Vec<Decided> {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _over = Over(&over);
            approver();
        });
        let mut decided = Vec::new();
        while !over.load(Ordering::Acquire) {
            decided.extend(approvals.decided(monotonic_now()));
            std::thread::park_timeout(Duration::from_millis(2));
        }
        decided
    })
}

#[test]
fn statements_are_listed_approved_and_denied() {
    let place = Place::new();
    place.says(&["list"], 1, "docs/errors.md#approvals-no-agent");
    let mut approvals = Approvals::start(&place.socket, None).unwrap();
    let drop_it = approvals.book.ask(request("drop table orders\n  cascade")).unwrap();
    let keep_it = approvals.book.ask(request("truncate orders")).unwrap();
    approvals.book.set_blocked(drop_it, 2);
    let decided = rounds(&mut approvals, || {
        let [one, other] = [drop_it, keep_it].map(|id| id.to_string());
        let listed = place.says(&["list"], 0, "mcp_agent on shop");
        let words =
            ["ask-first", "| drop table orders\n    |   cascade", &one, &other, "text, 30m", "allowed are 5"];
        for part in words {
            assert!(listed.contains(part), "no {part:?} in:\n{listed}");
        }
        assert!(!listed.contains('\u{1b}'), "a parameter moves the cursor:\n{listed}");
        let json = place.says(&["list", "--json"], 0, "\"sql\":\"truncate orders\"");
        let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
        assert_eq!((first["id"].as_str(), first["blocked"].as_u64()), (Some(&*one), Some(2)));
        place.says(&["approve", &one, "--cover", "31m"], 4, "it allows statement, text, 30m");
        place.says(&["approve", &one.to_uppercase(), "--cover", "30m", "--reason", "CHG-1"], 0, "is decided");
        place.says(&["approve", &one], 3, "docs/errors.md#approvals-decided");
        place.says(&["deny", &other, "--reason", ""], 1, "needs a reason");
        place.says(&["deny", &other, "--reason", "not now"], 0, "is decided");
        let unused = ["0000", "0001", "0002"].into_iter().find(|id| **id != one && **id != other).unwrap();
        place.says(&["deny", unused, "--reason", "x"], 3, "docs/errors.md#approvals-unknown");
        place.says(&["approve", "nonsense"], 2, "four letters and digits");
        place.says(&["approve", &one, "--cover", "forever"], 2, "none of statement");
        place.says(&["deny", &other], 2, "--reason");
        place.says(&["list"], 0, "nothing waits");
    });
    let [approved, denied] = &decided[..] else { panic!("{decided:?}") };
    let half_an_hour = Answer::Approve(Cover::Everything(Duration::from_secs(1_800)));
    assert_eq!((approved.id, approved.choice.answer), (drop_it, half_an_hour));
    assert_eq!(approved.choice.reason.as_deref(), Some("CHG-1"));
    assert_eq!((denied.id, denied.choice.answer), (keep_it, Answer::Deny));
    assert_eq!(denied.choice.reason.as_deref(), Some("not now"));
}

/// As root: strangers may not, members of the group may, and the record says who it was.
#[test]
fn who_may_connect_may_decide_and_nobody_else() {
    assert!(rustix::process::geteuid().is_root(), "this test becomes other users: run it as root");
    let place = Place::new();
    let mut approvals = Approvals::start(&place.socket, Some(GROUP)).unwrap();
    let id = approvals.book.ask(request("drop table orders")).unwrap().to_string();
    let decided = rounds(&mut approvals, || {
        let as_user =
            |group: u32, args: &[&str]| place.command(args).uid(STRANGER).gid(group).output().unwrap();
        checked(as_user(STRANGER, &["approve", &id]), 1, "docs/errors.md#approvals-not-allowed");
        checked(as_user(GROUP, &["approve", &id]), 0, "is decided");
    });
    assert_eq!(decided[0].approver.to_string(), format!("uid {STRANGER}"));
}
