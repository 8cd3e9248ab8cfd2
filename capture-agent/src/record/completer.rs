//! The thread that completes files: brings them to the disk, seals them and gives them their names.
//!
//! That takes a handful of waits for the disk, on a busy one a tenth of a second each. Meanwhile the writer goes on with the next
//! rows: what it does not take from the queue in that time, the ring loses.

use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{Builder, JoinHandle};

use super::disk::Disk;
use super::filling::Filling;
use super::lsn::Lsn;

/// The writer's end.
///
/// It is given files when it is done with the earlier ones: what waits for a slow disk is no more than these.
pub(super) struct Completer {
    files: Sender<Vec<Filling>>,
    done: Receiver<()>,
    /// Files that it has been given and is not done with.
    at_work: bool,
    /// The first row of these in the journal.
    first: Option<Lsn>,
    thread: JoinHandle<()>,
}

impl Completer {
    /// Starts the thread.
    pub(super) fn start(mut disk: Disk) -> io::Result<Self> {
        let (files, given) = channel::<Vec<Filling>>();
        let (tell, done) = channel();
        let thread = Builder::new().name("complete".to_owned()).spawn(move || {
            for files in given {
                files.into_iter().for_each(|file| file.publish(&mut disk));
                // Nobody listens any more if the writer has ended.
                let _ = tell.send(());
            }
        })?;
        Ok(Self { files, done, at_work: false, first: None, thread })
    }

    /// Completes these files. Waits until it is done with the ones before.
    pub(super) fn complete(&mut self, files: Vec<Filling>) {
        if files.is_empty() {
            return;
        }
        self.wait();
        let first = files.iter().filter_map(|file| file.spans().first()).min();
        // It takes nothing any more if it has ended, which `finish` finds.
        if self.files.send(files).is_ok() {
            (self.at_work, self.first) = (true, first);
        }
    }

    /// Whether it is at work.
    pub(super) fn is_busy(&mut self) -> bool {
        if self.at_work && self.done.try_recv() != Err(TryRecvError::Empty) {
            (self.at_work, self.first) = (false, None);
        }
        self.at_work
    }

    /// Waits until it is done.
    pub(super) fn wait(&mut self) {
        if self.at_work {
            let _ = self.done.recv();
            (self.at_work, self.first) = (false, None);
        }
    }

    /// The first row in the journal of the files that it is at work on.
    pub(super) fn first(&self) -> Option<Lsn> {
        self.first
    }

    /// Ends it when it is done.
    pub(super) fn finish(self) {
        let Self { files, thread, .. } = self;
        drop(files);
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
}
