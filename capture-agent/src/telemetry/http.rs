//! Metrics and health over HTTP: `/metrics`, `/healthz`, `/readyz`.
//!
//! Runs among the tasks of the main thread, never on the one that captures. Everything about a client is bounded: how many
//! there are, how large a request is, how long all of it takes. One request, one connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::health::{self, Reason};
use super::metrics;

/// Answers on `address` until the runtime ends. While another process has the address, tries again now and then: a second
/// agent of this host captures all the same.
pub async fn serve(address: SocketAddr) {
    let listener = listen(address).await;
    let clients = Arc::new(Semaphore::new(MOST_CLIENTS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&clients).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                drop(tokio::spawn(async move {
                    converse(stream).await;
                    drop(place);
                }));
            }
            // Descriptors have run out, or the client is gone already.
            Err(error) => {
                tracing::debug!(%error, "a client for metrics could not be accepted");
                sleep(AFTER_ERROR).await;
            }
        }
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut said = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(address);
                tracing::info!("metrics and health are at http://{address}/metrics");
                return listener;
            }
            Err(error) if !said => {
                said = true;
                tracing::warn!(
                    "metrics and health are not served at {address}: {error}; trying again, and capturing meanwhile \
                     (see docs/errors.md#metrics-listen)"
                );
            }
            Err(_) => {}
        }
        sleep(LISTEN_AGAIN).await;
    }
}

async fn converse(stream: TcpStream) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(REQUEST_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service_fn(|request| async move { answer(&request) }));
    match timeout(PATIENCE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            metrics::HTTP_ERRORS.add(1);
            tracing::debug!(%error, "a client for metrics made no sense");
        }
        Err(_) => metrics::HTTP_ERRORS.add(1),
    }
}

/// The body of a request is never read.
#[expect(clippy::unnecessary_wraps, reason = "hyper's service may fail")]
fn answer(request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    metrics::HTTP_REQUESTS.add(1);
    let response = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, path) => match path {
            "/metrics" => respond(StatusCode::OK, METRICS, metrics::render()),
            "/healthz" => judge("alive", health::deaths()),
            "/readyz" => judge("ready", health::obstacles()),
            _ => respond(StatusCode::NOT_FOUND, TEXT, "expected /metrics, /healthz or /readyz\n".to_owned()),
        },
        _ => {
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "expected GET\n".to_owned());
            response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            response
        }
    };
    Ok(response)
}

/// What `/healthz` and `/readyz` say.
#[derive(Serialize)]
struct Judgement {
    status: &'static str,
    reasons: Vec<Reason>,
}

fn judge(good: &'static str, reasons: Vec<Reason>) -> Response<Full<Bytes>> {
    let (code, status) = match (reasons.is_empty(), good) {
        (true, good) => (StatusCode::OK, good),
        (false, "alive") => (StatusCode::SERVICE_UNAVAILABLE, "not alive"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    // A structure of texts is JSON.
    let mut body = serde_json::to_string(&Judgement { status, reasons }).unwrap_or_default();
    body.push('\n');
    respond(code, JSON, body)
}

fn respond(code: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}

/// The text format's own type, <https://prometheus.io/docs/instrumenting/exposition_formats/>.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Clients at a time: a scraper, two probes, and somebody who is curious, several times over. Others wait for their turn.
const MOST_CLIENTS: usize = 16;
/// Bytes of a request's head: the least that hyper allows, and many times what a scraper sends.
const REQUEST_BYTES: usize = 8192;
/// How long one connection may take, from its first byte to its last. A scraper asks the next time.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often an address is tried that another process has.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);
/// The pause after a client that could not be accepted.
const AFTER_ERROR: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// Serves for as long as the test runs, and says where.
    fn served() -> SocketAddr {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(free));
        });
        for _ in 0..500 {
            if std::net::TcpStream::connect(free).is_ok() {
                return free;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        panic!("nobody listens");
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // It may answer before it has taken all.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn each_path_has_its_answer_and_others_have_none() {
        let address = served();
        let get = |path: &str| ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let metrics = get("/metrics");
        assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("capture_build_info{"), "{metrics}");
        assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
        // Other tests of this process may have ended their threads.
        let alive = get("/healthz");
        assert!(alive.contains(r#"{"status":""#) && alive.contains("alive"), "{alive}");
        let ready = get("/readyz");
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("the hooks are not attached"), "{ready}");
        assert!(get("/").starts_with("HTTP/1.1 404"));
        let post = ask(address, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
        assert!(post.starts_with("HTTP/1.1 405") && post.to_lowercase().contains("allow: get"), "{post}");
        let head = ask(address, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200") && !head.contains("capture_"), "{head}");
    }

    #[test]
    fn a_huge_request_and_one_that_is_no_http_are_refused_and_the_next_is_answered() {
        let address = served();
        let huge = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
        assert!(!ask(address, &huge).contains("HTTP/1.1 200"));
        assert!(!ask(address, "\u{16}\u{3}\u{1} hello\r\n\r\n").contains("HTTP/1.1 200"));
        assert!(ask(address, "GET /metrics HTTP/1.0\r\n\r\n").contains("200"));
    }

    #[test]
    fn clients_that_say_nothing_are_sent_away_and_others_get_their_turn() {
        let address = served();
        let silent: Vec<_> =
            (0..MOST_CLIENTS).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        drop(silent);
    }
}
