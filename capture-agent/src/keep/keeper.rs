//! The thread that keeps the record.

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ulid::Ulid;

use super::clock::Clock;
use super::compact::Compaction;
use super::expire::Held;
use super::uploaded::Uploaded;
use super::{Holds, Rule};
use crate::record::{Archive, MergeError, Merging, StoredFile};
use crate::seal::{Live, Sealed, hex};
use crate::telemetry::metrics;

/// What is to be done to the record.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long files are kept; for ever if there is no rule.
    pub rules: Vec<Rule>,
    /// When small files are merged; never if none.
    pub compaction: Option<Compaction>,
    /// Whether files are uploaded: then they are not removed before that is confirmed.
    pub uploads: bool,
    /// How often the record is looked at.
    pub every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { rules: Vec::new(), compaction: None, uploads: false, every: EVERY }
    }
}

/// Keeps the record until it is dropped.
#[derive(Debug)]
pub struct Keeper {
    stop: Option<Sender<()>>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts to keep the files of an archive.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn start(archive: Archive, settings: Settings) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let (end, ended) = channel::<()>();
        let thread = std::thread::Builder::new().name("keep".to_owned()).spawn(move || {
            let _end = end;
            Work::new(archive, settings).run(&stopped);
        })?;
        Ok(Self { stop: Some(stop), ended, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return };
        // While the disk fails, it may wait for the writer, which goes on only when recording ends. Then it does nothing any more.
        if self.ended.recv_timeout(END) == Err(RecvTimeoutError::Disconnected) {
            // It may have panicked, which has been said.
            let _ = thread.join();
        }
    }
}

/// What the thread knows.
struct Work {
    archive: Archive,
    settings: Settings,
    live: Live,
    held: Held,
    uploaded: Uploaded,
    /// Files that are gone by the words of the chain and could not be removed yet.
    left: HashSet<String>,
    /// Files that cannot be merged.
    unsuitable: HashSet<Ulid>,
    /// A merged file that the disk did not take in time.
    unfinished: Option<Merging>,
    clock: Clock,
    /// What was said last, so that it is said once.
    trouble: Option<String>,
}

impl Work {
    fn new(archive: Archive, settings: Settings) -> Self {
        let uploaded = archive.data_dir().join(format!(".uploaded-{}.jsonl", archive.node()));
        Self {
            archive,
            settings,
            live: Live::default(),
            held: Held::default(),
            uploaded: Uploaded::new(uploaded),
            left: HashSet::new(),
            unsuitable: HashSet::new(),
            unfinished: None,
            clock: Clock::new(),
            trouble: None,
        }
    }

    fn run(mut self, stopped: &Receiver<()>) {
        // Whatever else the host does comes first.
        let own = rustix::thread::gettid();
        let _ = rustix::process::setpriority_process(Some(own), NICE);
        let mut goes_on = stopped.try_recv() == Err(TryRecvError::Empty);
        while goes_on {
            if !self.archive.is_busy() {
                match self.round(stopped) {
                    Ok(()) => self.trouble = None,
                    Err(error) => self.fails(error),
                }
            }
            goes_on = stopped.recv_timeout(self.settings.every) == Err(RecvTimeoutError::Timeout);
        }
        self.unfinished.into_iter().for_each(Merging::discard);
    }

    fn round(&mut self, stopped: &Receiver<()>) -> Result<(), String> {
        let said = |error: io::Error| error.to_string();
        let files = self.archive.files().map_err(said)?;
        let there: HashSet<String> = files.iter().map(|file| file.name.clone()).collect();
        self.left.extend(self.archive.follow(&mut self.live, &there).map_err(said)?);
        self.remove_left().map_err(said)?;
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.finish(&self.archive).map_err(said)?;
            self.unfinished = None;
        }
        if !self.settings.rules.is_empty() {
            self.retain(&files, &there)?;
        }
        self.compact(stopped)
    }

    fn retain(&mut self, files: &[StoredFile], there: &HashSet<String>) -> Result<(), String> {
        let said = |error: io::Error| error.to_string();
        self.uploaded.read(there).map_err(said)?;
        let holds = Holds::open(self.archive.data_dir()).map_err(|error| error.to_string())?;
        self.held.set(holds.list());
        self.held.look(&self.archive, files).map_err(|error| error.to_string())?;
        self.expire(files)
    }

    /// Removes what should be gone.
    fn remove_left(&mut self) -> io::Result<()> {
        for name in self.left.clone() {
            self.archive.remove_left(&name)?;
            self.left.remove(&name);
        }
        Ok(())
    }

    /// Removes the files whose time is over.
    fn expire(&mut self, files: &[StoredFile]) -> Result<(), String> {
        let now = Ulid::generate().timestamp_ms();
        let now = self.clock.is_trusted(now, files).then_some(now);
        let needs_confirmation = self.settings.uploads || self.uploaded.is_used();
        let (mut gone, mut overdue) = (HashSet::new(), HashSet::new());
        for rule in &self.settings.rules {
            for (file, why) in rule.over(files, now) {
                if gone.contains(&file.id) {
                    continue;
                }
                let Some(sealed) = self.live.file(&file.name) else {
                    // Nobody vouches for it, and `verify` says so: it is no file of this record.
                    continue;
                };
                let confirmed = || self.uploaded.has(&file.name, &hex(&sealed.sha256));
                let kept = (needs_confirmation && !rule.unconfirmed && !confirmed())
                    || self
                        .held
                        .has(&self.archive, file, Some(sealed))
                        .map_err(|error| format!("{}: {error}", file.name))?;
                if kept {
                    overdue.insert(file.id);
                    continue;
                }
                self.archive.expire(file, &why).map_err(|error| format!("{}: {error}", file.name))?;
                tracing::info!(file = file.name, rule = why, "removed");
                metrics::EXPIRED_FILES.add(1);
                gone.insert(file.id);
            }
        }
        metrics::OVERDUE_FILES.set(overdue.difference(&gone).count() as u64);
        Ok(())
    }

    /// Merges small files, run by run, until there is none or somebody wants the thread to end.
    fn compact(&mut self, stopped: &Receiver<()>) -> Result<(), String> {
        let Some(compaction) = self.settings.compaction else { return Ok(()) };
        // The storage would keep what was merged beside what it was merged from.
        if self.settings.uploads || self.uploaded.is_used() {
            return Ok(());
        }
        loop {
            let files = self.archive.files().map_err(|error| error.to_string())?;
            // What was merged just now is a file like the others.
            let followed = self.archive.follow(&mut self.live, &HashSet::new());
            followed.map_err(|error| error.to_string())?;
            self.unsuitable.retain(|id| files.iter().any(|file| file.id == *id));
            let run = self.next_run(compaction, &files);
            if run.is_empty() {
                return Ok(());
            }
            let archive = &self.archive;
            let mut stop = false;
            let mut go_on = || {
                // Until the writer has caught up.
                while !stop && archive.is_busy() {
                    stop = stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout);
                }
                stop = stop || stopped.try_recv() == Err(TryRecvError::Disconnected);
                !stop
            };
            match archive.merge(&run, &mut go_on) {
                Ok(mut merging) => {
                    let finished = merging.finish(archive);
                    let replaced = merging.replaced();
                    if let Err(error) = finished {
                        self.unfinished = Some(merging);
                        return Err(error.to_string());
                    }
                    metrics::MERGED_FILES.add(replaced);
                    tracing::debug!(files = replaced, "merged");
                }
                Err(MergeError::Unsuitable { file, why }) => {
                    tracing::info!(file, why, "this file is not merged with others");
                    self.unsuitable
                        .extend(files.iter().filter(|known| known.name == file).map(|known| known.id));
                }
                Err(MergeError::Stopped) => return Ok(()),
                Err(error @ MergeError::Io(_)) => return Err(error.to_string()),
            }
        }
    }

    /// The next files that shall become one.
    fn next_run<'a>(
        &'a self,
        compaction: Compaction,
        files: &'a [StoredFile],
    ) -> Vec<(&'a StoredFile, &'a Sealed)> {
        let now = Ulid::generate().timestamp_ms();
        for files in files.chunk_by(|file, next| file.is_beside(next)) {
            let place = |file: &'a StoredFile| {
                let suits = self.live.file(&file.name).is_some() && !self.unsuitable.contains(&file.id);
                suits.then_some(file)
            };
            let places: Vec<_> = files.iter().map(place).collect();
            let is_over = files.iter().all(|file| file.is_of_the_past(now));
            let run = compaction.run(&places, is_over);
            let sealed = run.into_iter().filter_map(|file| Some((file, self.live.file(&file.name)?)));
            let run: Vec<_> = sealed.collect();
            if !run.is_empty() {
                return run;
            }
        }
        Vec::new()
    }

    fn fails(&mut self, error: String) {
        metrics::KEEP_ERRORS.add(1);
        if self.trouble.as_ref() != Some(&error) {
            tracing::error!(
                "the record cannot be kept as configured: {error} (see docs/errors.md#keep-failed)"
            );
            self.trouble = Some(error);
        }
    }
}

/// How often the record is looked at.
const EVERY: Duration = Duration::from_secs(5);

/// How long to wait for the thread to end.
const END: Duration = Duration::from_secs(3);

/// How often it is looked whether the writer has caught up.
const PAUSE: Duration = Duration::from_millis(200);

/// The least of all priorities.
const NICE: i32 = 19;
