//! Golden wire scripts: what is sent over a raw socket, what must come back, what must be recorded.
//! `tests/golden/README.md` describes the format.

mod check;
mod parse;
mod run;
mod token;

pub use check::check;
pub use run::{Run, run};

use std::ops::RangeInclusive;
use std::path::PathBuf;

/// One script.
#[derive(Clone, Debug)]
pub struct Script {
    /// The file's name without its extension.
    pub name: String,
    /// The major versions of the servers that it is about.
    versions: RangeInclusive<u32>,
    /// What happens on the wire, in order.
    steps: Vec<Step>,
    /// The statements that must be recorded, in order.
    statements: Vec<Wanted>,
    /// What must be recorded of the session.
    end: End,
}

#[derive(Clone, Debug)]
struct Step {
    line: usize,
    action: Action,
}

#[derive(Clone, Debug)]
enum Action {
    /// Opens a connection, and logs in unless the script does that by hand.
    Connect { unix: bool, login: Option<Vec<(String, String)>>, password: String },
    /// Sends a message.
    Send(Vec<u8>),
    /// Expects a message; the text is what [`crate::wire::backend::describe`] says, or its beginning.
    Expect(String),
    /// Passes over messages until the next expected one.
    ExpectAnything,
    /// Expects one byte.
    Byte(u8),
    /// Expects the server to close the connection.
    Closed,
    /// Cancels what the session runs, by a connection of its own.
    Cancel,
    /// Runs a statement in another session.
    Elsewhere(String),
    /// Sends Terminate and waits for the server to close.
    Terminate,
    /// Closes the connection without a word.
    Close,
}

/// A statement that must be recorded.
#[derive(Clone, Debug, Default)]
struct Wanted {
    line: usize,
    status: String,
    protocol: String,
    sql: Option<String>,
    fields: Vec<(String, String)>,
    params: Option<Vec<Option<String>>>,
    rows: Vec<Option<Vec<Option<String>>>>,
}

/// What must be recorded of a session.
#[derive(Clone, Debug, Default)]
struct End {
    line: usize,
    fields: Vec<(String, String)>,
    /// Whether the server left some of what was sent unread, so that only the server's reads are known.
    unread: bool,
}

/// The scripts of `tests/golden` that are about servers of this major version, by name.
///
/// # Errors
/// A script is not well formed: then with file and line.
pub fn all(version: u32) -> anyhow::Result<Vec<Script>> {
    let folder = crate::deps::crate_dir().join("golden");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pgt"));
    paths.sort();
    let mut scripts = paths.iter().map(|path| parse::file(path)).collect::<anyhow::Result<Vec<_>>>()?;
    scripts.retain(|script| script.versions.contains(&version));
    Ok(scripts)
}

/// The roles that scripts log in as, beside the superuser.
pub const ROLES: &str = "
    create role by_scram login password 'canary-scram';
    create role by_password login password 'canary-password';
    create role refused login;
    set password_encryption = md5;
    create role by_md5 login password 'canary-md5'";
