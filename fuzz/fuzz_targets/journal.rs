//! Whatever stands in the journal's folder, the next agent reads what is whole of it, and never panics.
//!
//! Input: a segment behind its header; or, as its bytes hardly ever have a right checksum, the payload of one frame.
#![no_main]

use capture_agent::record::journal::{frame_of, read_all};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    read_all(input);
    let (records, malformed) = read_all(&frame_of(input));
    assert!(malformed <= records);
    assert!(records <= input.len(), "a record takes at least its prefix");
});
