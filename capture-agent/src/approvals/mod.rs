//! Statements that wait for somebody's word.
//!
//! ```text
//!  capture thread                          thread `approvals`                approvers
//!  ──────────────                          ──────────────────                ─────────
//!  ask, withdraw ─► Book                   Unix socket ◄──── one line ────── capture-agent approvals
//!  decided ◄────── Book ◄─── questions ◄── who is it?
//!                        ───► answers ───► ───────────────── one line ─────►
//! ```
//!
//! The capture thread holds the [`Book`] and never waits: what approvers ask stands in a bounded channel until the next
//! [`Approvals::decided`]. So an approver who is told that a statement was approved was in time.

mod book;
mod client;
mod grants;
mod listen;
mod message;
mod notice;
mod peer;
mod request;
mod server;
mod webhook;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

pub use book::{Book, Full, MOST_WAITING, Refusal, Waiting};
pub use client::{ClientError, ask};
pub use grants::Grant;
pub use listen::socket;
pub use message::{Approve, Deny, Listed, Question, Reply, Why};
pub use notice::Notice;
pub use peer::group_id;
pub use request::{Answer, Approver, Choice, Cover, Decided, Request, RequestId, Who};
pub use webhook::{Destination, Webhook};

use server::{Asked, Server};

/// What waits for approval in one agent, and who may decide.
#[derive(Debug)]
pub struct Approvals {
    /// What waits.
    pub book: Book,
    server: Server,
}

impl Approvals {
    /// Listens on `socket`, which root and the members of the group with this id may use.
    ///
    /// # Errors
    ///
    /// The socket cannot be made, or the system has no thread left.
    pub fn start(socket: &Path, group: Option<u32>) -> io::Result<Self> {
        // Another beginning than the last agent's.
        let first = crate::probes::monotonic_now() >> 20;
        let server = Server::start(socket, group)?;
        Ok(Self { book: Book::new(u32::try_from(first & 0xf_ffff).unwrap_or_default()), server })
    }

    /// Answers what approvers asked, and yields what they decided. To be called in each round of the capture thread;
    /// `now` is in nanoseconds of `CLOCK_MONOTONIC`.
    pub fn decided(&mut self, now: u64) -> Vec<Decided> {
        for asked in self.server.questions() {
            let reply = answer(&mut self.book, &asked, now);
            self.server.answer(&asked, &reply);
        }
        self.book.take_decided()
    }

    /// Readable when [`Approvals::decided`] has something to do.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.server.descriptor()
    }
}

fn answer(book: &mut Book, asked: &Asked, now: u64) -> Reply {
    match asked.question.clone().decision() {
        Err(wrong) => Reply::refused(Why::Malformed, wrong),
        Ok(None) => {
            Reply::Requests(book.waiting().into_iter().map(|(id, one)| Listed::of(id, one, now)).collect())
        }
        Ok(Some((id, choice))) => match book.decide(id, asked.approver.clone(), choice, now) {
            Ok(()) => Reply::Done { id: id.to_string() },
            Err(refusal) => refusal.into(),
        },
    }
}

#[cfg(test)]
mod tests;
