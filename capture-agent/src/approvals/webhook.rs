//! Tells somebody elsewhere what waits for approval and what a guardrail alerts of: one POST each, signed, repeated until
//! it is taken or of no use any more. A thread of its own does it; who has something to tell never waits.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::notice::Notice;
use crate::events::{client, secret, signature};
use crate::probes::{monotonic_now, unix_offset};
use crate::telemetry::metrics;

/// Where notices go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The address that takes them.
    pub url: String,
    /// The file with the secret that signs them. Read for each attempt, so that it can be replaced.
    pub secret_file: PathBuf,
    /// The file with the certificates of the authorities that the address's must be signed by.
    pub ca_file: PathBuf,
    /// Whether notices have texts and parameters of statements.
    pub texts: bool,
}

/// The sender's end.
#[derive(Clone, Debug)]
pub struct Webhook {
    queue: SyncSender<Notice>,
    texts: bool,
}

impl Webhook {
    /// Starts the thread that sends.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn start(destination: Destination) -> std::io::Result<Self> {
        let (queue, notices) = sync_channel(MOST_WAITING);
        let texts = destination.texts;
        let courier =
            Courier { destination, notices, waiting: VecDeque::new(), pause: SHORTEST, failing: false };
        // It is never joined: whoever is told after the agent's end cannot decide any more.
        std::thread::Builder::new().name("webhook".into()).spawn(move || courier.work())?;
        Ok(Self { queue, texts })
    }

    /// Has a notice sent. If too many wait already, it is dropped, counted and logged.
    pub fn tell(&self, notice: Notice) {
        let notice = if self.texts { notice } else { notice.without_texts() };
        if let Err(TrySendError::Full(notice) | TrySendError::Disconnected(notice)) =
            self.queue.try_send(notice)
        {
            drop_notice(&notice, "too many wait");
        }
    }
}

struct Courier {
    destination: Destination,
    notices: Receiver<Notice>,
    /// Those that could not be delivered yet, the oldest first. At most [`MOST_WAITING`].
    waiting: VecDeque<Notice>,
    pause: Duration,
    failing: bool,
}

/// Why a notice was not taken.
enum Failure {
    /// Perhaps later.
    Now(String),
    /// Never.
    Ever(String),
}

impl Courier {
    /// Works until nobody can have anything to tell any more.
    fn work(mut self) {
        loop {
            let patience = if self.waiting.is_empty() { FOREVER } else { self.pause };
            let end = monotonic_now().saturating_add(nanos(patience));
            // What comes in the pause waits as well: the address must not be asked more often.
            loop {
                let left = Duration::from_nanos(end.saturating_sub(monotonic_now()));
                match self.notices.recv_timeout(left) {
                    Ok(notice) if self.waiting.len() < MOST_WAITING => self.waiting.push_back(notice),
                    Ok(notice) => drop_notice(&notice, "too many wait"),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if patience == FOREVER {
                    break;
                }
            }
            self.deliver();
        }
    }

    /// Sends what waits, in its order, until one cannot be sent.
    fn deliver(&mut self) {
        while let Some(notice) = self.waiting.pop_front() {
            if notice.until <= monotonic_now() {
                drop_notice(&notice, "its time is over");
                continue;
            }
            match self.post(&notice) {
                Ok(()) => {
                    metrics::SENT_NOTICES.add(1);
                    self.pause = SHORTEST;
                    if std::mem::take(&mut self.failing) {
                        tracing::info!(url = self.destination.url, "the webhook takes notices again");
                    }
                }
                Err(Failure::Ever(why)) => drop_notice(&notice, &why),
                Err(Failure::Now(why)) => {
                    metrics::WEBHOOK_ERRORS.add(1);
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(
                            url = self.destination.url,
                            "the webhook does not take notices: {why}; trying again (see docs/errors.md#webhook)"
                        );
                    } else {
                        self.pause = LONGEST.min(self.pause * 2);
                    }
                    self.waiting.push_front(notice);
                    return;
                }
            }
        }
    }

    fn post(&self, notice: &Notice) -> Result<(), Failure> {
        let Destination { url, secret_file, .. } = &self.destination;
        let secret = secret(secret_file).map_err(|error| Failure::Now(error.to_string()))?;
        let body = notice.body.to_string();
        let timestamp = monotonic_now().wrapping_add(unix_offset()) / 1_000_000_000;
        let sent = client(url, &self.destination.ca_file, PATIENCE)
            .map_err(|error| Failure::Now(error.to_string()))?
            .post(url)
            .header("Content-Type", "application/json")
            .header("X-Capture-Delivery", notice.delivery.to_string())
            .header("X-Capture-Timestamp", timestamp.to_string())
            .header("X-Capture-Signature", signature(&secret, timestamp, body.as_bytes()))
            .send(body);
        match sent {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(Failure::Ever(format!("{} answers {}", url, answer.status()))),
            // It does not take this notice; Request Timeout and Too Many Requests (RFC 9110, RFC 6585) may pass.
            Err(ureq::Error::StatusCode(code @ 400..=499)) if code != 408 && code != 429 => {
                Err(Failure::Ever(format!("{url} answers {code}")))
            }
            Err(error) => Err(Failure::Now(error.to_string())),
        }
    }
}

/// Counts a notice that is not delivered, and says so: now and again, since an alert may concern every statement.
fn drop_notice(notice: &Notice, why: &str) {
    static SAID: AtomicU64 = AtomicU64::new(0);
    metrics::DROPPED_NOTICES.add(1);
    let (said, now) = (SAID.load(Ordering::Relaxed), monotonic_now());
    if said == 0 || now.saturating_sub(said) >= REMINDER_NS {
        SAID.store(now, Ordering::Relaxed);
        tracing::error!(
            delivery = %notice.delivery,
            dropped = metrics::DROPPED_NOTICES.value(),
            "a notice is not delivered: {why} (see docs/errors.md#webhook)"
        );
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Notices that wait: as many as statements can.
const MOST_WAITING: usize = 256;

/// How long the address may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first pause after a failure, which doubles up to the longest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// How often it is said that notices are not delivered: ten seconds.
const REMINDER_NS: u64 = 10_000_000_000;

/// Nothing waits.
const FOREVER: Duration = Duration::from_secs(3_600);
