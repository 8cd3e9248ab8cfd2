//! The server's own log, as `log_destination = csvlog` writes it.
//!
//! Columns as in the PostgreSQL documentation, "Using CSV-Format Log Output"
//! (`src/backend/utils/error/csvlog.c`); the first 23 are the same in all supported versions.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};

/// A whole log, in the order in which it was written.
#[derive(Clone, Debug)]
pub struct ServerLog {
    /// Its entries.
    pub entries: Vec<Entry>,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was logged, to the millisecond, as text: sorted like time, since all is UTC.
    pub at: String,
    /// The role; empty before authentication.
    pub user: String,
    /// The database; empty before authentication.
    pub database: String,
    /// The backend's process id.
    pub pid: u32,
    /// The client's `host:port`, or `[local]`.
    pub connection_from: String,
    /// The server's own name of the session: start time and process id.
    pub session: String,
    /// The entry's number in its session.
    pub line: u64,
    /// `LOG`, `ERROR`, `FATAL`, `PANIC`, `WARNING` and the like.
    pub severity: String,
    /// SQLSTATE; `00000` for messages of success.
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
    /// The detail, such as a statement's parameters; empty if there is none.
    pub detail: String,
    /// The query string that the session ran when it logged an error; empty if there is none.
    pub query: String,
    /// The session's `application_name` at that time.
    pub application_name: String,
    /// `client backend`, `walsender`, `parallel worker` and the like.
    pub backend_type: String,
}

impl ServerLog {
    /// Reads `server.csv` in `folder`.
    ///
    /// # Errors
    /// The file is not there, or is not such a log.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("server.csv");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let entries = records(text)?.into_iter().map(Entry::from_fields).collect::<anyhow::Result<_>>()?;
        Ok(Self { entries })
    }
}

impl Entry {
    fn from_fields(mut fields: Vec<String>) -> anyhow::Result<Self> {
        ensure!(fields.len() >= 24, "a log entry of {} fields: {fields:?}", fields.len());
        let mut take = |index: usize| fields.get_mut(index).map(std::mem::take).unwrap_or_default();
        Ok(Self {
            at: take(0),
            user: take(1),
            database: take(2),
            pid: take(3).parse().context("process id")?,
            connection_from: take(4),
            session: take(5),
            line: take(6).parse().context("line number")?,
            severity: take(11),
            sqlstate: take(12),
            message: take(13),
            detail: take(14),
            query: take(19),
            application_name: take(22),
            backend_type: take(23),
        })
    }
}

/// Cuts CSV into records. A field in quotes may hold anything, a quote as two.
fn records(text: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let mut records = Vec::new();
    let mut record = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (field, after) = field(rest)?;
        record.push(field);
        rest = match after.strip_prefix(',') {
            Some(rest) => rest,
            None => {
                records.push(std::mem::take(&mut record));
                after.strip_prefix('\n').unwrap_or(after)
            }
        };
    }
    Ok(records)
}

/// The first field of `text`, and what follows it: a comma, a newline or nothing.
fn field(text: &str) -> anyhow::Result<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find([',', '\n']).unwrap_or(text.len());
        return Ok((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    while let Some(quote) = rest.find('"') {
        value.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return Ok((value, rest)),
        }
    }
    bail!("a log entry without its closing quote: {:?}", value.chars().take(80).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_commas_and_newlines_inside_a_field_belong_to_it() {
        let text = "a,\"b \"\"c\"\",\nd\",,e\n\"\",f\n";
        let expected = [vec!["a", "b \"c\",\nd", "", "e"], vec!["", "f"]];
        assert_eq!(records(text).unwrap(), expected);
    }

    #[test]
    fn a_log_that_breaks_off_in_a_field_is_refused() {
        assert!(records("a,\"b").is_err());
    }
}
