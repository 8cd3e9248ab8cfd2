//! `client_encoding`: from a session's bytes to UTF-8.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt::Write;

use encoding_rs as rs;

/// A session's `client_encoding`, as far as its characters can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// UTF-8, and what is not declared otherwise.
    #[default]
    Utf8,
    /// LATIN1: each byte is the character of the same number.
    Latin1,
    /// LATIN5, which is Windows 1254 but for the control characters from 0x80 to 0x9f.
    Latin5,
    /// An encoding with a conversion table.
    Table(&'static rs::Encoding),
    /// SQL_ASCII, which does not say what its bytes mean, and encodings without a table here: EUC_TW,
    /// EUC_JIS_2004, SHIFT_JIS_2004, JOHAB, MULE_INTERNAL, and names that PostgreSQL does not know.
    Opaque,
}

impl Encoding {
    /// By a name or alias of PostgreSQL's (`pg_encname_tbl` in `src/common/encnames.c`); case and punctuation do
    /// not matter.
    pub fn from_name(name: &str) -> Self {
        let clean: String = name
            .bytes()
            .filter(u8::is_ascii_alphanumeric)
            .map(|byte| char::from(byte.to_ascii_lowercase()))
            .collect();
        match clean.as_str() {
            "utf8" | "unicode" => Self::Utf8,
            "latin1" | "iso88591" => Self::Latin1,
            "latin5" | "iso88599" => Self::Latin5,
            "latin2" | "iso88592" => Self::Table(rs::ISO_8859_2),
            "latin3" | "iso88593" => Self::Table(rs::ISO_8859_3),
            "latin4" | "iso88594" => Self::Table(rs::ISO_8859_4),
            "iso88595" => Self::Table(rs::ISO_8859_5),
            "iso88596" => Self::Table(rs::ISO_8859_6),
            "iso88597" => Self::Table(rs::ISO_8859_7),
            "iso88598" => Self::Table(rs::ISO_8859_8),
            "latin6" | "iso885910" => Self::Table(rs::ISO_8859_10),
            "latin7" | "iso885913" => Self::Table(rs::ISO_8859_13),
            "latin8" | "iso885914" => Self::Table(rs::ISO_8859_14),
            "latin9" | "iso885915" => Self::Table(rs::ISO_8859_15),
            "latin10" | "iso885916" => Self::Table(rs::ISO_8859_16),
            "win1250" | "windows1250" => Self::Table(rs::WINDOWS_1250),
            "win1251" | "windows1251" | "win" => Self::Table(rs::WINDOWS_1251),
            "win1252" | "windows1252" => Self::Table(rs::WINDOWS_1252),
            "win1253" | "windows1253" => Self::Table(rs::WINDOWS_1253),
            "win1254" | "windows1254" => Self::Table(rs::WINDOWS_1254),
            "win1255" | "windows1255" => Self::Table(rs::WINDOWS_1255),
            "win1256" | "windows1256" => Self::Table(rs::WINDOWS_1256),
            "win1257" | "windows1257" => Self::Table(rs::WINDOWS_1257),
            "win1258" | "windows1258" | "abc" | "tcvn" | "tcvn5712" | "vscii" => {
                Self::Table(rs::WINDOWS_1258)
            }
            "win866" | "windows866" | "alt" => Self::Table(rs::IBM866),
            "win874" | "windows874" => Self::Table(rs::WINDOWS_874),
            "koi8" | "koi8r" => Self::Table(rs::KOI8_R),
            "koi8u" => Self::Table(rs::KOI8_U),
            "eucjp" => Self::Table(rs::EUC_JP),
            // The table of UHC holds EUC_KR, that of GBK holds EUC_CN.
            "euckr" | "uhc" | "win949" | "windows949" => Self::Table(rs::EUC_KR),
            "euccn" | "gbk" | "win936" | "windows936" => Self::Table(rs::GBK),
            "gb18030" => Self::Table(rs::GB18030),
            "big5" | "win950" | "windows950" => Self::Table(rs::BIG5),
            "sjis" | "shiftjis" | "mskanji" | "win932" | "windows932" => Self::Table(rs::SHIFT_JIS),
            _ => Self::Opaque,
        }
    }

    /// The text that `bytes` spell. Bytes that spell none are written as `\xNN`, so that nothing is lost.
    /// Borrowed if nothing had to change.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Cow<'a, str> {
        if !matches!(self, Self::Utf8)
            && let Some(ascii) = ascii(bytes)
        {
            return Cow::Borrowed(ascii);
        }
        match self {
            Self::Utf8 => match str::from_utf8(bytes) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => Cow::Owned(utf8_or_escapes(bytes)),
            },
            Self::Opaque => Cow::Owned(ascii_or_escapes(bytes)),
            Self::Latin1 => rs::mem::decode_latin1(bytes),
            Self::Latin5 => Cow::Owned(latin5(bytes)),
            Self::Table(table) => Cow::Owned(converted(table, bytes)),
        }
    }
}

fn ascii(bytes: &[u8]) -> Option<&str> {
    bytes.is_ascii().then(|| str::from_utf8(bytes).ok()).flatten()
}

fn escape(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(out, "\\x{byte:02x}");
    }
}

fn utf8_or_escapes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        escape(chunk.invalid(), &mut out);
    }
    out
}

fn ascii_or_escapes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii() {
            out.push(char::from(byte));
        } else {
            escape(&[byte], &mut out);
        }
    }
    out
}

fn latin5(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|&byte| match byte {
            0xd0 => '\u{11e}',
            0xdd => '\u{130}',
            0xde => '\u{15e}',
            0xf0 => '\u{11f}',
            0xfd => '\u{131}',
            0xfe => '\u{15f}',
            _ => char::from(byte),
        })
        .collect()
}

fn converted(table: &'static rs::Encoding, bytes: &[u8]) -> String {
    let mut decoder = table.new_decoder_without_bom_handling();
    let mut out = String::with_capacity(bytes.len().saturating_mul(2));
    let mut rest = bytes;
    loop {
        let room = decoder.max_utf8_buffer_length_without_replacement(rest.len()).unwrap_or(rest.len());
        out.reserve(room);
        let (result, read) = decoder.decode_to_string_without_replacement(rest, &mut out, true);
        let (done, behind) = rest.split_at_checked(read).unwrap_or((rest, &[]));
        rest = behind;
        match result {
            rs::DecoderResult::InputEmpty => return out,
            rs::DecoderResult::OutputFull => {}
            rs::DecoderResult::Malformed(length, after) => {
                let end = done.len().saturating_sub(usize::from(after));
                let start = end.saturating_sub(usize::from(length));
                escape(done.get(start..end).unwrap_or_default(), &mut out);
                decoder = table.new_decoder_without_bom_handling();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(name: &str, bytes: &[u8]) -> String {
        Encoding::from_name(name).decode(bytes).into_owned()
    }

    #[test]
    fn names_and_aliases_are_known_in_any_spelling() {
        for name in ["UTF8", "utf-8", "Unicode", "UTF_8"] {
            assert_eq!(Encoding::from_name(name), Encoding::Utf8);
        }
        assert_eq!(Encoding::from_name("ISO_8859_1"), Encoding::Latin1);
        assert_eq!(Encoding::from_name("KOI8-R"), Encoding::Table(rs::KOI8_R));
        assert_eq!(Encoding::from_name("SQL_ASCII"), Encoding::Opaque);
        assert_eq!(Encoding::from_name("no such encoding"), Encoding::Opaque);
    }

    #[test]
    fn text_is_converted() {
        assert_eq!(decode("LATIN1", b"\xe9\x80"), "\u{e9}\u{80}");
        assert_eq!(decode("LATIN5", b"\xdd\x80\xe9"), "\u{130}\u{80}\u{e9}");
        assert_eq!(decode("WIN1252", b"\x80"), "\u{20ac}");
        assert_eq!(decode("KOI8R", b"\xf0\xf2"), "\u{41f}\u{420}");
        assert_eq!(decode("SJIS", b"\x8a\xbf\\"), "\u{6f22}\\");
        assert_eq!(decode("EUC_JP", b"\xb4\xc1"), "\u{6f22}");
        assert_eq!(decode("BIG5", b"\xba\x7e"), "\u{6f22}");
        assert_eq!(decode("GB18030", b"\xba\xba"), "\u{6c49}");
        assert_eq!(decode("UHC", b"\xc7\xd1"), "\u{d55c}");
    }

    #[test]
    fn bytes_without_meaning_are_kept_as_escapes() {
        assert_eq!(decode("UTF8", b"a\xe9b\xff\xc3\xa9"), "a\\xe9b\\xff\u{e9}");
        assert_eq!(decode("SQL_ASCII", b"a\xc3\xa9"), "a\\xc3\\xa9");
        assert_eq!(decode("EUC_TW", b"a\xc3\xa9"), "a\\xc3\\xa9");
        assert_eq!(decode("SJIS", b"a\xffb\x8a"), "a\\xffb\\x8a");
        assert_eq!(decode("EUC_JP", b"\xb4 \xb4\xc1"), "\\xb4 \u{6f22}");
    }

    #[test]
    fn valid_utf8_is_borrowed() {
        assert!(matches!(Encoding::Utf8.decode("\u{e9}".as_bytes()), Cow::Borrowed("\u{e9}")));
        assert!(matches!(Encoding::Opaque.decode(b"a"), Cow::Borrowed("a")));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_in_any_encoding(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            name in prop::sample::select(vec!["UTF8", "SJIS", "EUC_JP", "BIG5", "GBK", "GB18030", "UHC", "WIN874", "LATIN3", "LATIN5", "JOHAB"]),
        ) {
            let text = decode(name, &bytes);
            let ascii: Vec<u8> = bytes.iter().copied().filter(u8::is_ascii_digit).collect();
            // Nothing that stands for itself is swallowed, except as the second byte of a character.
            prop_assert!(text.len() >= ascii.len().min(bytes.len() / 2));
        }
    }
}
