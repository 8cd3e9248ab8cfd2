//! Whatever offsets come, a ledger adds up: no byte is counted twice, and none is forgotten.
//!
//! Input: events of three bytes each, an offset of 16 bits and a length of 8.
#![no_main]

use capture_agent::streams::Ledger;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let bytes = [0u8; 255];
    let mut ledger = Ledger::default();
    let (mut captured, mut lost) = (0u64, 0u64);
    for event in input.chunks_exact(3) {
        let offset = u64::from(u16::from_le_bytes([event[0], event[1]]));
        let before = ledger.next();
        let accepted = ledger.accept(offset, &bytes[..usize::from(event[2])], None);
        if let Some(hole) = accepted.hole {
            assert!(hole.length > 0 && hole.offset == before && hole.offset + hole.length == accepted.offset);
            lost += hole.length;
        }
        captured += accepted.bytes.len() as u64;
        assert!(ledger.next() >= before);
        assert_eq!(ledger.captured(), captured);
        assert_eq!(ledger.lost(), lost);
        assert_eq!(ledger.next(), captured + lost);
    }
    let end = ledger.next() + 7;
    let hole = ledger.advance(end, None).expect("the stream is ahead of the ledger");
    assert_eq!((hole.length, ledger.next()), (7, end));
    assert_eq!(ledger.advance(0, None), None, "a ledger does not go back");
});
