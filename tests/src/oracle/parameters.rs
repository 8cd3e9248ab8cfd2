//! The parameters of a statement in the server's log: `parameters: $1 = 'it''s', $2 = NULL`
//! (`BuildParamLogString` in `src/backend/nodes/params.c`).

/// The values in a DETAIL; none at all if the DETAIL speaks of something else.
pub(super) fn parse(detail: &str) -> Vec<Option<String>> {
    let Some((_, mut rest)) = detail.split_once(": ") else {
        return Vec::new();
    };
    let mut values = Vec::new();
    while let Some((_, after)) = rest.split_once(" = ") {
        let value = match after.strip_prefix('\'') {
            Some(quoted) => {
                let (value, after) = unquote(quoted);
                rest = after;
                Some(value)
            }
            None => {
                rest = after.strip_prefix("NULL").unwrap_or_default();
                None
            }
        };
        values.push(value);
        rest = rest.strip_prefix(", ").unwrap_or_default();
    }
    values
}

fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    while let Some(quote) = rest.find('\'') {
        value.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None => return (value, rest),
        }
    }
    value.push_str(rest);
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_nulls_and_commas_are_told_apart() {
        let values = parse("parameters: $1 = 'it''s, $9 = x', $2 = NULL, $3 = ''");
        assert_eq!(values, [Some("it's, $9 = x".to_owned()), None, Some(String::new())]);
        assert!(parse("").is_empty());
    }
}
