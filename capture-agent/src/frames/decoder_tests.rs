use proptest::prelude::*;

use super::*;

fn all(_: u8, body: u32) -> usize {
    body as usize
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn messages(side: Side) -> Decoder {
    let mut decoder = Decoder::new(side);
    decoder.set_mode(Mode::Messages);
    decoder
}

/// Tag, offset, length, holed, truncated, body.
type Seen = (u8, u64, u64, bool, bool, Vec<u8>);

/// Feeds `pieces`; the frames, and what broke the stream.
fn feed(decoder: &mut Decoder, pieces: &[&[u8]], keep: usize) -> (Vec<Seen>, Option<(u64, FrameError)>) {
    let mut seen = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            match decoder.next(&mut input, |_, length| keep.min(length as usize)) {
                Step::Pending => break,
                Step::Frame(frame) => seen.push((
                    frame.tag,
                    frame.offset,
                    frame.wire,
                    frame.holed,
                    frame.truncated,
                    frame.body().to_vec(),
                )),
                Step::Encrypted => return (seen, None),
                Step::Broken { offset, error } => return (seen, Some((offset, error))),
            }
        }
    }
    (seen, None)
}

#[test]
fn a_message_in_one_piece_is_borrowed() {
    let bytes = message(b'Q', b"SELECT 1\0");
    let mut decoder = messages(Side::Frontend);
    let mut input = bytes.as_slice();
    let Step::Frame(frame) = decoder.next(&mut input, all) else { panic!("no frame") };
    assert_eq!(frame.body().as_ptr(), bytes[5..].as_ptr());
    assert_eq!(decoder.held(), 0);
}

#[test]
fn a_large_body_is_moved_not_copied() {
    let bytes = message(b'Q', &vec![b'x'; 100_000]);
    let mut decoder = messages(Side::Frontend);
    for piece in bytes.chunks(8_192) {
        let mut input = piece;
        if let Step::Frame(frame) = decoder.next(&mut input, all) {
            let place = frame.body().as_ptr();
            let body = frame.into_body(Vec::new());
            assert_eq!((body.as_ptr(), body.len()), (place, 100_000));
        }
    }
    assert_eq!(decoder.held(), 0);
}

#[test]
fn a_claimed_length_reserves_nothing() {
    let mut decoder = messages(Side::Backend);
    let header = [&[b'D'][..], &0x3fff_fff0_u32.to_be_bytes(), b"abc"].concat();
    feed(&mut decoder, &[&header], usize::MAX);
    assert!(decoder.held() <= SMALLEST);
}

#[test]
fn an_unwanted_body_is_passed_over_without_being_kept() {
    let bytes = [message(b'D', &vec![7; 50_000]), message(b'Z', b"I")].concat();
    let mut decoder = messages(Side::Backend);
    let pieces: Vec<_> = bytes.chunks(1_000).collect();
    let (seen, broken) = feed(&mut decoder, &pieces, 10);
    assert_eq!(broken, None);
    assert_eq!((seen[0].2, seen[0].4, seen[0].5.len()), (50_005, true, 10));
    assert_eq!(seen[1].0, b'Z');
    assert!(decoder.held() <= SMALLEST);
}

#[test]
fn secrets_end_here() {
    let password = message(b'p', b"hunter2\0");
    let pieces: Vec<_> = password.chunks(3).collect();
    for pieces in [vec![password.as_slice()], pieces] {
        let (seen, _) = feed(&mut messages(Side::Frontend), &pieces, usize::MAX);
        assert_eq!(seen[0].5, b"");
    }
    let salt = message(b'R', &[0, 0, 0, 5, 1, 2, 3, 4]);
    let key = message(b'K', &[0, 0, 1, 0, 9, 9, 9, 9]);
    let bytes = [salt, key].concat();
    let pieces: Vec<_> = bytes.chunks(4).collect();
    for pieces in [vec![bytes.as_slice()], pieces] {
        let (seen, _) = feed(&mut messages(Side::Backend), &pieces, usize::MAX);
        assert_eq!(
            (seen[0].5.as_slice(), seen[1].5.as_slice()),
            ([0, 0, 0, 5].as_slice(), [0, 0, 1, 0].as_slice())
        );
    }
    let cancel = [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 1, 0, 9, 9, 9, 9];
    let (seen, _) = feed(&mut Decoder::new(Side::Frontend), &[&cancel], usize::MAX);
    assert_eq!(seen[0].5, cancel[4..12]);
}

#[test]
fn lengths_are_refused_where_the_receiver_refuses_them() {
    let refused = |side, tag, length: u32| {
        let bytes = [&[tag][..], &length.to_be_bytes()].concat();
        matches!(feed(&mut messages(side), &[&bytes], 0).1, Some((0, FrameError::Length { .. })))
    };
    assert!(refused(Side::Frontend, b'Q', 3));
    assert!(!refused(Side::Frontend, b'Q', tag::LARGE));
    assert!(refused(Side::Frontend, b'Q', tag::LARGE + 1));
    assert!(!refused(Side::Frontend, b'S', tag::SMALL));
    assert!(refused(Side::Frontend, b'S', tag::SMALL + 1));
    assert!(refused(Side::Frontend, b'Q', u32::MAX));
    assert!(refused(Side::Backend, b'Z', tag::MAX_SHORT_REPLY + 1));
    assert!(!refused(Side::Backend, b'D', tag::MAX_SHORT_REPLY + 1));
}

#[test]
fn a_bad_tag_is_known_from_its_first_byte() {
    let (seen, broken) = feed(&mut messages(Side::Frontend), &[&message(b'S', b""), b"!"], 0);
    assert_eq!(seen.len(), 1);
    assert_eq!(broken, Some((5, FrameError::Tag { tag: b'!' })));
}

#[test]
fn startup_packets_are_measured_as_the_server_measures_them() {
    let broken = |length: u32| {
        matches!(
            feed(&mut Decoder::new(Side::Frontend), &[&length.to_be_bytes()], 0).1,
            Some((0, FrameError::StartupLength { .. }))
        )
    };
    assert!(broken(7) && !broken(8) && !broken(10_004) && broken(10_005) && broken(u32::MAX));
}

#[test]
fn a_hole_in_a_body_keeps_the_sync() {
    let bytes = [message(b'Q', &[b'x'; 100]), message(b'S', b"")].concat();
    let mut decoder = messages(Side::Frontend);
    feed(&mut decoder, &[&bytes[..50]], usize::MAX);
    assert_eq!(decoder.lose(55), None);
    let (seen, _) = feed(&mut decoder, &[b"", &bytes[105..]], usize::MAX);
    assert_eq!((seen[0].0, seen[0].3, seen[0].5.len()), (b'Q', true, 45));
    assert_eq!((seen[1].0, seen[1].1), (b'S', 105));
}

#[test]
fn a_hole_anywhere_else_loses_it() {
    let bytes = [message(b'Q', &[b'x'; 100]), message(b'S', b"")].concat();
    for (before, lost, since) in [(0, 1, 0), (3, 1, 0), (50, 56, 0), (105, 1, 105), (107, 2, 105)] {
        let mut decoder = messages(Side::Frontend);
        feed(&mut decoder, &[&bytes[..before]], usize::MAX);
        assert_eq!(decoder.lose(lost), Some(since), "{before}");
        assert_eq!(decoder.mode(), Mode::OutOfSync);
    }
}

#[test]
fn a_second_hole_that_loses_the_sync_does_not_count_the_first_again() {
    let bytes = message(b'Q', &[b'x'; 100]);
    let mut decoder = messages(Side::Frontend);
    feed(&mut decoder, &[&bytes[..20]], usize::MAX);
    assert_eq!(decoder.lose(10), None);
    feed(&mut decoder, &[&bytes[30..50]], usize::MAX);
    assert_eq!(decoder.lose(200), Some(30));
}

#[test]
fn the_answer_to_an_ssl_request_is_a_byte_or_an_error() {
    let negotiation = || {
        let mut decoder = Decoder::new(Side::Backend);
        decoder.set_mode(Mode::Negotiation);
        decoder
    };
    let (seen, _) = feed(&mut negotiation(), &[b"N"], 0);
    assert_eq!((seen[0].0, seen[0].5.as_slice()), (tag::NEGOTIATION, b"N".as_slice()));
    let error = message(b'E', b"SFATAL\0\0");
    let pieces: Vec<_> = error.chunks(2).collect();
    let (seen, _) = feed(&mut negotiation(), &pieces, usize::MAX);
    assert_eq!((seen[0].0, seen[0].5.as_slice()), (b'E', b"SFATAL\0\0".as_slice()));
}

#[test]
fn messages_that_follow_each_other_come_in_one_piece() {
    let rows = [message(b'D', b"one"), message(b'D', b""), message(b'D', b"three")].concat();
    let bytes = [rows.clone(), message(b'C', b"SELECT 3\0"), message(b'D', b"x")].concat();
    let mut decoder = messages(Side::Backend);
    let mut input = bytes.as_slice();
    // As many as are asked for, in number and bytes.
    assert_eq!(decoder.run(b'D', &mut input, 1, 99), (&rows[..8], 1));
    assert_eq!(decoder.run(b'D', &mut input, 9, 4), (&rows[8..13], 1));
    assert_eq!(decoder.run(b'D', &mut input, 9, 5), (&rows[13..], 1));
    assert_eq!((decoder.offset(), decoder.run(b'D', &mut input, 9, 9).1), (rows.len() as u64, 0));
    assert!(matches!(decoder.next(&mut input, all), Step::Frame(frame) if frame.tag == b'C'));
}

#[test]
fn a_run_follows_a_gathered_message_and_ends_before_one_that_is_not_whole() {
    let row = message(b'D', b"abc");
    let stream = row.repeat(4);
    let mut decoder = messages(Side::Backend);
    let (mut first, mut second) = stream.split_at(6);
    assert!(matches!(decoder.next(&mut first, all), Step::Pending));
    assert_eq!(decoder.run(b'D', &mut second, 9, 99).1, 0, "not in the middle of a message");
    assert!(matches!(decoder.next(&mut second, all), Step::Frame(frame) if frame.body() == b"abc"));
    let mut cut = &second[..second.len() - 1];
    assert_eq!(decoder.run(b'D', &mut cut, 9, 99), (&row.repeat(2)[..], 2));
    assert_eq!((decoder.offset(), cut.len()), (24, 7));
    assert!(matches!(decoder.next(&mut cut, all), Step::Pending));
    // What is secret, and what breaks the protocol, is left to `next`.
    let mut decoder = messages(Side::Backend);
    for other in [message(b'R', b"\0\0\0\x05salt"), message(b'K', b"1234key!"), b"D\0\0\0\x03".to_vec()] {
        let mut input = other.as_slice();
        assert_eq!(decoder.run(other[0], &mut input, 9, 99).1, 0);
    }
}

proptest! {
    #[test]
    fn the_cut_does_not_matter(
        frames in prop::collection::vec((0_usize..13, prop::collection::vec(any::<u8>(), 0..300)), 0..12),
        noise in prop::collection::vec(any::<u8>(), 0..12),
        sizes in prop::collection::vec(1_usize..40, 1..6),
        keep in 0_usize..400,
        startup in any::<bool>(),
    ) {
        let tags = b"QPBDECSHFdcfp";
        let mut bytes: Vec<u8> = frames.iter().flat_map(|(tag, body)| message(tags[*tag], body)).collect();
        bytes.extend(noise);
        let decoder = || if startup { Decoder::new(Side::Frontend) } else { messages(Side::Frontend) };
        let whole = feed(&mut decoder(), &[&bytes], keep);
        let mut pieces = Vec::new();
        let mut rest = bytes.as_slice();
        for size in sizes.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(size.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        prop_assert_eq!(whole, feed(&mut decoder(), &pieces, keep));
    }
}
