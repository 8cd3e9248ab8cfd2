//! When two texts, or two values, are the same.

/// What follows `sql` in `text`, which starts with separators and then `sql`.
pub(super) fn find_statement<'t>(text: &'t str, sql: &str) -> Option<&'t str> {
    let mut rest = text;
    loop {
        if let Some(after) = strip(rest, sql) {
            return Some(after);
        }
        rest = skip_one_separator(rest)?;
    }
}

/// What follows `sql` in `text`, which starts with it. A constant that was masked in the record is any string in the log.
fn strip<'t>(text: &'t str, sql: &str) -> Option<&'t str> {
    let mut parts = sql.split("'[masked]'");
    let mut rest = text.strip_prefix(parts.next()?)?;
    for part in parts {
        let mut inside = rest.strip_prefix('\'')?;
        loop {
            inside = inside.get(inside.find('\'')? + 1..)?;
            match inside.strip_prefix('\'') {
                Some(doubled) => inside = doubled,
                None => break,
            }
        }
        rest = inside.strip_prefix(part)?;
    }
    Some(rest)
}

/// `text` without the white space, semicolons and comments that it starts with.
pub(super) fn skip_separators(text: &str) -> &str {
    let mut rest = text;
    while let Some(after) = skip_one_separator(rest) {
        rest = after;
    }
    rest
}

/// One white-space character, semicolon or comment; block comments nest.
fn skip_one_separator(text: &str) -> Option<&str> {
    if let Some(comment) = text.strip_prefix("--") {
        return Some(comment.find('\n').map_or("", |end| &comment[end..]));
    }
    if text.starts_with("/*") {
        let mut depth = 0_usize;
        let mut rest = text;
        loop {
            if let Some(after) = rest.strip_prefix("/*") {
                depth += 1;
                rest = after;
            } else if let Some(after) = rest.strip_prefix("*/") {
                depth -= 1;
                rest = after;
                if depth == 0 {
                    return Some(rest);
                }
            } else {
                rest = rest.get(rest.chars().next()?.len_utf8()..)?;
            }
        }
    }
    text.strip_prefix(|c: char| c == ';' || c.is_ascii_whitespace())
}

/// Whether two commands differ in white space and semicolons around them only.
pub(super) fn same_text(left: &str, right: &str) -> bool {
    left.trim().trim_end_matches(';') == right.trim().trim_end_matches(';')
}

/// The log prints a parameter as its type prints it, the record as the client wrote it: the same value may look
/// different for booleans, floating-point numbers and `jsonb`. Everything else must be equal to the letter. Where
/// neither side said the type (OID 0), only the server knows which of these it is.
pub(super) fn same_value(type_oid: u32, recorded: Option<&str>, logged: Option<&str>) -> bool {
    if recorded == logged {
        return true;
    }
    let (Some(recorded), Some(logged)) = (recorded, logged) else { return false };
    match type_oid {
        BOOL => recorded.eq_ignore_ascii_case(if logged == "t" { "true" } else { "false" }),
        FLOAT4 | FLOAT8 => {
            let number = |text: &str| text.trim().parse::<f64>().ok();
            number(recorded).is_some() && number(recorded) == number(logged)
        }
        JSONB | UNKNOWN => {
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
            value(recorded).is_some() && value(recorded) == value(logged)
        }
        _ => false,
    }
}

/// `src/include/catalog/pg_type.dat`.
const UNKNOWN: u32 = 0;
const BOOL: u32 = 16;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const JSONB: u32 = 3802;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_a_query_string_follow_each_other() {
        let rest = find_statement("  -- a comment; really\n select 1 ; select 2", "select 1").unwrap();
        assert_eq!(find_statement(rest, "select 2"), Some(""));
        assert_eq!(find_statement("x select 1", "select 1"), None);
        let masked = "alter role a password '[masked]' valid until '[masked]'";
        assert_eq!(find_statement("; alter role a password 'it''s' valid until '1';", masked), Some(";"));
        assert_eq!(find_statement("alter role a password 'x' valid", masked), None);
        assert_eq!(find_statement("alter role b password 'x' valid until ''", masked), None);
        assert_eq!(skip_separators(" ;; /* a /* b */ c */ -- d"), "");
    }

    #[test]
    fn a_value_is_the_same_only_as_its_type_reads_it() {
        assert!(same_value(BOOL, Some("true"), Some("t")));
        assert!(same_value(FLOAT8, Some("1.0"), Some("1")));
        assert!(same_value(JSONB, Some("{\"a\":[1,\"\\u00e4\"]}"), Some("{\"a\": [1, \"ä\"]}")));
        assert!(!same_value(JSONB, Some("{\"a\":1}"), Some("{\"a\": 2}")));
        assert!(!same_value(25, Some("1.0"), Some("1")));
        assert!(!same_value(25, Some(""), None));
    }
}
