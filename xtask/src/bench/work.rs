//! What the clients do while it is measured.

use std::fmt;

/// One kind of load.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Work {
    pub(super) kind: Kind,
    /// Sessions at a time.
    pub(super) clients: u32,
    pub(super) tls: bool,
}

/// What each session does, again and again.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// `pgbench -S`: a row by its key.
    Select(Protocol),
    /// pgbench's own script, seven statements a transaction.
    TpcB,
    /// `pgbench -S -C`: a session for each statement.
    Connects,
    /// A SELECT of 1,000,000 rows.
    Rows,
    /// COPY TO STDOUT of 1 GB, read by psql.
    CopyOut,
    /// COPY FROM STDIN of 1 GB, sent by psql.
    CopyIn,
    /// A script of pgbench's, with so many transactions a second in all, or as many as go.
    Script { name: String, text: String, protocol: Protocol, rate: Option<u32> },
}

/// How pgbench sends its statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Extended protocol, statements prepared once.
    Prepared,
    /// Extended protocol, statements parsed each time.
    Extended,
    Simple,
}

impl Work {
    /// Without encryption.
    pub(super) fn new(kind: Kind, clients: u32) -> Self {
        Self { kind, clients, tls: false }
    }

    /// What is counted: a second's worth is the rate.
    pub(super) fn unit(&self) -> &'static str {
        match self.kind {
            Kind::Rows => "rows",
            Kind::CopyOut | Kind::CopyIn => "MB",
            _ => "tps",
        }
    }

    /// How many units a transaction is, of which it took so many seconds to do one.
    pub(super) fn units(&self) -> f64 {
        match self.kind {
            Kind::Rows => ROWS as f64,
            Kind::CopyOut | Kind::CopyIn => COPY_BYTES as f64 / 1e6,
            _ => 1.0,
        }
    }

    /// What the record must hold of each transaction.
    pub(super) fn recorded(&self) -> Recorded {
        let statements = |like, each| Recorded { like, each, rows: false };
        match self.kind {
            Kind::Select(_) | Kind::Connects => statements("^SELECT abalance FROM pgbench_accounts", 1),
            Kind::TpcB => statements("^(BEGIN|END|UPDATE pgbench_|SELECT abalance |INSERT INTO pgbench_)", 7),
            Kind::Rows => Recorded { like: "^SELECT \\* FROM pgbench_accounts", each: ROWS, rows: true },
            Kind::CopyOut => Recorded { like: "^COPY .* TO STDOUT$", each: COPY_ROWS, rows: true },
            Kind::CopyIn => Recorded { like: "^COPY .* FROM STDIN$", each: COPY_ROWS, rows: true },
            Kind::Script { .. } => statements("bench", 1),
        }
    }
}

/// What is in the record of one transaction.
pub(super) struct Recorded {
    /// The statements' texts, as a regular expression.
    pub(super) like: &'static str,
    /// How many statements, or rows of them, there are.
    pub(super) each: i64,
    /// Whether rows are counted.
    pub(super) rows: bool,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tls {
            f.write_str("TLS ")?;
        }
        match &self.kind {
            Kind::Select(Protocol::Prepared) => f.write_str("prepared"),
            Kind::Select(Protocol::Extended) => f.write_str("extended"),
            Kind::Select(Protocol::Simple) => f.write_str("simple"),
            Kind::TpcB => f.write_str("TPC-B"),
            Kind::Connects => f.write_str("connects"),
            Kind::Rows => f.write_str("1,000,000 rows"),
            Kind::CopyOut => f.write_str("COPY 1 GB out"),
            Kind::CopyIn => f.write_str("COPY 1 GB in"),
            Kind::Script { name, .. } => f.write_str(name),
        }?;
        write!(f, ", {}", self.clients)
    }
}

impl Protocol {
    /// pgbench's own name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Extended => "extended",
            Self::Simple => "simple",
        }
    }
}

/// What `Kind::Rows` reads: pgbench's accounts at this scale.
const ROWS: i64 = 100_000 * SCALE as i64;

/// pgbench's scale: 100,000 rows each.
pub(super) const SCALE: u32 = 10;

/// The accounts so many times make a gigabyte.
pub(super) const COPIES: i64 = 11;
const COPY_ROWS: i64 = ROWS * COPIES;
/// What psql reads and sends then: 96 bytes a row.
const COPY_BYTES: i64 = 96 * COPY_ROWS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_work_has_a_name_of_its_own() {
        let kinds = [
            Kind::Select(Protocol::Prepared),
            Kind::Select(Protocol::Extended),
            Kind::Select(Protocol::Simple),
            Kind::TpcB,
            Kind::Connects,
            Kind::Rows,
            Kind::CopyOut,
            Kind::CopyIn,
        ];
        let mut names: Vec<String> = kinds.map(|kind| Work::new(kind, 8).to_string()).to_vec();
        assert_eq!(names.first().map(String::as_str), Some("prepared, 8"));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 8);
    }
}
