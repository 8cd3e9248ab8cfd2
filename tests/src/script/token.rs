//! Words of a script's line.

use anyhow::{Context, bail};

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A bare word, such as `Query` or `23`.
    Word(String),
    /// `"text"` or `x'hex'`.
    Value(Vec<u8>),
    /// `null`.
    Null,
    /// `key=word` or `key="text"`.
    Field(String, String),
}

impl Token {
    /// The bytes of a value; none for `null`.
    pub(super) fn value(self) -> anyhow::Result<Option<Vec<u8>>> {
        match self {
            Self::Value(bytes) => Ok(Some(bytes)),
            Self::Null => Ok(None),
            other => bail!("{other:?} is not a value"),
        }
    }

    /// A value that is text.
    pub(super) fn text(self) -> anyhow::Result<String> {
        match self {
            Self::Value(bytes) => Ok(String::from_utf8(bytes)?),
            other => bail!("{other:?} is not text in quotes"),
        }
    }

    /// A number.
    pub(super) fn number<N: std::str::FromStr>(self) -> anyhow::Result<N> {
        match self {
            Self::Word(word) => word.parse().ok().with_context(|| format!("{word} is not a fitting number")),
            other => bail!("{other:?} is not a number"),
        }
    }
}

/// Cuts a line into words.
pub(super) fn tokens(line: &str) -> anyhow::Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (token, after) = token(rest)?;
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

fn token(text: &str) -> anyhow::Result<(Token, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (value, rest) = unquote(quoted)?;
        return Ok((Token::Value(value.into_bytes()), rest));
    }
    if let Some(hex) = text.strip_prefix("x'") {
        let (hex, rest) = hex.split_once('\'').context("x' without its end")?;
        return Ok((Token::Value(unhex(hex)?), rest));
    }
    let end = text.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let Some(rest) = rest.strip_prefix('=') else {
        let token = if word == "null" { Token::Null } else { Token::Word(word.to_owned()) };
        return Ok((token, rest));
    };
    if let Some(quoted) = rest.strip_prefix('"') {
        let (value, rest) = unquote(quoted)?;
        return Ok((Token::Field(word.to_owned(), value), rest));
    }
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    Ok((Token::Field(word.to_owned(), rest[..end].to_owned()), &rest[end..]))
}

fn unquote(text: &str) -> anyhow::Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next().map(|(_, escaped)| escaped) {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some('0') => value.push('\0'),
                Some(c @ ('\\' | '"')) => value.push(c),
                other => bail!("unknown escape {other:?}"),
            },
            c => value.push(c),
        }
    }
    bail!("a quote without its end")
}

fn unhex(hex: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Vec<u8> = hex
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| Ok(u8::try_from(c.to_digit(16).with_context(|| format!("{c} is not hexadecimal"))?)?))
        .collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(digits.len().is_multiple_of(2), "an odd number of hexadecimal digits");
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_words_fields_and_comments_are_told_apart() {
        let found =
            tokens(r#"Bind "a \"b\"\n" x'00 ff' null 23 tag="SELECT 1" rows=2 # "not this""#).unwrap();
        let expected = [
            Token::Word("Bind".into()),
            Token::Value(b"a \"b\"\n".to_vec()),
            Token::Value(vec![0, 255]),
            Token::Null,
            Token::Word("23".into()),
            Token::Field("tag".into(), "SELECT 1".into()),
            Token::Field("rows".into(), "2".into()),
        ];
        assert_eq!(found, expected);
        assert!(tokens("\"open").is_err());
    }
}
