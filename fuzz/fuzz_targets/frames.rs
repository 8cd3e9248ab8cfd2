//! However a stream is cut into pieces, a decoder finds the same frames, and it never panics.
//!
//! Input: a byte of choices (bit 0 the side, bit 1 whether the stream begins with a startup packet), a byte that
//! seeds the cuts, then the stream.
#![no_main]

use capture_agent::frames::{Decoder, FrameError, Mode, Side, Step};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [choices, seed, stream @ ..] = input else { return };
    let whole = read(*choices, &[stream]);
    let pieces = cut(stream, *seed);
    assert_eq!(whole, read(*choices, &pieces), "the result depends on the pieces");
});

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Frame { tag: u8, offset: u64, wire: u64, truncated: bool, body: Vec<u8> },
    Encrypted,
    Broken(u64, FrameError),
}

fn read(choices: u8, pieces: &[&[u8]]) -> Vec<Found> {
    let side = if choices & 1 == 0 { Side::Frontend } else { Side::Backend };
    let mut decoder = Decoder::new(side);
    if choices & 2 == 0 {
        decoder.set_mode(Mode::Messages);
    }
    let mut found = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match decoder.next(&mut rest, |_, body| (body as usize).min(KEPT)) {
                Step::Pending => break,
                Step::Frame(frame) => found.push(Found::Frame {
                    tag: frame.tag,
                    offset: frame.offset,
                    wire: frame.wire,
                    truncated: frame.truncated,
                    body: frame.body().to_vec(),
                }),
                Step::Encrypted => found.push(Found::Encrypted),
                Step::Broken { offset, error } => {
                    found.push(Found::Broken(offset, error));
                    break;
                }
            }
            if decoder.mode() == Mode::Startup {
                decoder.set_mode(Mode::Messages);
            }
        }
        // A length that lies must not cost memory.
        assert!(decoder.held() <= 2 * KEPT.max(piece.len()) + 64 * 1024, "held {}", decoder.held());
    }
    found
}

fn cut(stream: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let (mut rest, mut state) = (stream, u32::from(seed) | 1);
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = (state >> 24) as usize % 17 + 1;
        let (piece, tail) = rest.split_at(length.min(rest.len()));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

/// Bytes of a body that are kept: small, so that the limit is met often.
const KEPT: usize = 4096;
