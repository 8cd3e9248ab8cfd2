//! Full-text search (`src/backend/utils/adt/tsvector.c` and `tsquery.c`).

use std::fmt::Write;

use super::{Bounded, Encoding, Failure, Reader};

/// A count of lexemes; each is its text, a zero byte, a count of positions, and the positions.
pub(super) fn write_tsvector(
    reader: &mut Reader<'_>,
    encoding: Encoding,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    // A lexeme has a zero byte and a count of positions at least.
    let count = reader.count(3)?;
    for index in 0..count {
        if index > 0 {
            out.write_char(' ')?;
        }
        write_lexeme(&encoding.decode(reader.zero_terminated()?), out)?;
        for position in 0..reader.u16()? {
            let entry = reader.u16()?;
            out.write_char(if position == 0 { ':' } else { ',' })?;
            write!(out, "{}", entry & 0x3fff)?;
            out.write_str(match entry >> 14 {
                3 => "A",
                2 => "B",
                1 => "C",
                _ => "",
            })?;
        }
    }
    reader.end()
}

/// A count of items, then the items: each operator before its operands, the right one first.
pub(super) fn write_tsquery(
    reader: &mut Reader<'_>,
    encoding: Encoding,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let items = reader.count(3)?;
    if items > 0 {
        let mut query = Query { reader, encoding, items };
        query.write(Priority::Or, false, MAX_OPERATOR_DEPTH, out)?;
        if query.items > 0 {
            return Err(Failure::Malformed);
        }
    }
    reader.end()
}

/// Operators nest at most this deep; deeper queries are left in hexadecimal.
const MAX_OPERATOR_DEPTH: u8 = 64;

/// How tightly an operator binds (`tsearch_op_priority`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Priority {
    Or,
    And,
    Phrase,
    Not,
}

struct Query<'q, 'a> {
    reader: &'q mut Reader<'a>,
    encoding: Encoding,
    /// How many items are left.
    items: usize,
}

impl Query<'_, '_> {
    fn write(
        &mut self,
        parent: Priority,
        right_of_phrase: bool,
        depth: u8,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let depth = depth.checked_sub(1).ok_or(Failure::Malformed)?;
        self.items = self.items.checked_sub(1).ok_or(Failure::Malformed)?;
        match self.reader.u8()? {
            1 => return self.write_operand(out),
            2 => {}
            _ => return Err(Failure::Malformed),
        }
        let (priority, name) = match self.reader.u8()? {
            1 => (Priority::Not, "!".to_owned()),
            2 => (Priority::And, " & ".to_owned()),
            3 => (Priority::Or, " | ".to_owned()),
            4 => match self.reader.u16()? {
                1 => (Priority::Phrase, " <-> ".to_owned()),
                distance => (Priority::Phrase, format!(" <{distance}> ")),
            },
            _ => return Err(Failure::Malformed),
        };
        let phrase = priority == Priority::Phrase;
        let parentheses = priority < parent || (phrase && right_of_phrase);
        if parentheses {
            out.write_str("( ")?;
        }
        if priority == Priority::Not {
            out.write_str(&name)?;
        } else {
            let mut right = Bounded::new(self.reader.remaining());
            self.write(priority, phrase, depth, &mut right)?;
            self.write(priority, false, depth, out)?;
            out.write_str(&name)?;
            out.write_str(&right.text)?;
        }
        if priority == Priority::Not {
            self.write(priority, false, depth, out)?;
        }
        if parentheses {
            out.write_str(" )")?;
        }
        Ok(())
    }

    fn write_operand(&mut self, out: &mut dyn Write) -> Result<(), Failure> {
        let weights = self.reader.u8()?;
        let prefix = self.reader.u8()? != 0;
        write_lexeme(&self.encoding.decode(self.reader.zero_terminated()?), out)?;
        if prefix || weights != 0 {
            out.write_char(':')?;
        }
        if prefix {
            out.write_char('*')?;
        }
        for (bit, letter) in [(8, 'A'), (4, 'B'), (2, 'C'), (1, 'D')] {
            if weights & bit != 0 {
                out.write_char(letter)?;
            }
        }
        Ok(())
    }
}

fn write_lexeme(text: &str, out: &mut dyn Write) -> Result<(), Failure> {
    out.write_char('\'')?;
    for char in text.chars() {
        if matches!(char, '\'' | '\\') {
            out.write_char(char)?;
        }
        out.write_char(char)?;
    }
    Ok(out.write_char('\'')?)
}
