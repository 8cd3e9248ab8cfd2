//! The journal alone: what goes in comes out, and bytes that are no journal do no harm.

use std::fs;

use proptest::prelude::*;

use super::super::fixture::calls::{Call, Ledger, calls, play};
use super::super::settled::Settled;
use super::lock::LockError;
use super::*;

/// What is replayed, as text, since what sessions say has no equality.
#[derive(Default)]
struct Told(Vec<(Lsn, String)>);

impl Rows for Told {
    fn row(&mut self, lsn: Lsn, session: &SessionInfo, row: RowValues<'_>) {
        self.0.push((lsn, format!("{session:?} {row:?}")));
    }

    fn rows(&mut self, lsn: Lsn, session: &SessionInfo, run: RowRun<'_>) {
        run.each(|row| self.row(lsn, session, row));
    }

    fn statement(&mut self, lsn: Lsn, session: &SessionInfo, exchange: &Exchange) {
        self.0.push((lsn, format!("{session:?} {exchange:?}")));
    }

    fn gap(&mut self, lsn: Lsn, session: &SessionInfo, gap: &Gap) {
        self.0.push((lsn, format!("{session:?} {gap:?}")));
    }

    fn end(&mut self, lsn: Lsn, session: &SessionInfo, end: &SessionEnd) {
        self.0.push((lsn, format!("{session:?} {end:?}")));
    }

    fn decision(&mut self, lsn: Lsn, session: Option<&SessionInfo>, decision: &Decision) {
        self.0.push((lsn, format!("{session:?} {decision:?}")));
    }

    fn loss(&mut self, lsn: Lsn, loss: &Loss) {
        self.0.push((lsn, format!("{loss:?}")));
    }
}

/// Writes to a journal, and tells the same to somebody else.
struct Both<'a>(&'a mut Journal, &'a mut Told);

impl crate::session::Sink for Both<'_> {
    fn row(&mut self, session: &SessionInfo, row: RowValues<'_>) {
        self.1.row(self.0.row(session, &row), session, row);
    }

    fn rows(&mut self, session: &SessionInfo, run: RowRun<'_>) {
        self.1.rows(self.0.rows(session, &run), session, run);
    }

    fn statement(&mut self, session: &SessionInfo, exchange: &Exchange) {
        self.1.statement(self.0.statement(session, exchange), session, exchange);
    }

    fn gap(&mut self, session: &SessionInfo, gap: &Gap) {
        self.1.gap(self.0.gap(session, gap), session, gap);
    }

    fn end(&mut self, session: &SessionInfo, end: &SessionEnd) {
        self.1.end(self.0.end(session, end), session, end);
    }
}

impl Ledger for Both<'_> {
    fn decision(&mut self, session: Option<&SessionInfo>, decision: &Decision) {
        self.1.decision(self.0.decision(session, decision), session, decision);
    }
}

fn begin(folder: &Path, segment_bytes: u64) -> Journal {
    let (mut journal, found) = Journal::open(folder.to_owned(), segment_bytes).unwrap();
    journal.begin(Lsn(0), &found);
    assert!(journal.segment.is_some());
    journal
}

fn replayed(folder: &Path) -> (Found, Vec<(Lsn, String)>) {
    let found = Found::look(folder).unwrap();
    let mut told = Told::default();
    let rows = found.replay(&Settled::default(), None, &mut told).unwrap();
    assert_eq!(rows, told.0.len() as u64);
    (found, told.0)
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    segment::list(folder).unwrap().into_iter().map(|(_, path)| path).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_committed_is_replayed_as_it_was_told(
        transactions in proptest::collection::vec(calls(), 0..6),
        segment_bytes in 200u64..20_000,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = begin(folder.path(), segment_bytes);
        let mut told = Told::default();
        for (position, calls) in transactions.iter().enumerate() {
            let committed = replayed(folder.path()).1;
            prop_assert_eq!(&committed, &told.0);
            play(calls, &mut Both(&mut journal, &mut told));
            journal.commit(position as u64);
        }
        let (found, rows) = replayed(folder.path());
        prop_assert_eq!(rows, told.0);
        prop_assert_eq!(found.position, transactions.len().checked_sub(1).map(|last| last as u64));
    }

    #[test]
    fn a_journal_that_is_cut_or_altered_yields_whole_transactions_only(
        transactions in proptest::collection::vec(calls(), 1..4),
        at: prop::sample::Index,
        bit in 0u8..9,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = begin(folder.path(), 1 << 20);
        let mut told = Told::default();
        let mut ends = vec![(segment_length(folder.path()), 0)];
        for calls in &transactions {
            play(calls, &mut Both(&mut journal, &mut told));
            journal.commit(7);
            ends.push((segment_length(folder.path()), told.0.len()));
        }
        let [segment] = &segments(folder.path())[..] else { panic!("one segment is enough") };
        let mut bytes = fs::read(segment).unwrap();
        let at = at.index(bytes.len());
        match bytes.get_mut(at).zip(1u8.checked_shl(u32::from(bit))) {
            Some((byte, bit)) => *byte ^= bit,
            None => bytes.truncate(at),
        }
        fs::write(segment, bytes).unwrap();
        let Ok(found) = Found::look(folder.path()) else { return Ok(()) };
        let mut rows = Told::default();
        found.replay(&Settled::default(), None, &mut rows).unwrap();
        let expected = ends.iter().rfind(|(end, _)| *end <= at).map_or(0, |(_, rows)| *rows);
        // Only the mark of an interruption may differ without a row being cut off.
        let expected = if (12..16).contains(&at) && bit < 8 { told.0.len() } else { expected };
        prop_assert_eq!(&rows.0[..], &told.0[..expected]);
    }

    #[test]
    fn bytes_that_are_no_journal_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
        // Behind a checksum that is right.
        read_all(&frame_of(&bytes));
        // As the body of a record of each kind.
        for kind in 0..=kind::DECISION + 1 {
            let mut record = vec![kind];
            record.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            record.extend_from_slice(&bytes);
            prop_assert_eq!(read_all(&frame_of(&record)).0, 1);
        }
    }

    #[test]
    fn an_altered_record_behind_a_right_checksum_does_no_harm(calls in calls(), at: prop::sample::Index, to: u8) {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = begin(folder.path(), 1 << 20);
        play(&calls, &mut Both(&mut journal, &mut Told::default()));
        let mut frame = std::mem::take(&mut journal.buffer);
        prop_assume!(frame.len() > frame::HEADER);
        let at = frame::HEADER + at.index(frame.len() - frame::HEADER);
        frame[at] = to;
        frame::seal(&mut frame, &[], Lsn(0), true);
        read_all(&frame);
    }
}

fn segment_length(folder: &Path) -> usize {
    segments(folder).iter().map(|path| fs::metadata(path).unwrap().len() as usize).sum()
}

#[test]
fn large_values_are_replayed_from_where_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = begin(folder.path(), 64 << 20);
    let mut told = Told::default();
    let calls = [Call::large(1, 200_000), Call::large(2, WRITTEN_IN_PLACE), Call::large(3, 3 << 20)];
    play(&calls, &mut Both(&mut journal, &mut told));
    assert!(journal.buffer.len() < WRITTEN_IN_PLACE, "{} bytes were copied", journal.buffer.len());
    assert!(replayed(folder.path()).1.is_empty());
    journal.commit(1);
    assert_eq!(replayed(folder.path()).1, told.0);
}

#[test]
fn the_newest_states_survive_every_turn_of_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = begin(folder.path(), 1_000);
    let large: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    journal.save_state([1; 16], b"old");
    journal.save_state([2; 16], &large);
    journal.save_state([3; 16], b"");
    journal.commit(10);
    journal.save_state([1; 16], b"new");
    journal.save_state([4; 16], b"forgotten");
    journal.forget_state(&[4; 16]);
    journal.commit(20);
    for position in 21..24 {
        journal.save_state([5; 16], &vec![b'x'; 5_000]);
        journal.commit(position);
    }
    journal.save_state([1; 16], b"not committed");
    assert!(segments(folder.path()).len() > 3);
    drop(journal);
    // Once more through the checkpoint of the next agent.
    drop(begin(folder.path(), 1_000));
    let (found, _) = replayed(folder.path());
    assert_eq!(found.position, Some(23));
    let mut states: Vec<_> = found.into_states();
    states.sort();
    let expected = [(1, b"new".to_vec()), (2, large), (3, Vec::new()), (5, vec![b'x'; 5_000])]
        .map(|(key, state)| ([key; 16], state));
    assert!(
        states == expected,
        "{:?}",
        states.iter().map(|(key, state)| (key[0], state.len())).collect::<Vec<_>>()
    );
}

#[test]
fn a_checkpoint_that_is_torn_leaves_the_one_before_it_valid() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = begin(folder.path(), 64 << 10);
    journal.save_state([1; 16], b"state");
    journal.commit(5);
    drop(journal);
    drop(begin(folder.path(), 64 << 10));
    let last = segments(folder.path()).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    for cut in 0..whole.len() {
        fs::write(&last, &whole[..cut]).unwrap();
        let (found, _) = replayed(folder.path());
        assert_eq!(
            (found.position, found.into_states()),
            (Some(5), vec![([1; 16], b"state".to_vec())]),
            "{cut}"
        );
    }
    // The next agent begins behind it, whatever is left of it.
    drop(begin(folder.path(), 64 << 10));
    assert_eq!(segments(folder.path()).len(), 3);
}

#[test]
fn what_the_journal_missed_makes_its_states_worthless() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = begin(folder.path(), 64 << 10);
    let mut told = Told::default();
    journal.save_state([1; 16], b"state");
    play(&[Call::large(1, 10)], &mut Both(&mut journal, &mut told));
    journal.commit(5);
    journal.fail(&io::Error::other("the test says so"));
    let before = journal.next();
    play(&[Call::large(2, 10)], &mut Both(&mut journal, &mut Told::default()));
    assert!(journal.next() > before, "rows have positions also without a journal");
    let (found, rows) = replayed(folder.path());
    assert_eq!((found.position, found.into_states(), rows), (None, Vec::new(), told.0));
    // A second later it is written again, with the states.
    journal.tick(Micros(10 * RETRY_US));
    journal.commit(6);
    let (found, _) = replayed(folder.path());
    assert_eq!((found.position, found.into_states()), (Some(6), vec![([1; 16], b"state".to_vec())]));
}

#[test]
fn a_journal_that_nobody_takes_rows_from_stops_growing_until_somebody_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = begin(folder.path(), 1_000);
    journal.waiting_bytes = 16_000;
    let mut told = Told::default();
    for position in 0..60 {
        play(&[Call::large(position, 900)], &mut Both(&mut journal, &mut told));
        journal.commit(position);
    }
    assert!(journal.segment.is_none());
    assert!((12..20).contains(&segments(folder.path()).len()));
    journal.shelf.set_settled(journal.next());
    journal.shelf.sweep(false);
    assert!(segments(folder.path()).is_empty());
    journal.tick(Micros(10 * RETRY_US));
    journal.commit(60);
    assert_eq!(replayed(folder.path()).0.position, Some(60));
}

#[test]
fn a_journal_of_a_later_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(begin(folder.path(), 1 << 20));
    let [segment] = &segments(folder.path())[..] else { panic!("one segment") };
    let mut bytes = fs::read(segment).unwrap();
    bytes[8] = VERSION as u8 + 1;
    fs::write(segment, &bytes).unwrap();
    let error = Journal::open(folder.path().to_owned(), 1 << 20).unwrap_err().to_string();
    assert!(
        error.contains(&format!("format {}, this version reads up to {VERSION}", VERSION + 1))
            && error.contains("#journal-version"),
        "{error}"
    );
    assert_eq!(fs::read(segment).unwrap(), bytes);
}

#[test]
fn a_segment_that_somebody_removed_is_made_again_with_the_states() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("journal");
    let mut journal = begin(&folder, 1 << 20);
    journal.save_state([1; 16], b"state");
    journal.commit(1);
    fs::remove_dir_all(&folder).unwrap();
    journal.tick(Micros(1));
    journal.commit(2);
    assert!(matches!(Lock::acquire(&folder), Err(LockError::Held(_))));
    let (found, _) = replayed(&folder);
    assert_eq!((found.position, found.into_states()), (Some(2), vec![([1; 16], b"state".to_vec())]));
}

#[test]
fn the_file_of_the_next_segment_is_made_ahead_and_does_not_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = begin(folder.path(), 8_000);
    // This thread takes the part of the one that waits for the disk.
    journal.shelf.set_worker(std::thread::current());
    let (mut told, spare) = (Told::default(), folder.path().join("spare"));
    let mut write = |journal: &mut Journal, positions: std::ops::Range<u64>| {
        for position in positions {
            play(&[Call::large(position, 900)], &mut Both(journal, &mut told));
            journal.commit(position);
            journal.shelf.make_spare();
        }
    };
    write(&mut journal, 0..1);
    assert!(!spare.exists());
    write(&mut journal, 1..4);
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let ahead = inode(&spare);
    write(&mut journal, 4..12);
    assert_eq!(inode(&segments(folder.path())[1]), ahead);
    assert!(spare.exists(), "no other file was made");
    journal.shelf.set_settled(journal.next());
    journal.close(false);
    assert!(!spare.exists() && segments(folder.path()).is_empty());
}

#[test]
fn a_segment_in_memory_that_was_found_ahead_ends_where_its_frames_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = begin(folder.path(), 8_000);
    journal.shelf.set_worker(std::thread::current());
    let mut told = Told::default();
    for position in 0..40 {
        // Much has come since the last tick.
        journal.ticked = (Lsn(0), FAST);
        play(&[Call::large(position, 900)], &mut Both(&mut journal, &mut told));
        journal.commit(position);
        journal.shelf.make_spare();
        let (found, rows) = replayed(folder.path());
        assert_eq!(rows, told.0);
        assert_eq!((found.next, found.position), (journal.position, Some(position)));
    }
    let warm = segments(folder.path());
    assert!(warm.len() > 3);
    assert!(warm[1..].iter().all(|segment| fs::metadata(segment).unwrap().len() >= 8_000));
}
