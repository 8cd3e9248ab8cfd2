//! Words for people: safe for a terminal, aligned, short.

use std::fmt::Write as _;
use std::io;

use comfy_table::{ContentArrangement, Table, presets};

use crate::session::Micros;

/// Text as it may be printed: what would move the cursor, change colours or reorder the line is escaped, and so
/// are line breaks if it is to stay on one `line`.
pub(super) fn safe(text: &str, line: bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' if !line => safe.push(c),
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push_str("\\t"),
            '\r' => safe.push_str("\\r"),
            '\\' if line => safe.push_str("\\\\"),
            // Writing to a String does not fail.
            c if is_unsafe(c) => drop(write!(safe, "\\u{{{:x}}}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

/// Controls, and the invisible characters that set a direction or break lines (Unicode Standard Annex 9).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// One line of at most so many characters.
pub(super) fn brief(text: &str, most: usize) -> String {
    let safe = safe(text, true);
    match safe.char_indices().nth(most) {
        None => safe,
        Some((end, _)) => format!("{}…", safe.get(..end).unwrap_or_default()),
    }
}

/// A table without borders.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

/// Microseconds as people say them.
pub(super) fn duration(us: i64) -> String {
    let ms = us as f64 / 1_000.0;
    match us {
        ..1_000_000 => format!("{ms:.2} ms"),
        1_000_000..60_000_000 => format!("{:.2} s", ms / 1_000.0),
        60_000_000..3_600_000_000 => format!("{}m{:02}s", us / 60_000_000, us / 1_000_000 % 60),
        _ => format!("{}h{:02}m", us / 3_600_000_000, us / 60_000_000 % 60),
    }
}

/// A point in time to the second, in UTC.
pub(super) fn time(at: Micros) -> String {
    match jiff::Timestamp::from_microsecond(at.0) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => at.0.to_string(),
    }
}

/// Whether an error says that nobody reads any more, as in `… | head`.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<io::Error>() {
        Some(error) => Some(error.kind()),
        None => cause.downcast_ref::<serde_json::Error>()?.io_error_kind(),
    };
    error.chain().any(|cause| kind(cause) == Some(io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_moves_the_cursor(text in any::<String>(), line in any::<bool>()) {
            let safe = safe(&text, line);
            prop_assert!(!safe.chars().any(|c| is_unsafe(c) && (line || c != '\n')));
        }
    }

    #[test]
    fn escapes_are_readable() {
        assert_eq!(safe("a\u{1b}[31mb\u{202e}\n", true), "a\\u{1b}[31mb\\u{202e}\\n");
        assert_eq!(safe("a\nb é", false), "a\nb é");
        assert_eq!(brief("héllo", 3), "hél…");
        assert_eq!(brief("hél", 3), "hél");
    }

    #[test]
    fn durations_are_short() {
        let said = [1_500, 2_340_000, 90_000_000, 7_260_000_000].map(duration);
        assert_eq!(said, ["1.50 ms", "2.34 s", "1m30s", "2h01m"]);
    }
}
