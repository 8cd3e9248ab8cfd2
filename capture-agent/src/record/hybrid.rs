//! Numbers of a few bits, as Parquet packs them: runs of one number, and groups of eight
//! (`Encodings.md` of the format's specification, "Run Length Encoding / Bit-Packing Hybrid").

/// Bits that hold every number up to `most`.
pub(super) fn width(most: u32) -> u8 {
    // At most 32.
    (u32::BITS - most.leading_zeros()) as u8
}

/// Appends `numbers`, of which each has at most `width` bits.
pub(super) fn encode(numbers: &[u32], width: u8, out: &mut Vec<u8>) {
    // What is not written yet begins here.
    let mut from = 0;
    let mut at = 0;
    while let Some(number) = numbers.get(at) {
        let run = numbers[at..].iter().take_while(|next| *next == number).count();
        // Groups are of eight: the run fills the last of them.
        let filling = (at - from).next_multiple_of(GROUP) - (at - from);
        if run >= filling + GROUP {
            encode_groups(&numbers[from..at + filling], width, out);
            encode_run(*number, run - filling, width, out);
            from = at + run;
        }
        at += run;
    }
    encode_groups(&numbers[from..], width, out);
}

/// Appends `times` times the same number: what [`encode`] makes of them.
pub(super) fn encode_same(number: u32, times: usize, width: u8, out: &mut Vec<u8>) {
    if times < GROUP {
        encode_groups(&[number; GROUP][..times], width, out);
    } else {
        encode_run(number, times, width, out);
    }
}

/// Appends `times` times the same number, as a run.
pub(super) fn encode_run(number: u32, times: usize, width: u8, out: &mut Vec<u8>) {
    if times > 0 {
        encode_length(times << 1, out);
        out.extend_from_slice(&number.to_le_bytes()[..usize::from(width.div_ceil(8))]);
    }
}

/// Appends numbers in groups of eight, the last one filled up with zeros: the reader knows how many there are.
fn encode_groups(numbers: &[u32], width: u8, out: &mut Vec<u8>) {
    if numbers.is_empty() {
        return;
    }
    encode_length(numbers.len().div_ceil(GROUP) << 1 | 1, out);
    let mut bits: u64 = 0;
    let mut held = 0;
    let filled = numbers.len().next_multiple_of(GROUP) - numbers.len();
    for number in numbers.iter().copied().chain(std::iter::repeat_n(0, filled)) {
        bits |= u64::from(number) << held;
        held += width;
        while held >= 8 {
            // The lowest byte is the first.
            out.push(bits.to_le_bytes()[0]);
            bits >>= 8;
            held -= 8;
        }
    }
}

/// Seven bits a byte, the lowest first (ULEB128).
fn encode_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    out.push(length.to_le_bytes()[0]);
}

/// Numbers of a group.
const GROUP: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the specification says.
    fn decode(mut bytes: &[u8], width: u8, count: usize) -> Vec<u32> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            let (mut header, mut shift) = (0, 0);
            loop {
                let byte = bytes[0];
                bytes = &bytes[1..];
                header |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    break;
                }
            }
            if header & 1 == 0 {
                let mut value = [0; 4];
                let size = usize::from(width.div_ceil(8));
                value[..size].copy_from_slice(&bytes[..size]);
                bytes = &bytes[size..];
                numbers.extend(std::iter::repeat_n(u32::from_le_bytes(value), header >> 1));
                assert!(numbers.len() <= count, "a run beyond the end");
            } else {
                let packed = (header >> 1) * usize::from(width);
                let bit = |at: usize| u32::from(bytes[at / 8] >> (at % 8) & 1);
                for n in 0..(header >> 1) * 8 {
                    let bits = (0..usize::from(width)).map(|b| bit(n * usize::from(width) + b) << b);
                    numbers.push(bits.sum());
                }
                bytes = &bytes[packed..];
            }
        }
        assert!(bytes.is_empty());
        numbers.truncate(count);
        numbers
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(runs: Vec<(u32, u8)>, most in 0..u32::MAX) {
            let runs = runs.iter().map(|(number, times)| (number % (most.saturating_add(1)), times % 21));
            let numbers: Vec<u32> =
                runs.flat_map(|(number, times)| std::iter::repeat_n(number, times.into())).collect();
            let mut bytes = Vec::new();
            encode(&numbers, width(most), &mut bytes);
            prop_assert_eq!(decode(&bytes, width(most), numbers.len()), numbers);
        }

        #[test]
        fn the_same_number_is_encoded_likewise(number: u32, times in 0..40_usize) {
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            encode_same(number, times, width(number), &mut bytes);
            encode(&vec![number; times], width(number), &mut expected);
            prop_assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn a_number_that_repeats_costs_next_to_nothing() {
        let mut bytes = Vec::new();
        encode(&[5; 1_000], width(7), &mut bytes);
        assert_eq!(bytes, [0xd0, 0x0f, 5]);
        assert_eq!([width(0), width(1), width(2), width(255), width(256)], [0, 1, 2, 8, 9]);
    }
}
