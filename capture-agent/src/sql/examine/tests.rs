use super::*;

mod sizes;

fn examine(bytes: &[u8], reading: Reading) -> Examined {
    Examiner::default().examine(bytes, reading, Opinions::Two)
}

fn unknown_of(bytes: &[u8], reading: Reading) -> Option<Unknown> {
    examine(bytes, reading).analysis.unknown
}

fn encoded(name: &str) -> Reading {
    Reading { encoding: Encoding::from_name(name), ..Reading::default() }
}

#[test]
fn bytes_that_are_no_text_of_the_session_are_unknown() {
    assert_eq!(unknown_of(b"select '\xff'", Reading::default()), Some(Unknown::Encoding));
    assert_eq!(unknown_of("select 'é'".as_bytes(), encoded("SQL_ASCII")), Some(Unknown::Encoding));
    assert_eq!(unknown_of(b"select 1", encoded("SQL_ASCII")), None);
    assert_eq!(unknown_of(b"select '\xff'", encoded("SJIS")), Some(Unknown::Encoding));
    assert_eq!(examine(b"select '\xff'", Reading::default()).text.as_ref(), r"select '\xff'");
}

/// In SJIS the second byte of a character may be a backslash, and in GBK too: the server converts first.
#[test]
fn a_text_is_read_as_the_server_reads_it_after_the_conversion() {
    let text = b"select E'\x95\\'; drop table t --'";
    assert_eq!(examine(text, encoded("SJIS")).analysis.kinds, ["drop", "drop_table", "select"]);
    assert_eq!(examine(b"select 'a\\'' as b", encoded("GBK")).analysis.unknown, Some(Unknown::Syntax));
    assert_eq!(examine(b"drop table \xe9", encoded("LATIN1")).analysis.tables_written, ["é"]);
}

#[test]
fn no_character_of_several_bytes_becomes_ascii() {
    for name in [
        "SJIS", "EUC_JP", "EUC_KR", "UHC", "GBK", "EUC_CN", "GB18030", "BIG5", "KOI8R", "WIN1258", "LATIN7",
        "WIN866",
    ] {
        for lead in 0x80..=0xffu8 {
            for second in 0x00..=0xffu8 {
                let bytes = [lead, second];
                let Some(text) = decoded(&bytes, Encoding::from_name(name)) else { continue };
                let first = text.chars().next().unwrap();
                assert!(!first.is_ascii() || first.is_control(), "{name} {lead:02x} {second:02x} {text:?}");
            }
        }
    }
}

#[test]
fn a_text_that_depends_on_an_unknown_setting_is_unknown() {
    let either = Reading { standard_conforming_strings: None, ..Reading::default() };
    assert_eq!(unknown_of(br"select 'a\'; drop table t; --'", either), Some(Unknown::Ambiguous));
    assert_eq!(unknown_of(br"select 'a\b' from t", either), None);
    assert_eq!(unknown_of(br"select E'a\'' from t", either), None);
    assert_eq!(unknown_of(b"select 'a' from t", either), None);
    assert_eq!(unknown_of(b"drop table t", either), None);
}

#[test]
fn with_the_setting_off_a_backslash_escapes() {
    let off = Reading { standard_conforming_strings: Some(false), ..Reading::default() };
    assert_eq!(examine(br"select 'a\'; drop table t; --'", off).analysis.kinds, ["select"]);
    assert_eq!(
        examine(br"select 'a\''; drop table t; --'", off).analysis.kinds,
        ["drop", "drop_table", "select"]
    );
}

#[test]
fn the_second_parser_agrees_on_ordinary_statements() {
    for text in [
        "select a from only t where b = 1",
        "with x as (delete from t returning *) insert into u select * from x",
        "explain analyze update t set a = 1",
        "prepare p as delete from t",
        "copy (select 1) to stdout",
        "create table a as select 1; drop table a",
        "insert into t values (1) on conflict (a) do update set b = 1",
        "merge into t using u on t.a = u.a when matched then delete",
        "truncate t; grant select on t to r; revoke all on t from r",
    ] {
        assert_eq!(unknown_of(text.as_bytes(), Reading::default()), None, "{text}");
    }
}

/// The comparison itself: what one parser sees and the other does not is a dispute, whichever it is.
#[test]
fn kinds_that_only_one_parser_sees_are_disputed() {
    let told = |kinds: &[&str]| Analysis {
        kinds: kinds.iter().map(|&kind| kind.into()).collect(),
        ..Analysis::default()
    };
    assert!(second::disputes("delete from t", 3, &told(&["select"])));
    assert!(second::disputes("select 1", 2, &told(&["delete", "select"])));
    assert!(!second::disputes("delete from t", 3, &told(&["delete"])));
    // What the second parser does not read is no dispute.
    assert!(!second::disputes("do $$ x $$", 2, &told(&["do"])));
}
