//! Spools that are filled, read, killed and damaged.

use super::*;

const JOURNAL: u128 = 7;
const SOON: Duration = Duration::from_millis(20);

fn open(folder: &Path, limit: u64) -> (Spool, Option<Position>) {
    Spool::open(folder.to_owned(), limit).unwrap()
}

/// Appends events, which say their numbers; their positions are ten times these.
fn append(spool: &Spool, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let mut lines = Lines::default();
        lines.event(
            number * 10,
            number,
            format!("{{\"n\":{number},\"fill\":\"{}\"}}", "x".repeat(60)).as_bytes(),
        );
        spool.append(&lines, Position { journal: JOURNAL, next: number * 10 }).unwrap();
    }
}

fn numbers(spool: &Spool, cursor: &mut Cursor, most: usize) -> Result<Vec<u64>, Next> {
    match spool.next(cursor, most, 1 << 20, SOON).unwrap() {
        Next::Events(events) => Ok(events.iter().map(|event| event.number).collect()),
        other => Err(other),
    }
}

#[test]
fn what_is_appended_is_read_in_order_and_what_was_not_taken_is_read_again_by_the_next_agent() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, position) = open(folder.path(), 1 << 20);
    assert_eq!(position, None);
    let mut lines = Lines::default();
    lines.position(JOURNAL, 5);
    spool.append(&lines, Position { journal: JOURNAL, next: 5 }).unwrap();
    append(&spool, 0..5);
    let mut cursor = spool.cursor();
    assert_eq!(numbers(&spool, &mut cursor, 3), Ok(vec![0, 1, 2]));
    spool.taken(2).unwrap();
    assert_eq!(numbers(&spool, &mut cursor, 9), Ok(vec![3, 4]));
    assert_eq!(numbers(&spool, &mut cursor, 9), Err(Next::Nothing));
    assert_eq!(spool.waiting().0, 3);

    // Killed: the next one knows from the lines alone.
    let (spool, position) = open(folder.path(), 1 << 20);
    assert_eq!(position, Some(Position { journal: JOURNAL, next: 41 }));
    assert_eq!(spool.next_number(), 5);
    let mut cursor = spool.cursor();
    assert_eq!(numbers(&spool, &mut cursor, 9), Ok(vec![2, 3, 4]));
    append(&spool, 5..6);
    assert_eq!(numbers(&spool, &mut cursor, 9), Ok(vec![5]));
    spool.close(SOON);
    assert_eq!(numbers(&spool, &mut cursor, 9), Err(Next::Closed));
}

#[test]
fn a_full_spool_drops_the_oldest_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = open(folder.path(), 8_000);
    let mut cursor = spool.cursor();
    append(&spool, 0..2);
    assert_eq!(numbers(&spool, &mut cursor, 1), Ok(vec![0]));
    append(&spool, 2..1_000);
    assert!(spool.waiting().1 <= 8_000, "{:?}", spool.waiting());
    let Err(Next::Lost(first, last)) = numbers(&spool, &mut cursor, 9) else { panic!("nothing is lost") };
    assert!(first == 1 && last > 800, "{first} to {last}");
    let mut seen = last;
    while let Ok(more) = numbers(&spool, &mut cursor, 100) {
        assert_eq!(more.first(), Some(&(seen + 1)));
        seen = *more.last().unwrap();
    }
    assert_eq!(seen, 999);
    spool.taken(1_000).unwrap();
    assert_eq!(list(folder.path()).unwrap().len(), 1, "what is taken is removed");
    let (spool, _) = open(folder.path(), 8_000);
    assert_eq!((spool.next_number(), spool.waiting().0), (1_000, 0));
}

#[test]
fn a_torn_end_is_cut_off_and_a_damaged_line_is_declared_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = open(folder.path(), 1 << 20);
    append(&spool, 0..4);
    let path = list(folder.path()).unwrap().pop_back().unwrap().path;
    let mut bytes = fs::read(&path).unwrap();
    let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 20;
    bytes[second] ^= 1;
    bytes.extend_from_slice(b"0badc0de E 40 4 {\"torn");
    fs::write(&path, bytes).unwrap();
    let (spool, _) = open(folder.path(), 1 << 20);
    assert_eq!(spool.next_number(), 4);
    append(&spool, 4..6);
    let mut cursor = spool.cursor();
    assert_eq!(numbers(&spool, &mut cursor, 9), Ok(vec![0]));
    assert_eq!(numbers(&spool, &mut cursor, 9), Err(Next::Lost(1, 1)));
    assert_eq!(numbers(&spool, &mut cursor, 9), Ok(vec![2, 3, 4, 5]));
}

#[test]
fn a_number_is_never_used_twice_even_if_the_lines_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = open(folder.path(), 1 << 20);
    append(&spool, 0..4);
    spool.taken(4).unwrap();
    for segment in list(folder.path()).unwrap() {
        fs::remove_file(segment.path).unwrap();
    }
    let (spool, position) = open(folder.path(), 1 << 20);
    assert_eq!((spool.next_number(), position), (4, None));
    append(&spool, 4..5);
    assert_eq!(numbers(&spool, &mut spool.cursor(), 9), Ok(vec![4]));
}
