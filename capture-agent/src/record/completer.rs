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
        (self.at_work, self.first) = (true, first);
        if self.files.send(files).is_err() {
            ended();
        }
    }

    /// Whether it is at work.
    pub(super) fn is_busy(&mut self) -> bool {
        if self.at_work {
            match self.done.try_recv() {
                Ok(()) => self.rest(),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => ended(),
            }
        }
        self.at_work
    }

    /// Waits until it is done.
    pub(super) fn wait(&mut self) {
        if self.at_work {
            match self.done.recv() {
                Ok(()) => self.rest(),
                Err(_) => ended(),
            }
        }
    }

    fn rest(&mut self) {
        (self.at_work, self.first) = (false, None);
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

/// It panicked, and has said why. The writer ends too, before anybody takes its files for complete: the next agent finds their rows
/// in the journal.
fn ended() -> ! {
    resume_unwind(Box::new("the thread that completes files ended early"))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn nobody_takes_files_for_complete_when_it_has_ended() {
        let ((files, _), (_, done)) = (channel(), channel());
        let thread = std::thread::spawn(|| {});
        let mut completer = Completer { files, done, at_work: true, first: Some(Lsn(7)), thread };
        assert!(catch_unwind(AssertUnwindSafe(|| completer.is_busy())).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| completer.wait())).is_err());
        assert_eq!(completer.first(), Some(Lsn(7)));
    }
}
