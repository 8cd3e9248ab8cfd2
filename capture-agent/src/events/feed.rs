//! The capture thread's end: notes what is recorded, and hands it on with each commit. Never waits while sessions are
//! captured: what finds no room is counted, and declared to the receivers.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::hub::Hub;
use super::item::{Item, Missed, Transaction};
use super::settings::{Settings, What};
use crate::record::{Begun, Decision, DecisionKind, Outcome, Tap};
use crate::session::{Exchange, SessionInfo};
use crate::sql::Analysis;
use crate::telemetry::metrics;

/// Notes what is recorded for those who are told.
pub struct Feed {
    settings: Settings,
    /// What any of the receivers wants.
    what: What,
    queue: Option<SyncSender<Transaction>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    /// What stands before this was told to every receiver.
    from: u64,
    /// Since the last commit.
    items: Vec<Item>,
    bytes: usize,
    missed: Missed,
    /// While what an earlier agent left is replayed, nothing is captured and there is time.
    replays: bool,
}

/// What both threads know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Everything before this was handed over.
    pub(super) committed: AtomicU64,
    /// Everything before this is in the spools.
    pub(super) kept: AtomicU64,
    /// Memory of what is on its way.
    pub(super) bytes: AtomicUsize,
    /// Whether all that was handed over is in the spools, once nothing more comes.
    pub(super) complete: AtomicBool,
}

impl Feed {
    /// For these receivers. Nothing begins before the recorder does.
    pub fn new(settings: Settings) -> Self {
        let what = settings.receivers.iter().fold(What::default(), |all, receiver| What {
            activity: all.activity || receiver.what.activity,
            findings: all.findings || receiver.what.findings,
        });
        Self {
            settings,
            what,
            queue: None,
            thread: None,
            shared: Arc::default(),
            from: 0,
            items: Vec::new(),
            bytes: 0,
            missed: Missed::default(),
            replays: true,
        }
    }

    fn push(&mut self, item: Item) {
        if item.at < self.from {
            return;
        }
        let bytes = item.bytes();
        let waits = self.shared.bytes.load(Ordering::Relaxed);
        if self.replays {
            // What is replayed is permanent already.
            self.bytes += bytes;
            let end = item.at + 1;
            self.items.push(item);
            if self.bytes >= REPLAY_BYTES {
                self.hand_over(end);
            }
            return;
        }
        if waits + self.bytes + bytes > MOST_BYTES {
            self.missed.note(&item);
            metrics::SIEM_MISSED.add(1);
            return;
        }
        self.bytes += bytes;
        self.items.push(item);
    }

    fn hand_over(&mut self, end: u64) {
        let Some(queue) = &self.queue else { return };
        let items = std::mem::take(&mut self.items);
        let bytes = std::mem::take(&mut self.bytes);
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut transaction = Transaction { items, end, bytes, missed: std::mem::take(&mut self.missed) };
        let mut patience = if self.replays { REPLAY_PATIENCE } else { Duration::ZERO };
        // Also of memory: the thread that replays takes no more of it than the one that captures.
        while self.replays && self.shared.bytes.load(Ordering::Relaxed) > MOST_BYTES && !patience.is_zero() {
            patience = patience.saturating_sub(PAUSE);
            std::thread::park_timeout(PAUSE);
        }
        loop {
            match queue.try_send(transaction) {
                Ok(()) => return,
                Err(TrySendError::Full(back)) if !patience.is_zero() => {
                    transaction = back;
                    patience = patience.saturating_sub(PAUSE);
                    std::thread::park_timeout(PAUSE);
                }
                Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => {
                    self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
                    self.missed = back.missed;
                    metrics::SIEM_MISSED.add(back.items.len() as u64);
                    back.items.iter().for_each(|item| self.missed.note(item));
                    return;
                }
            }
        }
    }
}

impl Tap for Feed {
    fn begin(
        &mut self,
        journal: u128,
        oldest: Option<u64>,
        next: u64,
    ) -> Result<Begun, Box<dyn Error + Send + Sync>> {
        let (queue, transactions): (_, Receiver<Transaction>) = sync_channel(MOST_TRANSACTIONS);
        let (hub, begun) = Hub::open(&self.settings, Arc::clone(&self.shared), journal, oldest, next)?;
        self.from = begun.from;
        self.shared.committed.store(begun.from, Ordering::Release);
        let thread = std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || hub.work(&transactions))
            .map_err(super::EventsError::Thread)?;
        self.thread = Some(thread);
        self.queue = Some(queue);
        Ok(begun)
    }

    fn statement(
        &mut self,
        at: u64,
        session: &SessionInfo,
        exchange: &Exchange,
        analysis: Option<&Arc<Analysis>>,
    ) {
        if self.what.activity {
            self.push(Item::statement(at, session, exchange, analysis));
        }
    }

    fn decision(&mut self, at: u64, session: Option<&SessionInfo>, decision: &Decision) {
        let told = decision.kind == DecisionKind::Verdict
            && decision.verdict.is_some_and(|verdict| verdict != Outcome::Allowed);
        if self.what.findings && told {
            self.push(Item::decision(at, session, decision));
        }
    }

    fn commit(&mut self, end: u64) {
        if !self.items.is_empty() || !self.missed.is_none() {
            self.hand_over(end);
        }
        self.replays = false;
        self.shared.committed.store(end, Ordering::Release);
    }

    fn kept(&self) -> u64 {
        self.shared.kept.load(Ordering::Acquire)
    }

    fn close(&mut self) -> bool {
        if !self.missed.is_none() {
            // There is time now.
            self.replays = true;
            self.hand_over(self.shared.committed.load(Ordering::Relaxed));
        }
        self.queue = None;
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        ended && self.shared.complete.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("receivers", &self.settings.receivers.len()).finish_non_exhaustive()
    }
}

/// Memory of what is on its way: some hundred milliseconds of a saturated server.
const MOST_BYTES: usize = 32 << 20;

/// Transactions on their way: fifty a second, so twenty seconds' worth.
const MOST_TRANSACTIONS: usize = 1_024;

/// Memory of one transaction while an earlier agent's are replayed.
const REPLAY_BYTES: usize = 1 << 20;

/// How long a replay waits for room.
const REPLAY_PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);
