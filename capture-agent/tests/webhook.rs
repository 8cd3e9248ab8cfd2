//! The webhook against a real HTTP server that is down at first, then fails, then takes what it gets, and that checks the
//! signatures with an implementation of its own.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use capture_agent::approvals::{Approvals, Destination, Notice, Request, Webhook, Who};
use capture_agent::policy::Approval;
use capture_agent::probes::monotonic_now;
use capture_agent::session::{Micros, SessionId};
use capture_agent::telemetry::metrics;

/// Answers each POST with the next status of its arguments, and prints what it got as one line of JSON.
const SERVER: &str = r#"
import hashlib, hmac, http.server, json, socketserver, sys
port, secret, codes = int(sys.argv[1]), sys.argv[2].encode(), [int(code) for code in sys.argv[3:]]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signed = self.headers["X-Capture-Timestamp"].encode() + b"." + body
        expected = "sha256=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()
        code = codes.pop(0) if codes else 200
        print(json.dumps({
            "genuine": hmac.compare_digest(expected, self.headers["X-Capture-Signature"]),
            "delivery": self.headers["X-Capture-Delivery"],
            "type": self.headers["Content-Type"],
            "code": code,
            "body": json.loads(body),
        }), flush=True)
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
class Server(socketserver.TCPServer):  # HTTPServer asks name services who it is.
    allow_reuse_address = True
Server(("127.0.0.1", port), Handler).serve_forever()
"#;

struct Server(Child);

impl Server {
    fn start(port: u16, codes: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", SERVER, &port.to_string(), "s3cret"]).args(codes).stdout(Stdio::piped());
        Self(command.spawn().expect("this test needs python3"))
    }

    /// What it got, so many times.
    fn got(&mut self, times: usize) -> Vec<serde_json::Value> {
        let lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        lines.take(times).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn request(deadline: u64) -> Request {
    Request {
        session: SessionId(uuid::Uuid::from_u128(7)),
        who: Who { user: Some("mcp_agent".into()), ..Who::default() },
        guardrail: "ask-first".into(),
        message: None,
        exact: Some("drop table orders".into()),
        sql: Some("drop table orders".into()),
        params: Vec::new(),
        since: monotonic_now(),
        deadline,
        approval: Approval::default(),
        max_blocked: None,
    }
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if is() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    panic!("{what} never happened");
}

#[test]
fn a_notice_arrives_signed_once_somebody_takes_it_and_one_whose_time_is_over_never() {
    let folder = tempfile::tempdir().unwrap();
    let secret_file = folder.path().join("secret");
    std::fs::write(&secret_file, "s3cret\n").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/hooks/capture");
    let webhook =
        Webhook::start(Destination { url, secret_file, ca_file: "/nowhere".into(), texts: true }).unwrap();

    // Requests have names only where they wait.
    let mut approvals = Approvals::start(&folder.path().join("approvals"), None).unwrap();
    let (now, at) = (monotonic_now(), Micros(1_784_973_600_000_000));
    let [asked, late] = [60_000_000_000, 1].map(|time| request(now + time));
    let id = approvals.book.ask(asked.clone()).unwrap();
    webhook.tell(Notice::approval("db-1", at, id, &late, now));
    webhook.tell(Notice::approval("db-1", at, id, &asked, now));
    webhook.tell(Notice::alert("db-1", at, &asked, "condition true", now).without_texts());
    wait_until("a failure", || metrics::WEBHOOK_ERRORS.value() > 0);
    assert_eq!(metrics::DROPPED_NOTICES.value(), 1, "what comes too late is counted");

    let mut server = Server::start(port, &["500", "200", "200"]);
    let got = server.got(3);
    assert!(got.iter().all(|one| one["genuine"] == true && one["type"] == "application/json"), "{got:?}");
    let [failed, taken, alert] = &got[..] else { panic!("{got:?}") };
    assert_eq!((failed["code"].as_u64(), taken["code"].as_u64()), (Some(500), Some(200)));
    assert_eq!(
        (&failed["delivery"], &failed["body"]),
        (&taken["delivery"], &taken["body"]),
        "the same again"
    );
    assert_ne!(taken["delivery"], alert["delivery"]);
    let body = &taken["body"];
    let expected = [
        ("event", "approval"),
        ("node", "db-1"),
        ("at", "2026-07-25T10:00:00Z"),
        ("id", &id.to_string()),
        ("user", "mcp_agent"),
        ("guardrail", "ask-first"),
        ("sql", "drop table orders"),
    ];
    for (key, value) in expected {
        assert_eq!(body[key], value, "{key} of {body}");
    }
    assert_eq!(
        (&alert["body"]["event"], &alert["body"]["reason"]),
        (&"alert".into(), &"condition true".into())
    );
    assert!(alert["body"].get("sql").is_none() && alert["body"].get("id").is_none(), "{alert}");
    wait_until("the last answer", || metrics::SENT_NOTICES.value() == 2);

    // What an address refuses for good is not sent again.
    drop(server);
    let mut server = Server::start(port, &["302", "404", "200"]);
    wait_until("the server", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    for reason in ["first", "second", "third"] {
        webhook.tell(Notice::alert("db-1", at, &asked, reason, now));
    }
    let reasons: Vec<_> = server.got(3).into_iter().map(|one| one["body"]["reason"].clone()).collect();
    assert_eq!(reasons, ["first", "second", "third"]);
    assert_eq!(metrics::DROPPED_NOTICES.value(), 3);
}
