//! How much the core does per second, on recorded streams: `cargo bench -p capture-agent --bench core`, and a name to
//! choose by. Wall time, on one thread: only figures of one machine compare, and only while it is idle.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

mod streams;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use streams::Recording;
use streams::work::{Copy, Exchanges, Frames, Rows, Work};

fn main() {
    divan::main();
}

/// Bytes to frames.
#[divan::bench]
fn frames(bencher: Bencher<'_, '_>) {
    items(bencher, Frames::new());
}

/// Bytes to exchanges: executions of a prepared statement.
#[divan::bench]
fn exchanges_prepared(bencher: Bencher<'_, '_>) {
    items(bencher, Exchanges::new(Recording::prepared()));
}

/// Bytes to exchanges: simple queries.
#[divan::bench]
fn exchanges_simple(bencher: Bencher<'_, '_>) {
    items(bencher, Exchanges::new(Recording::simple()));
}

/// Bytes of a COPY to rows.
#[divan::bench]
fn copy_in(bencher: Bencher<'_, '_>) {
    bytes(bencher, Copy::new(Recording::copy_in()));
}

/// The same to the client.
#[divan::bench]
fn copy_out(bencher: Bencher<'_, '_>) {
    bytes(bencher, Copy::new(Recording::copy_out()));
}

/// Values of a result to columns and, when these are full, to batches: four of them, for which the writer's queue has room,
/// so that it is not the writer that is measured.
#[divan::bench(sample_size = 1, sample_count = 50)]
fn rows_to_arrow(bencher: Bencher<'_, '_>) {
    let items = PASSES * Rows::new().pass();
    bencher.counter(ItemsCount::new(items)).with_inputs(Rows::new).bench_local_refs(|work| {
        for _ in 0..PASSES {
            work.pass();
        }
    });
}

fn items(bencher: Bencher<'_, '_>, mut work: impl Work) {
    // Buffers have their sizes after the first pass.
    let items = work.pass();
    bencher.counter(ItemsCount::new(items)).bench_local(|| work.pass());
}

fn bytes(bencher: Bencher<'_, '_>, mut work: impl Work) {
    let bytes = work.pass();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| work.pass());
}

/// Of 250 rows each.
const PASSES: u64 = 131;
