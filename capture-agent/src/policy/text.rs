//! Places in the file, and values that are written as text.

use std::ops::Range;
use std::time::Duration;

/// The line of a byte, counted from 1.
pub(super) fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count()
}

/// The line of a character of a string that is written at `span`, quotes included.
pub(super) fn line_in_string(text: &str, span: Range<usize>, value: &str, at: usize) -> usize {
    let written = text.get(span.clone()).unwrap_or_default();
    let several = written.starts_with("'''") || written.starts_with("\"\"\"");
    // A line break right behind the quotes is no part of the string.
    let body = written.get(3..).unwrap_or_default();
    let trimmed = several && (body.starts_with('\n') || body.starts_with("\r\n"));
    let inside = if several { value.chars().take(at).filter(|&c| c == '\n').count() } else { 0 };
    line(text, span.start) + usize::from(trimmed) + inside
}

/// The line of a condition that holds a character, with a mark under it.
pub(super) fn excerpt(value: &str, at: usize) -> String {
    let before: String = value.chars().take(at).collect();
    let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(begin..).unwrap_or_default().chars().count();
    let line = value.get(begin..).unwrap_or_default().lines().next().unwrap_or_default();
    // A window around the mark: conditions may be long.
    let skipped = column.saturating_sub(60);
    let shown: String = line.chars().skip(skipped).take(100).collect();
    format!("\n  | {shown}\n  | {:>width$}", "^", width = column - skipped + 1)
}

/// A time such as `500ms`, `30s`, `5m` or `1h`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(duration("1h"), Some(Duration::from_secs(3_600)));
        for wrong in ["", "5", "s", "-5s", "5 s", "5d", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_character_of_a_string_is_found_in_the_file() {
        let text = "a = 1\nwhen = '''\none &&\n two'''\nwhen = 'three'\n";
        let begin = text.find("'''").unwrap();
        let span = begin..text.rfind("'''").unwrap() + 3;
        assert_eq!(line_in_string(text, span.clone(), "one &&\n two", 0), 3);
        assert_eq!(line_in_string(text, span, "one &&\n two", 8), 4);
        let begin = text.find("'three").unwrap();
        assert_eq!(line_in_string(text, begin..begin + 7, "three", 3), 5);
        assert_eq!(excerpt("one &&\n two", 8), "\n  |  two\n  |  ^");
    }
}
