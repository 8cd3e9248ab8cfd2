//! What a statement does: kinds, relations, functions, fingerprint.
//!
//! The server's own grammar reads the text (`pg_query`); what it cannot read, or must not be asked to, is
//! [`Unknown`]. Sans-IO: text in, [`Analysis`] out. Statements that differ in their constants alone do the same,
//! so most of them are recognised by their shape and never reach the parser.

use std::sync::Arc;

pub(crate) mod cache;
mod depth;
mod examine;
mod fastpath;
mod kinds;
mod known;
pub mod name;
mod parse;
mod relations;
mod second;
mod shape;
pub(crate) mod tree;

use cache::{RecentTexts, Shapes};
pub use examine::{Examined, Examiner, Opinions, Reading};
pub use fastpath::function_call;
pub use known::{is_kind, verbs};

/// What the statements of one text do, taken together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Analysis {
    /// The kinds of all statements in the text, nested ones too: sorted, without duplicates.
    ///
    /// A kind is PostgreSQL's command tag (`src/include/tcop/cmdtaglist.h`) in lower case with underscores:
    /// `select`, `create_table`, `drop_materialized_view`, `alter_role`, `truncate_table`, `lock_table`, `do`. Each
    /// kind of several words comes with its first word as a kind of its own: `create`, `drop`, `alter`, `truncate`,
    /// `lock`. Beyond the tags there are `transaction` with every transaction command, `reset` (whose tag is
    /// RESET), and with `copy` its direction (`copy_from`, `copy_to`) and, where it reaches out of the database,
    /// `copy_program` or `copy_file`.
    pub kinds: Vec<String>,
    /// Relations that are read, as they are written, with their schema where it is written: sorted, without
    /// duplicates. Names of common table expressions are none. A written relation is read too if its rows come
    /// back through RETURNING.
    pub tables_read: Vec<String>,
    /// Relations whose rows, definition or privileges are changed.
    pub tables_written: Vec<String>,
    /// Functions and procedures that are called, with their schema where it is written; special syntax such as
    /// EXTRACT under the name that the grammar gives it (`pg_catalog.extract`), that of SQL/JSON under the name
    /// that an older server takes for a function's (`json_scalar`).
    pub functions: Vec<String>,
    /// Parameters that SET, RESET and the SET of ALTER SYSTEM, ROLE, DATABASE and CREATE FUNCTION change, in
    /// lower case: `search_path`, `role`, `session_authorization`, `transaction`; `all` for RESET ALL.
    pub settings: Vec<String>,
    /// Prepared statements that EXECUTE runs and that the text itself has not prepared before: what they do is not part of
    /// this.
    pub executes: Vec<String>,
    /// Whether an UPDATE, at any depth, has no WHERE.
    pub update_without_where: bool,
    /// Whether a DELETE, at any depth, has no WHERE.
    pub delete_without_where: bool,
    /// `pg_query`'s fingerprint in hexadecimal: the same for texts that differ in constants, alias names and
    /// layout. None if the text is unknown or has no statement.
    pub fingerprint: Option<String>,
    /// Why the text could not be read; everything else is empty then.
    pub unknown: Option<Unknown>,
}

/// Why it is not known what a text does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unknown {
    /// Longer than [`Limits::text_bytes`] or [`Limits::tokens`].
    #[error("the text is too long to be parsed")]
    TooLong,
    /// Nested deeper than [`Limits::depth`], or than the parser's own stack allows.
    #[error("the text is nested too deeply to be parsed")]
    TooDeep,
    /// A zero byte, which no query string can have.
    #[error("the text has a zero byte")]
    ZeroByte,
    /// The grammar of PostgreSQL 18 does not read it. The server says the same, unless it is older or newer.
    #[error("PostgreSQL's grammar does not read the text")]
    Syntax,
    /// The parser failed otherwise.
    #[error("the parser failed")]
    Parser,
    /// The bytes are no text of the session's encoding, or of one that cannot be told.
    #[error("the text cannot be decoded")]
    Encoding,
    /// It is not known whether `standard_conforming_strings` is on, and the text says another thing with it off.
    #[error("the text depends on standard_conforming_strings, which is not known")]
    Ambiguous,
    /// Nobody saw it: it was prepared before the session was captured, or bytes of it were lost.
    #[error("the text was not seen")]
    Unseen,
    /// Another parser reads the text as statements of other kinds.
    #[error("two parsers read the text differently")]
    Disputed,
}

impl Analysis {
    /// What a text does of which only the reason is known why nobody can tell.
    pub fn of_unknown(reason: Unknown) -> Self {
        Self { unknown: Some(reason), ..Self::default() }
    }

    /// Adds what another text does that runs with this one.
    pub fn add(&mut self, other: &Self) {
        for (all, more) in [
            (&mut self.kinds, &other.kinds),
            (&mut self.tables_read, &other.tables_read),
            (&mut self.tables_written, &other.tables_written),
            (&mut self.functions, &other.functions),
            (&mut self.settings, &other.settings),
        ] {
            all.extend_from_slice(more);
            all.sort_unstable();
            all.dedup();
        }
        self.update_without_where |= other.update_without_where;
        self.delete_without_where |= other.delete_without_where;
    }
}

/// What an [`Analyzer`] may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longer texts are unknown. 1 MiB: a longer one is data, loaded by INSERT, and reading it takes milliseconds.
    pub text_bytes: usize,
    /// Texts with more tokens are unknown; repeated rows of VALUES, and constants in the list of IN, count once.
    /// 10,000: a parse tree takes up to 2 KiB of memory and 5 µs per token.
    pub tokens: usize,
    /// The most tokens that may be nested in each other, by a cautious count (`depth.rs`). 2,000 is twenty times
    /// what generated SQL needs, except for long chains of UNION ALL.
    pub depth: usize,
    /// The most shapes remembered. 8,192 holds every statement of a large application.
    pub shapes: usize,
    /// The most bytes that remembered shapes and their analyses take.
    pub shape_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { text_bytes: 1 << 20, tokens: 10_000, depth: 2_000, shapes: 8_192, shape_bytes: 16 << 20 }
    }
}

/// Tells what texts do, and remembers what it has told.
///
/// Parsing of ordinary statements takes up to 256 KiB of the caller's stack (1 MiB without optimization); deeply
/// nested ones are parsed on a thread of their own. The parser sends the process's standard error elsewhere while
/// it runs, so what other threads write to descriptor 2 meanwhile is lost: logs go to a duplicate of it.
#[derive(Debug)]
pub struct Analyzer {
    limits: Limits,
    recent: RecentTexts<Analysis>,
    shapes: Shapes,
    /// The shape of the text at hand.
    shape: Vec<u8>,
    too_long: Arc<Analysis>,
}

impl Analyzer {
    /// Remembers nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            recent: RecentTexts::default(),
            shapes: Shapes::new(limits.shapes, limits.shape_bytes),
            shape: Vec::new(),
            too_long: Arc::new(Analysis { unknown: Some(Unknown::TooLong), ..Analysis::default() }),
        }
    }

    /// What the statements in `text` do, with the session's `standard_conforming_strings`.
    pub fn analyze(&mut self, text: &Arc<str>, standard_conforming_strings: bool) -> Arc<Analysis> {
        if text.len() > self.limits.text_bytes {
            return Arc::clone(&self.too_long);
        }
        let key = self.recent.key(text, standard_conforming_strings);
        if let Some(analysis) = self.recent.find(key, text) {
            return Arc::clone(analysis);
        }
        let tokens = shape::write(text, standard_conforming_strings, &mut self.shape);
        if tokens > self.limits.tokens {
            return Arc::clone(&self.too_long);
        }
        let analysis = match self.shapes.find(&self.shape) {
            Some(analysis) => analysis,
            None => {
                let analysis = Arc::new(self.parse(standard_conforming_strings));
                self.shapes.insert(&self.shape, Arc::clone(&analysis));
                analysis
            }
        };
        self.recent.note(key, text, &analysis);
        analysis
    }

    /// What the shape at hand does, which is what its text does.
    fn parse(&self, standard_conforming_strings: bool) -> Analysis {
        shape::text(&self.shape)
            .ok_or(Unknown::Parser)
            .and_then(|text| parse::analysis(text, standard_conforming_strings, self.limits.depth))
            .unwrap_or_else(|unknown| Analysis { unknown: Some(unknown), ..Analysis::default() })
    }
}

/// What `read` makes of a text's parse tree, whose root has the list `stmts`.
///
/// # Errors
///
/// Why there is none.
pub(crate) fn with_tree<T: Send>(
    text: &str,
    standard_conforming_strings: bool,
    limits: Limits,
    read: impl FnOnce(&tree::Node) -> T + Send,
) -> Result<T, Unknown> {
    if text.len() > limits.text_bytes {
        return Err(Unknown::TooLong);
    }
    parse::with_tree(text, standard_conforming_strings, limits.depth, |tree| Ok(read(tree)))
}

impl Default for Analyzer {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

#[cfg(test)]
mod tests;
