//! What `cargo xtask instructions` counts. Without arguments it says what there is: name, what an item is, how often a
//! recording is to be passed over, and on how many threads counting is exact. With a name and a number of passes it does that, and prints
//! how many items it was.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its result")]
#![expect(clippy::unwrap_used, reason = "a benchmark")]

mod streams;

use streams::Recording;
use streams::work::{Copy, Exchanges, Frames, Rows, Statements, Work};

/// A line of the list, and what makes the work.
type Entry = (&'static str, &'static str, u64, u64, fn() -> Box<dyn Work>);

/// Enough passes that what is not of the items vanishes: batches of 8,192 rows are handed over whole.
///
/// Two threads where the writer's figure is steady: that of rows varies by a per cent, with when its batches come.
const ALL: [Entry; 7] = [
    ("frames", "frame", 100, 1, || Box::new(Frames::new())),
    ("exchanges, prepared", "exchange", 40, 1, || Box::new(Exchanges::new(Recording::prepared()))),
    ("exchanges, simple", "exchange", 80, 1, || Box::new(Exchanges::new(Recording::simple()))),
    ("COPY in", "byte", 100, 1, || Box::new(Copy::new(Recording::copy_in()))),
    ("COPY out", "byte", 100, 1, || Box::new(Copy::new(Recording::copy_out()))),
    ("rows to Arrow", "row", 131, 1, || Box::new(Rows::new())),
    ("statements, recorded", "statement", 8, 2, || Box::new(Statements::new())),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(wanted) = arguments.next() else {
        for (name, item, passes, threads, _) in ALL {
            println!("{name}\t{item}\t{passes}\t{threads}");
        }
        return;
    };
    let (.., make) = ALL.iter().find(|(name, ..)| *name == wanted).unwrap();
    let passes: u64 = arguments.next().unwrap().parse().unwrap();
    let mut work = make();
    let items: u64 = (0..passes).map(|_| work.pass()).sum();
    drop(work);
    println!("{items}");
}
