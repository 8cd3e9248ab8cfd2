//! Events to an address that takes POSTs: JSON lines, signed as the webhook of the approvals is.

use std::path::PathBuf;
use std::time::Duration;

use super::courier::{Deliver, Failure};
use super::https::{client, secret, signature};
use super::spool::Event;
use crate::probes::{monotonic_now, unix_offset};

/// An address that takes events.
#[derive(Debug)]
pub(super) struct Webhook {
    pub(super) url: String,
    pub(super) secret_file: PathBuf,
    pub(super) ca_file: PathBuf,
    /// Names the log: the same numbers come from nobody else under it.
    pub(super) log: String,
}

impl Deliver for Webhook {
    fn deliver(&mut self, events: &[Event]) -> Result<(), Failure> {
        let later = |error: super::HttpsError| Failure::Later(error.to_string());
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
        let mut body = Vec::new();
        for event in events {
            body.extend_from_slice(&event.json);
            body.push(b'\n');
        }
        let secret = secret(&self.secret_file).map_err(later)?;
        let timestamp = monotonic_now().wrapping_add(unix_offset()) / 1_000_000_000;
        let signed = signature(&secret, timestamp, &body);
        let sent = client(&self.url, &self.ca_file, PATIENCE)
            .map_err(later)?
            .post(&self.url)
            .header("Content-Type", "application/x-ndjson")
            .header("X-Capture-Log", &self.log)
            .header("X-Capture-Sequence", format!("{}-{}", first.number, last.number))
            .header("X-Capture-Timestamp", timestamp.to_string())
            .header("X-Capture-Signature", signed)
            .send(&body[..]);
        match sent {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(Failure::Later(format!("it answers {}", answer.status()))),
            // It has read them and does not take these: Bad Request, Content Too Large, Unprocessable Content (RFC 9110).
            // Any other answer is about who asks, or passes.
            Err(ureq::Error::StatusCode(code @ (400 | 413 | 422))) => {
                Err(Failure::Never(format!("it answers {code}")))
            }
            Err(error) => Err(Failure::Later(error.to_string())),
        }
    }

    fn linger(&self) -> Duration {
        LINGER
    }
}

/// The pause between two requests of less than a whole batch: ten a second.
const LINGER: Duration = Duration::from_millis(100);

/// How long the address may take.
const PATIENCE: Duration = Duration::from_secs(10);
