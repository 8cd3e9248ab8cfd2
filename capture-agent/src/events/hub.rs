//! The thread that makes events of what is recorded, and puts them into the receivers' spools.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use super::courier::{Courier, Deliver};
use super::feed::Shared;
use super::item::{Body, Item, Missed, Transaction};
use super::ocsf::{Context, Loss};
use super::settings::{self, Settings, To, What};
use super::spool::{Lines, Position, Spool};
use super::{EventsError, file, syslog, webhook};
use crate::policy::{Filter, SessionFacts, StatementFacts};
use crate::probes::{monotonic_now, unix_offset};
use crate::record::Begun;
use crate::session::{Micros, SessionInfo};
use crate::sql::Analysis;
use crate::telemetry::{health, metrics};

pub(super) struct Hub {
    shared: Arc<Shared>,
    journal: u128,
    logs: Vec<Log>,
    /// How often spools are brought to the disk; none if never.
    sync: Option<u64>,
    /// When that was done last, or would have been.
    synced: u64,
}

/// What one receiver is told.
struct Log {
    context: Arc<Context>,
    spool: Arc<Spool>,
    what: What,
    filter: Option<Filter>,
    /// Everything before this has been told, as far as `lines` reach.
    position: u64,
    /// The position that the spool knows.
    written: u64,
    /// Everything before this need not be told again.
    kept: u64,
    /// Not in the spool yet.
    lines: Lines,
    /// Found no room, and is not declared yet.
    missed: Missed,
    /// What lies before `position` may not have been told.
    broken: bool,
    /// Since when the spool takes nothing, and when to try again.
    failing: Option<(u64, u64)>,
}

impl Hub {
    /// Opens the spools and starts the receivers' threads. See [`Tap::begin`](crate::record::Tap::begin).
    pub(super) fn open(
        settings: &Settings,
        shared: Arc<Shared>,
        journal: u128,
        oldest: Option<u64>,
        next: u64,
    ) -> Result<(Self, Begun), EventsError> {
        let mut logs = Vec::new();
        for receiver in &settings.receivers {
            let folder = settings.data_dir.join(format!(".events-{}", settings.node)).join(&receiver.name);
            logs.push(Log::open(folder, receiver, settings, journal, oldest, next)?);
        }
        let from = logs.iter().map(|log| log.position).min().unwrap_or(next);
        let begun = Begun { from, next: logs.iter().map(|log| log.position).max().unwrap_or(0) };
        shared.kept.store(from, Ordering::Release);
        let sync = settings.sync.map(|sync| u64::try_from(sync.as_nanos()).unwrap_or(u64::MAX));
        Ok((Self { shared, journal, logs, sync, synced: monotonic_now() }, begun))
    }

    /// Works until nothing more can come.
    pub(super) fn work(mut self, transactions: &Receiver<Transaction>) {
        let _alive = health::EVENTS.begin();
        loop {
            // What is committed was handed over before: once nothing waits, everything up to there is told.
            let mut committed = self.shared.committed.load(Ordering::Acquire);
            let ended = loop {
                match transactions.try_recv() {
                    Ok(transaction) => self.take(transaction),
                    Err(TryRecvError::Empty) => break false,
                    Err(TryRecvError::Disconnected) => {
                        // It may have been committed since, but nothing more will be.
                        committed = self.shared.committed.load(Ordering::Acquire);
                        break true;
                    }
                }
                self.keep(false);
            };
            for log in &mut self.logs {
                log.position = log.position.max(committed);
            }
            self.keep(ended);
            if ended {
                break;
            }
            match transactions.recv_timeout(TICK) {
                Ok(transaction) => self.take(transaction),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        let complete = self.logs.iter().all(|log| log.kept >= log.position && log.missed.is_none());
        self.shared.complete.store(complete, Ordering::Release);
        let end = monotonic_now() + LAST_NS;
        for log in &self.logs {
            log.spool.close(Duration::from_nanos(end.saturating_sub(monotonic_now())));
        }
        self.publish();
    }

    fn take(&mut self, transaction: Transaction) {
        let now = now();
        for item in &transaction.items {
            let session = item.session.as_ref();
            // Only for those who want to know.
            let mut facts = None;
            for log in self.logs.iter_mut().filter(|log| log.wants(item)) {
                let passes = log.filter.as_ref().is_none_or(|filter| {
                    let (session, stmt) = facts.get_or_insert_with(|| facts_of(session, &item.body));
                    filter.passes(session, stmt.as_ref())
                });
                if passes {
                    log.tell(self.journal, item, now);
                }
            }
        }
        for log in &mut self.logs {
            log.note_missed(transaction.missed);
            log.position = log.position.max(transaction.end);
            log.flush(self.journal);
        }
        self.shared.bytes.fetch_sub(transaction.bytes, Ordering::Relaxed);
    }

    /// Brings what was told to the disk when it is time, and says up to where it is kept.
    fn keep(&mut self, now: bool) {
        let time = monotonic_now();
        if !now && time.saturating_sub(self.synced) < self.sync.unwrap_or(KEEP_NS) {
            return;
        }
        self.synced = time;
        for log in &mut self.logs {
            log.keep(self.journal, self.sync.is_some());
        }
        let kept = self.logs.iter().map(|log| log.kept).min().unwrap_or(u64::MAX);
        self.shared.kept.store(kept, Ordering::Release);
        self.publish();
    }

    fn publish(&self) {
        let (mut events, mut bytes) = (0, 0);
        for log in &self.logs {
            let waiting = log.spool.waiting();
            events += waiting.0;
            bytes += waiting.1;
        }
        metrics::SIEM_WAITING.set(events);
        metrics::SIEM_SPOOL.set(bytes);
    }
}

impl Log {
    fn open(
        folder: PathBuf,
        receiver: &settings::Receiver,
        settings: &Settings,
        journal: u128,
        oldest: Option<u64>,
        next: u64,
    ) -> Result<Self, EventsError> {
        let unusable = |source| EventsError::Spool { path: folder.clone(), source };
        let (spool, found) = Spool::open(folder.clone(), receiver.spool_bytes).map_err(unusable)?;
        let spool = Arc::new(spool);
        let (position, broken) = match found {
            Some(found) if found.journal == journal => {
                // The journal went on without the spool, and is gone.
                (found.next, oldest.is_some_and(|oldest| oldest > found.next))
            }
            // The one before was completed; of this one nothing has been told.
            Some(_) => (0, false),
            // Who was not there is not told what was before.
            None => (next, false),
        };
        let context = Arc::new(Context {
            node: settings.node.clone(),
            log: format!("{}/{}", settings.node, receiver.name),
            sql_bytes: receiver.sql_bytes,
        });
        let courier = Courier {
            context: Arc::clone(&context),
            spool: Arc::clone(&spool),
            way: way(receiver, &context),
            batch_events: receiver.batch_events,
            retry: receiver.retry,
        };
        std::thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || courier.work())
            .map_err(EventsError::Thread)?;
        let mut log = Self {
            context,
            spool,
            what: receiver.what,
            filter: receiver.filter.clone(),
            position,
            written: position,
            kept: position,
            lines: Lines::default(),
            missed: Missed::default(),
            broken,
            failing: None,
        };
        log.lines.position(journal, position);
        log.flush(journal);
        Ok(log)
    }

    fn wants(&self, item: &Item) -> bool {
        item.at >= self.position
            && match item.body {
                Body::Statement(_) => self.what.activity,
                Body::Decision(_) => self.what.findings,
            }
    }

    fn tell(&mut self, journal: u128, item: &Item, now: Micros) {
        let number = self.spool.next_number() + self.lines.events();
        if let Some(json) = self.context.event(number, item, now) {
            self.lines.event(item.at, number, &json);
        }
        if self.lines.bytes().len() >= PIECE {
            self.flush(journal);
        }
    }

    fn note_missed(&mut self, missed: Missed) {
        if self.what.activity {
            self.missed.statements += missed.statements;
        }
        if self.what.findings {
            self.missed.decisions += missed.decisions;
        }
        if !self.missed.is_none() && self.failing.is_none() {
            self.declare();
        }
    }

    /// Tells the receiver what it was not told.
    fn declare(&mut self) {
        let events = self.missed.statements + self.missed.decisions;
        let (broken, missed) = (std::mem::take(&mut self.broken), std::mem::take(&mut self.missed));
        if !broken && missed.is_none() {
            return;
        }
        let reason = if broken {
            "the spool was not written while the agent ended"
        } else {
            "they came faster than events could be made of them, or the spool could not be written"
        };
        let number = self.spool.next_number() + self.lines.events();
        let loss = Loss { first: None, events: (!broken).then_some(events), reason };
        let at = self.position.saturating_sub(1);
        self.lines.event(at, number, &self.context.lost(number, &loss));
    }

    /// Appends what there is to the spool, unless that has just failed.
    fn flush(&mut self, journal: u128) {
        if self.broken && self.failing.is_none() {
            self.declare();
        }
        if self.lines.bytes().is_empty() {
            return;
        }
        let now = monotonic_now();
        if self.failing.is_some_and(|(_, again)| now < again) {
            return self.bound();
        }
        match self.spool.append(&self.lines, Position { journal, next: self.written }) {
            Ok(()) => {
                // Less than `position`: behind the last event of a transaction nothing is told, but the spool does not know.
                self.written = self.lines.reach();
                self.lines.clear();
                if self.failing.take().is_some() {
                    tracing::info!(receiver = self.context.log, "the spool of events is written again");
                    self.declare();
                }
            }
            Err(error) => {
                metrics::SIEM_ERRORS.add(1);
                if self.failing.is_none() {
                    tracing::error!(
                        receiver = self.context.log,
                        "cannot write the spool of events: {error}; they wait in memory, and what finds no room there is \
                         declared to the receiver (see docs/errors.md#events-spool)"
                    );
                }
                self.failing = Some((self.failing.map_or(now, |(since, _)| since), now + AGAIN_NS));
                self.bound();
            }
        }
    }

    /// While the spool takes nothing: holds neither too much memory nor the journal.
    fn bound(&mut self) {
        if self.lines.bytes().len() > MOST_WAITING {
            let events = self.lines.events();
            metrics::SIEM_MISSED.add(events);
            self.missed.statements += events;
            self.lines.clear();
        }
    }

    fn keep(&mut self, journal: u128, sync: bool) {
        if self.position > self.written {
            self.lines.position(journal, self.position);
        }
        self.flush(journal);
        match self.failing {
            None => match if sync { self.spool.sync() } else { Ok(()) } {
                Ok(()) => self.kept = self.written,
                Err(error) => {
                    metrics::SIEM_ERRORS.add(1);
                    tracing::error!(receiver = self.context.log, %error, "cannot bring the spool of events to the disk (see docs/errors.md#events-spool)");
                }
            },
            // The journal must not fill the disk for want of a spool. Dies the agent now, the next one declares it.
            Some((since, _)) if monotonic_now().saturating_sub(since) > RELEASE_NS => {
                self.kept = self.position;
            }
            Some(_) => {}
        }
    }
}

fn way(receiver: &settings::Receiver, context: &Arc<Context>) -> Box<dyn Deliver> {
    match &receiver.to {
        To::File(path) => Box::new(file::Lines::new(path.clone())),
        To::Syslog(server) => Box::new(syslog::Syslog::new(server.clone(), Arc::clone(context))),
        To::Webhook { url, secret_file, ca_file } => Box::new(webhook::Webhook {
            url: url.clone(),
            secret_file: secret_file.clone(),
            ca_file: ca_file.clone(),
            log: context.log.clone(),
        }),
    }
}

fn facts_of(session: Option<&SessionInfo>, body: &Body) -> (SessionFacts, Option<StatementFacts>) {
    let session = session.map(|session| SessionFacts::of(session, true)).unwrap_or_default();
    let stmt = match body {
        Body::Statement(statement) => {
            let text = statement.sql.clone().unwrap_or_else(|| "".into());
            let analysis = statement
                .analysis
                .clone()
                .unwrap_or_else(|| Arc::new(Analysis::of_unknown(crate::sql::Unknown::Unseen)));
            Some(StatementFacts::new(text, statement.protocol, analysis))
        }
        // What a verdict was about is not analysed again: a condition on it cannot be told, and passes.
        Body::Decision(_) => None,
    };
    (session, stmt)
}

fn now() -> Micros {
    Micros(i64::try_from(monotonic_now().wrapping_add(unix_offset()) / 1_000).unwrap_or(i64::MAX))
}

/// How long nothing may come before positions are looked at.
const TICK: Duration = Duration::from_millis(200);

/// How often positions are kept where nothing is brought to the disk: a second.
const KEEP_NS: u64 = 1_000_000_000;

/// Bytes of lines that are appended at once.
const PIECE: usize = 256 << 10;

/// Bytes of lines that wait while the spool takes nothing.
const MOST_WAITING: usize = 4 << 20;

/// How long a spool that takes nothing holds the journal: ten seconds.
const RELEASE_NS: u64 = 10_000_000_000;

/// The pause after a spool took nothing: a second.
const AGAIN_NS: u64 = 1_000_000_000;

/// How long receivers may take for what is left when the agent ends. The rest waits for the next one.
const LAST_NS: u64 = 2_000_000_000;
