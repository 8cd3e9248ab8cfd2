//! What is known of a text before it runs: stricter than the record, which is written when the server has answered.

use std::borrow::Cow;
use std::sync::Arc;

use encoding_rs::mem::decode_latin1;

use super::cache::Shapes;
use super::{Analysis, Analyzer, Limits, Unknown, second, shape};
use crate::session::value::Encoding;

/// Tells what texts would do, and remembers what it has told. What it cannot vouch for is [`Unknown`].
#[derive(Debug)]
pub struct Examiner {
    analyzer: Analyzer,
    /// What two parsers agree on, by shape.
    agreed: Shapes,
    shape: Vec<u8>,
}

/// How the session's server will read a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The session's `client_encoding`, from which the server converts before it parses.
    pub encoding: Encoding,
    /// Whether `standard_conforming_strings` is on; none if that cannot be told, as while a SET is under way.
    pub standard_conforming_strings: Option<bool>,
}

/// A text, and what it would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// The text as it was decoded; bytes that spell none are written as `\xNN`.
    pub text: Arc<str>,
    /// What it would do.
    pub analysis: Arc<Analysis>,
}

/// Whether a second parser is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opinions {
    /// PostgreSQL's grammar alone.
    One,
    /// If `sqlparser` reads a text too, and sees other kinds of statement in it, the text is unknown.
    Two,
}

impl Default for Reading {
    fn default() -> Self {
        Self { encoding: Encoding::Utf8, standard_conforming_strings: Some(true) }
    }
}

impl Examiner {
    /// Remembers nothing yet.
    pub fn new(limits: Limits) -> Self {
        let agreed = Shapes::new(limits.shapes, limits.shape_bytes);
        Self { analyzer: Analyzer::new(limits), agreed, shape: Vec::new() }
    }

    /// What a query string would do: the bytes of a Query or Parse message up to, and without, their zero byte.
    pub fn examine(&mut self, bytes: &[u8], reading: Reading, opinions: Opinions) -> Examined {
        let Some(text) = decoded(bytes, reading.encoding) else {
            let text = reading.encoding.decode(bytes).into();
            return Examined { text, analysis: unknown(Unknown::Encoding) };
        };
        let text: Arc<str> = text.into();
        let analysis = self.told(&text, reading.standard_conforming_strings, opinions);
        Examined { text, analysis }
    }

    fn told(&mut self, text: &Arc<str>, setting: Option<bool>, opinions: Opinions) -> Arc<Analysis> {
        let setting = match setting {
            Some(setting) => setting,
            // Without a backslash the setting changes nothing.
            None if memchr::memchr(b'\\', text.as_bytes()).is_none() => true,
            None => {
                let on = self.analyzer.analyze(text, true);
                let off = self.analyzer.analyze(text, false);
                // Fingerprints pass over constants, which is where the two readings may differ unseen.
                return if on == off { on } else { unknown(Unknown::Ambiguous) };
            }
        };
        let analysis = self.analyzer.analyze(text, setting);
        match opinions {
            Opinions::Two if analysis.unknown.is_none() => self.agreed(text, setting, analysis),
            _ => analysis,
        }
    }

    /// The analysis, if the second parser does not contradict it.
    fn agreed(&mut self, text: &str, setting: bool, analysis: Arc<Analysis>) -> Arc<Analysis> {
        let tokens = shape::write(text, setting, &mut self.shape);
        if let Some(known) = self.agreed.find(&self.shape) {
            return known;
        }
        let Some(shaped) = shape::text(&self.shape) else {
            return unknown(Unknown::Parser);
        };
        // The second parser has no such setting: what depends on it, it cannot read.
        let readable = setting || memchr::memchr(b'\\', shaped.as_bytes()).is_none();
        let analysis = if readable && second::disputes(shaped, tokens, &analysis) {
            unknown(Unknown::Disputed)
        } else {
            analysis
        };
        self.agreed.insert(&self.shape, Arc::clone(&analysis));
        analysis
    }
}

impl Default for Examiner {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

/// The text that the server makes of the bytes; none if it would refuse them, or if it is not known what it makes
/// of them. ASCII is itself in every client encoding (`src/include/mb/pg_wchar.h`), unless it is the second byte of
/// a character: an encoding that cannot be decoded may have such characters only where other bytes announce them.
fn decoded(bytes: &[u8], encoding: Encoding) -> Option<Cow<'_, str>> {
    if bytes.is_ascii() {
        return str::from_utf8(bytes).ok().map(Cow::Borrowed);
    }
    match encoding {
        Encoding::Utf8 => str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Encoding::Latin1 => Some(decode_latin1(bytes)),
        Encoding::Latin5 => Some(encoding.decode(bytes)),
        Encoding::Table(table) => table.decode_without_bom_handling_and_without_replacement(bytes),
        Encoding::Opaque => None,
    }
}

fn unknown(reason: Unknown) -> Arc<Analysis> {
    Arc::new(Analysis { unknown: Some(reason), ..Analysis::default() })
}

#[cfg(test)]
mod tests;
