use proptest::prelude::*;

use super::*;

/// A value as a server sends and prints it; see `testdata/values.sql`.
struct Vector {
    type_oid: u32,
    type_name: String,
    binary: Vec<u8>,
    text: String,
}

fn vectors() -> Vec<Vector> {
    include_str!("../../../testdata/values.tsv").lines().map(vector).collect()
}

fn vector(line: &str) -> Vector {
    let fields: Vec<_> = line.split('\t').collect();
    let [type_oid, type_name, binary, text] = fields[..] else { panic!("four fields: {line}") };
    let hex = |at: usize| u8::from_str_radix(&binary[at..at + 2], 16).unwrap();
    Vector {
        type_oid: type_oid.parse().unwrap(),
        type_name: type_name.to_owned(),
        binary: (0..binary.len()).step_by(2).map(hex).collect(),
        text: without_copy_escapes(text),
    }
}

fn without_copy_escapes(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        out.push(match char {
            '\\' => match chars.next().unwrap() {
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                'v' => '\x0b',
                'f' => '\x0c',
                'b' => '\x08',
                other => other,
            },
            plain => plain,
        });
    }
    out
}

fn binary(type_oid: u32, bytes: &[u8]) -> String {
    let mut out = String::new();
    write_text(type_oid, 1, bytes, Encoding::Utf8, &mut out).unwrap();
    out
}

#[test]
fn binary_values_read_as_the_server_prints_them() {
    let vectors = vectors();
    assert!(vectors.len() > 400);
    let wrong: Vec<String> = vectors
        .iter()
        .filter(|vector| binary(vector.type_oid, &vector.binary) != vector.text)
        .map(|vector| {
            let ours = binary(vector.type_oid, &vector.binary);
            format!("{}: server {:?}, ours {ours:?}", vector.type_name, vector.text)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_type_of_the_catalog_has_vectors() {
    let vectors = vectors();
    let without_vectors = (0..10_000).filter(|&oid| {
        Kind::of(oid) != Kind::Unknown && !vectors.iter().any(|vector| vector.type_oid == oid)
    });
    // No expression of these types sends itself: names of catalog objects, pg_node_tree, unknown, refcursor,
    // cstring, void, and arrays of them, of any type.
    let expected = [
        24, 194, 705, 1790, 2202, 2203, 2204, 2205, 2206, 2275, 2277, 2278, 3734, 3769, 4089, 4096, 4191,
        5078, 1008, 1263, 2207, 2208, 2209, 2210, 2211, 3735, 3770, 4090, 4097, 4192,
    ];
    let mut without_vectors: Vec<u32> = without_vectors.filter(|oid| !expected.contains(oid)).collect();
    without_vectors.sort_unstable();
    assert_eq!(without_vectors, [0u32; 0]);
}

#[test]
fn text_values_are_decoded_and_otherwise_left_alone() {
    let mut out = String::new();
    write_text(23, 0, b"42", Encoding::Utf8, &mut out).unwrap();
    write_text(17, 0, b"\\x00", Encoding::Utf8, &mut out).unwrap();
    write_text(25, 0, b"\xe9", Encoding::Latin1, &mut out).unwrap();
    write_text(25, 1, b"\xe9", Encoding::Latin1, &mut out).unwrap();
    assert_eq!(out, "42\\x00\u{e9}\u{e9}");
}

#[test]
fn what_is_no_value_of_its_type_is_hexadecimal() {
    for (type_oid, bytes) in [
        (23, &b"\x00\x00\x01"[..]),
        (23, b"\x00\x00\x00\x00\x01"),
        (20, b""),
        (16, b"ab"),
        (1700, b"\x00\x01\x00\x00\x00\x00\x00\x00"),
        (1700, b"\x00\x01\x00\x00\x00\x00\x00\x00\x27\x10"),
        (1700, b"\x00\x00\x00\x00\x12\x34\x00\x00"),
        (1083, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        (1114, b"\x80\x00\x00\x00\x00\x00\x00\x01"),
        (1082, b"\x80\x00\x00\x01"),
        (869, b"\x02\x21\x00\x04\x01\x02\x03\x04"),
        (3802, b"\x02{}"),
        (99_999, b"abc"),
        (1007, b"\x7f\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x17"),
        (1007, b"\0\0\0\x02\0\0\0\0\0\0\0\x17\x7f\xff\xff\xff\0\0\0\x01\x7f\xff\xff\xff\0\0\0\x01"),
        (1007, b"\0\0\0\x01\0\0\0\0\0\0\0\x17\0\0\0\x02\0\0\0\x01\0\0\0\x04\0\0\0\x01\0\0\0\x03\0\0\x01"),
        (2249, b"\0\0\0\x01\x00\x01\x86\x9f\0\0\0\x01a"),
    ] {
        let mut hex = String::from("\\x");
        hex.extend(bytes.iter().map(|byte| format!("{byte:02x}")));
        assert_eq!(binary(type_oid, bytes), hex);
    }
}

#[test]
fn names_of_catalog_objects_are_numbers() {
    assert_eq!(binary(2205, &1259u32.to_be_bytes()), "1259");
    assert_eq!(binary(24, &0u32.to_be_bytes()), "0");
    assert_eq!(binary(2278, b""), "");
}

#[test]
fn infinite_intervals_of_postgresql_17_are_named() {
    let mut bytes = i64::MIN.to_be_bytes().to_vec();
    bytes.extend(i32::MIN.to_be_bytes());
    bytes.extend(i32::MIN.to_be_bytes());
    assert_eq!(binary(1186, &bytes), "-infinity");
}

#[test]
fn numeric_with_the_largest_weight_is_written_out() {
    let text = binary(1700, b"\x00\x01\x7f\xff\x40\x00\x00\x02\x00\x01");
    assert_eq!(text.len(), "-1".len() + 4 * 32_767 + ".00".len());
    assert_eq!(binary(1700, b"\x00\x01\x7f\xff\x40\x00\x00\x02\x00\x00"), "0.00");
    assert_eq!(binary(1700, b"\x00\x01\xff\xff\x40\x00\x00\x01\x00\x63"), "0.0");
    assert_eq!(binary(1700, b"\x00\x00\x80\x00\x00\x00\x00\x00"), "0");
}

#[test]
fn nested_records_neither_overflow_nor_explode() {
    let mut bytes = vec![b'"'; 1000];
    let mut type_oid = 25u32;
    for _ in 0..1000 {
        let mut record = 1i32.to_be_bytes().to_vec();
        record.extend(type_oid.to_be_bytes());
        record.extend(i32::try_from(bytes.len()).unwrap().to_be_bytes());
        record.extend(&bytes);
        bytes = record;
        type_oid = 2249;
    }
    assert!(binary(2249, &bytes).starts_with("\\x"));
    let mut arrays = vec![b'"'; 100_000];
    for level in 0..7 {
        let mut record = 1i32.to_be_bytes().to_vec();
        record.extend(if level == 0 { 25u32 } else { 2249 }.to_be_bytes());
        record.extend(i32::try_from(arrays.len()).unwrap().to_be_bytes());
        record.extend(&arrays);
        arrays = record;
    }
    assert!(binary(2249, &arrays).len() < 3 << 20);
}

fn parse_float(text: &str) -> f64 {
    text.replace("Infinity", "inf").parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_of_any_type_are_written(
        type_oid in prop_oneof![0u32..7000, Just(1007), Just(2249), Just(1700), Just(3615), Just(4451)],
        format in 0i16..3,
        bytes in prop::collection::vec(prop_oneof![Just(0u8), 0u8..5, Just(0xff), any::<u8>()], 0..80),
    ) {
        let mut out = String::new();
        write_text(type_oid, format, &bytes, Encoding::Utf8, &mut out).unwrap();
        prop_assert!(out.len() < 200_000);
    }

    #[test]
    fn damaged_values_of_every_type_are_written(index in 0usize..446, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let vectors = vectors();
        let vector = &vectors[index % vectors.len()];
        let mut bytes = vector.binary.clone();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            binary(vector.type_oid, &bytes);
            bytes.truncate(cut.index(bytes.len()));
            binary(vector.type_oid, &bytes);
        }
    }

    #[test]
    fn floats_read_back_as_themselves(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        let text = binary(701, &value.to_be_bytes());
        prop_assert!(value.is_nan() || parse_float(&text).to_bits() == bits, "{text}");
        let value = f32::from_bits(bits as u32);
        let text = binary(700, &value.to_be_bytes());
        prop_assert!(value.is_nan() || parse_float(&text) as f32 == value, "{text}");
    }

    #[test]
    fn integers_read_back_as_themselves(value in any::<i64>()) {
        prop_assert_eq!(binary(20, &value.to_be_bytes()), value.to_string());
        prop_assert_eq!(binary(23, &(value as i32).to_be_bytes()), (value as i32).to_string());
    }

    #[test]
    fn dates_agree_with_another_calendar(days in -730_000i32..2_900_000) {
        let date = jiff::civil::date(2000, 1, 1).checked_add(jiff::Span::new().days(days)).unwrap();
        prop_assert_eq!(binary(1082, &days.to_be_bytes()), date.to_string());
    }
}
