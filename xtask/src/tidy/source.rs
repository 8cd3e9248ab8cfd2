//! A file as the rules see it: as written, and as code alone.

/// One text file.
pub(super) struct Source {
    /// Relative to the project's folder.
    pub(super) path: String,
    /// As written.
    pub(super) text: String,
    /// For Rust files: the text with comments and the contents of literals blanked out, byte for byte, so that
    /// positions are the same. Empty for other files.
    pub(super) code: String,
}

impl Source {
    /// Takes a file in.
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { blank(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// The code above the file's unit tests, which stand last.
    pub(super) fn code_without_tests(&self) -> &str {
        self.code.get(..self.tests_begin()).unwrap_or(&self.code)
    }

    /// The same of the text as written.
    pub(super) fn text_without_tests(&self) -> &str {
        self.text.get(..self.tests_begin()).unwrap_or(&self.text)
    }

    fn tests_begin(&self) -> usize {
        self.code.find("\n#[cfg(test)]").unwrap_or(self.text.len())
    }

    /// Positions at which `word` stands in `code` as a whole word.
    pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
            let before = code.get(..at).and_then(|text| text.chars().next_back());
            let after = code.get(at + word.len()..).and_then(|text| text.chars().next());
            ![before, after].into_iter().flatten().any(|c| c.is_alphanumeric() || c == '_')
        })
    }

    /// The line, counted from 1, of a position.
    pub(super) fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
    }
}

/// Replaces comments and the contents of string and character literals by spaces; newlines stay.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if let Some(length) = literal(rest, at.checked_sub(1).map(|before| bytes[before])) {
            length
        } else {
            at += 1;
            continue;
        };
        for byte in &mut code[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length;
    }
    // Only whole literals and comments were replaced, so what is left is still UTF-8.
    String::from_utf8_lossy(&code).into_owned()
}

/// Length of a block comment, nested ones included.
fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (2, 1);
    while at < rest.len() && depth > 0 {
        if rest[at..].starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if rest[at..].starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
        } else {
            at += 1;
        }
    }
    at
}

/// Length of the string or character literal that begins here, if one does.
fn literal(rest: &[u8], before: Option<u8>) -> Option<usize> {
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match rest.first()? {
        b'"' => Some(quoted(rest, b'"')),
        b'r' if !in_word || before == Some(b'b') || before == Some(b'c') => raw_string(rest),
        b'\'' => {
            // A character literal closes after one character or an escape; a lifetime does not.
            let character = std::str::from_utf8(&rest[1..rest.len().min(6)])
                .map_or_else(|error| error.valid_up_to(), |text| text.len());
            let first = std::str::from_utf8(&rest[1..1 + character]).ok()?.chars().next()?;
            match first {
                '\\' => Some(quoted(rest, b'\'')),
                c if rest.get(1 + c.len_utf8()) == Some(&b'\'') => Some(2 + c.len_utf8()),
                _ => None,
            }
        }
        _ => None,
    }
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &rest[2 + hashes..];
    let end = body.windows(close.len()).position(|window| window == close);
    Some(end.map_or(rest.len(), |end| 2 + hashes + end + close.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_vanish_and_positions_stay() {
        let text =
            "let a = \"x // y\"; // tail\nlet b = 'c'; /* /* n */ */ fn f<'a>() {} r#\"q \" q\"# '\\'' b";
        let code = blank(text);
        assert_eq!(code.len(), text.len());
        assert!(
            !code.contains('y')
                && !code.contains("tail")
                && !code.contains('q')
                && !code.contains('n'.to_string().repeat(2).as_str())
        );
        assert!(code.contains("fn f<'a>() {}"), "{code}");
        assert!(code.ends_with('b'));
        assert_eq!(code.matches('\n').count(), 1);
    }

    #[test]
    fn text_of_any_language_survives() {
        let text = "// größer\nlet c = 'ß'; let l: &'static str = \"日本\";";
        let code = blank(text);
        assert_eq!(code.len(), text.len());
        assert!(code.contains("&'static str"), "{code}");
    }

    #[test]
    fn a_word_is_found_only_whole() {
        let found: Vec<usize> = Source::words("unsafe_code unsafe { xunsafe }", "unsafe").collect();
        assert_eq!(found, [12]);
    }

    #[test]
    fn unit_tests_are_no_product_code() {
        let source = Source::new("a.rs", "fn a() {}\n#[cfg(test)]\nmod tests { use std::fs; }");
        assert_eq!(source.code_without_tests(), "fn a() {}");
    }
}
