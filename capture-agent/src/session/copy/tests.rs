use proptest::prelude::*;

use super::*;
use crate::session::DataRow;

type Rows = Vec<Vec<Option<Vec<u8>>>>;

fn rows(sql: &str, binary: bool, pieces: &[&[u8]]) -> Rows {
    let mut copy = CopyRows::new(binary, &Options::of(sql, true));
    let mut rows = Vec::new();
    let mut take = |row: &CopyRow<'_>| {
        let fields: Vec<Option<Vec<u8>>> =
            row.fields().iter().map(|field| field.as_deref().map(<[u8]>::to_vec)).collect();
        let mut message = Vec::new();
        let size = row.put(&mut message);
        assert_eq!(size, Some(fields.iter().flatten().map(Vec::len).sum()));
        let values = data_row::bodies(&message).flat_map(DataRow::new);
        assert_eq!(values.map(|value| value.map(<[u8]>::to_vec)).collect::<Vec<_>>(), fields);
        rows.push(fields);
        true
    };
    for piece in pieces {
        if !copy.feed(piece, &mut take) {
            return rows;
        }
    }
    copy.finish(&mut take);
    rows
}

fn row(fields: &[Option<&str>]) -> Vec<Option<Vec<u8>>> {
    fields.iter().map(|field| field.map(|text| text.as_bytes().to_vec())).collect()
}

#[test]
fn text_escapes_are_undone() {
    let data = b"a\\tb\t\\N\t\\\\N\t\\x41\\101\\7\n\t\\\n\n";
    assert_eq!(
        rows("COPY t FROM STDIN", false, &[data]),
        [row(&[Some("a\tb"), None, Some("\\N"), Some("AA\u{7}")]), row(&[Some(""), Some("\n")])]
    );
}

#[test]
fn the_options_of_every_syntax_are_followed() {
    let expected = [row(&[Some("1"), None, Some("x|y")])];
    for sql in [
        "COPY t FROM STDIN (FORMAT csv, DELIMITER '|', NULL 'null', QUOTE '''')",
        "COPY t (a, b) FROM STDIN WITH (format 'csv', delimiter E'|', null 'null', quote '''')",
        "COPY t FROM STDIN CSV DELIMITER AS '|' NULL 'null' QUOTE AS ''''",
        "COPY (SELECT a FROM t) TO STDOUT WITH CSV DELIMITER '|' NULL 'null' QUOTE ''''",
    ] {
        assert_eq!(rows(sql, false, &[b"1|null|'x|y'\n"]), expected, "{sql}");
    }
    let header = "COPY t TO STDOUT (FORMAT csv, HEADER true)";
    assert_eq!(rows(header, false, &[b"a,b\n1,2\n"]), [row(&[Some("1"), Some("2")])]);
    let none = "COPY t TO STDOUT (FORMAT csv, HEADER off)";
    assert_eq!(rows(none, false, &[b"1,2\n"]).len(), 1);
    // A column's name or a string elsewhere is no option.
    assert_eq!(rows("COPY csv FROM STDIN", false, &[b"1,2\n"]), [row(&[Some("1,2")])]);
    assert_eq!(rows("COPY (SELECT 'csv') TO STDOUT", false, &[b"1,2\n"]), [row(&[Some("1,2")])]);
}

#[test]
fn csv_tells_an_empty_string_from_null() {
    assert_eq!(rows("COPY t FROM STDIN CSV", false, &[b"\"\",\n"]), [row(&[Some(""), None])]);
}

#[test]
fn lines_may_end_as_on_other_systems_and_the_last_need_not_end() {
    assert_eq!(
        rows("COPY t FROM STDIN", false, &[b"1\r\n2\r\n3"]),
        [row(&[Some("1")]), row(&[Some("2")]), row(&[Some("3")])]
    );
    assert_eq!(rows("COPY t FROM STDIN", false, &[b"1\n\\.\n2\n"]), [row(&[Some("1")])]);
}

#[test]
fn a_row_of_more_fields_than_a_message_can_have_is_given_as_it_is() {
    let options = Options::of("COPY t FROM STDIN", true);
    let bytes = &[b'\t'; 70_000];
    let row = CopyRow { bytes, format: Format::Text, options: &options };
    let mut out = vec![7];
    assert_eq!((row.put(&mut out), out), (None, vec![7]));
    assert_eq!(row.fields().len(), 70_001);
}

proptest! {
    #[test]
    fn the_cut_into_messages_does_not_matter(
        data in prop::collection::vec(
            prop_oneof![
                Just(b'\n'), Just(b'\\'), Just(b'"'), Just(b','), Just(b'\t'), Just(b'\r'), Just(b'.'),
                Just(0_u8), any::<u8>()
            ], 0..200),
        sizes in prop::collection::vec(1_usize..20, 1..5),
        format in 0..3,
        signed in any::<bool>(),
    ) {
        let sql = if format == 0 { "COPY t FROM STDIN" } else { "COPY t FROM STDIN CSV ESCAPE '\\'" };
        let mut bytes = Vec::new();
        if format == 2 && signed {
            bytes.extend(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x01a\xff\xff\xff\xff\0\x01\0\0\0");
        }
        bytes.extend(data);
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
        prop_assert_eq!(rows(sql, format == 2, &[&bytes]), rows(sql, format == 2, &pieces));
    }
}
