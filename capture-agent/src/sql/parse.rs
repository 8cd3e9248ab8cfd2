//! The way to the C parser, and what guards it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread;

use pg_query::ParserOptions;

use super::tree::Node;
use super::{Analysis, Unknown, depth, relations};

/// What the statements in `text` do.
///
/// # Errors
///
/// Why that cannot be told; `max_depth` counts as [`depth::bounded`] does.
pub(super) fn analysis(
    text: &str,
    standard_conforming_strings: bool,
    max_depth: usize,
) -> Result<Analysis, Unknown> {
    let options = options(standard_conforming_strings);
    with_tree(text, standard_conforming_strings, max_depth, |tree| {
        let mut analysis = Analysis::default();
        relations::collect(tree, &mut analysis);
        if tree.list("stmts").is_empty() {
            return Ok(analysis);
        }
        let fingerprint = pg_query::fingerprint(text, options, 0).map_err(|error| unknown(&error))?;
        analysis.fingerprint = Some(fingerprint.hex);
        Ok(analysis)
    })
}

/// What `read` makes of the text's parse tree.
///
/// # Errors
///
/// Why there is no tree; `max_depth` counts as [`depth::bounded`] does.
pub(super) fn with_tree<T: Send>(
    text: &str,
    standard_conforming_strings: bool,
    max_depth: usize,
    read: impl FnOnce(&Node) -> Result<T, Unknown> + Send,
) -> Result<T, Unknown> {
    if memchr::memchr(0, text.as_bytes()).is_some() {
        return Err(Unknown::ZeroByte);
    }
    let depth = depth::bounded(text, standard_conforming_strings, max_depth).ok_or(Unknown::TooDeep)?;
    let options = options(standard_conforming_strings);
    if depth <= SHALLOW {
        return guarded(text, options, read);
    }
    thread::scope(|scope| {
        thread::Builder::new()
            .name("parse".to_owned())
            .stack_size(STACK_BASE + depth * STACK_PER_LEVEL)
            .spawn_scoped(scope, || guarded(text, options, read))
            .map_err(|_| Unknown::Parser)?
            .join()
            .map_err(|_| Unknown::Parser)?
    })
}

fn options(standard_conforming_strings: bool) -> ParserOptions {
    if standard_conforming_strings {
        ParserOptions::DEFAULT
    } else {
        ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS
    }
}

/// Texts nested no deeper than this are parsed on the caller's stack: 256 KiB of it, 1 MiB without optimization.
const SHALLOW: usize = 24;
/// Stack for a text that is not nested. The C parser wants 512 KiB left over for its own errors.
const STACK_BASE: usize = 2 << 20;
/// Stack for one level of nesting. Measured: up to 4 KiB, 32 KiB without optimization, nearly all of it protobuf's
/// decoder. What is not used is not mapped.
const STACK_PER_LEVEL: usize = 64 << 10;

/// The C parser sends the process's standard error elsewhere while it runs and puts it back afterwards: two at
/// once would lose it for good.
static PARSER: Mutex<()> = Mutex::new(());

/// Runs the parser; a panic in code that is not ours is an unknown text, no end of the agent.
fn guarded<T>(
    text: &str,
    options: ParserOptions,
    read: impl FnOnce(&Node) -> Result<T, Unknown>,
) -> Result<T, Unknown> {
    let _alone = PARSER.lock().unwrap_or_else(PoisonError::into_inner);
    let parsed = || {
        let result = pg_query::parse(text, options).map_err(|error| unknown(&error))?;
        let tree = Node::of(&result.protobuf).ok_or(Unknown::Parser)?;
        drop(result);
        read(&tree)
    };
    catch_unwind(AssertUnwindSafe(parsed)).unwrap_or(Err(Unknown::Parser))
}

fn unknown(error: &pg_query::Error) -> Unknown {
    match error {
        pg_query::Error::Parse(message)
            if message.contains("nested too deeply")
                || message.starts_with("stack depth limit")
                || message.starts_with("memory exhausted") =>
        {
            Unknown::TooDeep
        }
        pg_query::Error::Parse(_) => Unknown::Syntax,
        pg_query::Error::Decode(_) => Unknown::TooDeep,
        pg_query::Error::Conversion(_) => Unknown::ZeroByte,
        _ => Unknown::Parser,
    }
}
