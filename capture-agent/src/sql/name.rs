//! Names of relations and functions as one text, and back.

/// The parts of a name with points between. A part with a point or a quote in it is quoted, lest it be taken for
/// several.
pub(super) fn joined<'a>(parts: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut name = String::new();
    for part in parts {
        if !name.is_empty() {
            name.push('.');
        }
        if part.contains(['.', '"']) {
            name.push('"');
            name.push_str(&part.replace('"', "\"\""));
            name.push('"');
        } else {
            name.push_str(part);
        }
    }
    (!name.is_empty()).then_some(name)
}

/// The parts of a name that [`Analysis`](super::Analysis) tells: database, schema and name, as many as were written.
/// A part keeps its quotes.
pub fn parts(name: &str) -> impl DoubleEndedIterator<Item = &str> {
    let mut quoted = false;
    let mut begin = 0;
    let mut parts = Vec::with_capacity(3);
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'.' if !quoted => {
                parts.extend(name.get(begin..at));
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(name.get(begin..));
    parts.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_that_were_joined() {
        for (written, told) in [
            (vec!["t"], vec!["t"]),
            (vec!["s", "t"], vec!["s", "t"]),
            (vec!["d", "a.b", "x\"y"], vec!["d", "\"a.b\"", "\"x\"\"y\""]),
            (vec!["My Table", ""], vec!["My Table", ""]),
        ] {
            let name = joined(written.into_iter()).unwrap();
            assert_eq!(parts(&name).collect::<Vec<_>>(), told);
        }
    }
}
