//! What a decision may depend on: facts of the session, and of the statement.

use std::sync::Arc;

use crate::session::{Protocol, SessionInfo, Transport};
use crate::sql::{Analysis, name};

/// What is known of a session. A field that is none is not known, yet or ever; one that is known to be absent, such as
/// the address of a client on a Unix socket, is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SessionFacts {
    /// The role that the client authenticates as.
    pub user: Option<Arc<str>>,
    /// The database that it connects to.
    pub database: Option<Arc<str>>,
    /// The current `application_name`, which the client chooses.
    pub application_name: Option<Arc<str>>,
    /// The client's address.
    pub client_addr: Option<Arc<str>>,
    /// `tcp` or `unix`.
    pub transport: Option<Arc<str>>,
    /// Whether it is encrypted.
    pub tls: Option<bool>,
    /// How the client proved who it is.
    pub auth_method: Option<Arc<str>>,
    /// The server's version.
    pub server_version: Option<Arc<str>>,
    /// The port that the server listens on; 0 if none is known.
    pub server_port: Option<i64>,
    /// The container that the server runs in.
    pub container_id: Option<Arc<str>>,
    /// The server's Kubernetes pod.
    pub pod: Option<Arc<str>>,
    /// The pod's namespace.
    pub namespace: Option<Arc<str>>,
    /// The client's executable, of a local client.
    pub peer_exe: Option<Arc<str>>,
}

impl SessionFacts {
    /// What `session` tells. Once `ready`, which is when the server has said ReadyForQuery for the first time, what the
    /// client has not said is known to be absent, unless the session's beginning was not seen.
    pub fn of(session: &SessionInfo, ready: bool) -> Self {
        let origin = &session.origin;
        let encrypted = session.tls || session.gss_encrypted;
        let whole = ready && !origin.partial;
        let said = |text: Option<&str>| text.map(Arc::from).or_else(|| whole.then(|| "".into()));
        let given = |text: Option<&str>| Some(text.unwrap_or_default().into());
        let user = session.user.as_deref().or(origin.user.as_deref());
        Self {
            user: said(user),
            // PostgreSQL's default, `backend_startup.c`.
            database: said(
                session.database.as_deref().or(origin.database.as_deref()).or(user.filter(|_| whole)),
            ),
            application_name: said(session.application_name.as_deref()),
            client_addr: Some(origin.client_addr.map(|addr| addr.to_string()).unwrap_or_default().into()),
            transport: given(Some(match origin.transport {
                Transport::Tcp => "tcp",
                Transport::Unix => "unix",
            })),
            tls: (encrypted || ready).then_some(encrypted),
            auth_method: said(session.auth_method.as_deref()),
            server_version: said(session.server_version.as_deref().or(origin.server.version.as_deref())),
            server_port: Some(origin.server.port.unwrap_or(0).into()),
            container_id: given(origin.server.container_id.as_deref()),
            pod: given(origin.server.pod.as_deref()),
            namespace: given(origin.server.namespace.as_deref()),
            peer_exe: given(origin.peer_exe.as_deref()),
        }
    }
}

/// What is known of a statement: a whole query string, whose statements are decided together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementFacts {
    pub(super) text: Arc<str>,
    pub(super) protocol: &'static str,
    pub(super) analysis: Arc<Analysis>,
    pub(super) unknown: String,
    pub(super) tables_read: Vec<String>,
    pub(super) tables_written: Vec<String>,
    pub(super) schemas: Vec<String>,
    pub(super) function_names: Vec<String>,
    pub(super) opaque: bool,
    /// None until Bind gives them.
    pub(super) params: Option<Vec<String>>,
}

impl StatementFacts {
    /// A statement with this text, or FunctionCall with none, that does what `analysis` tells.
    ///
    /// Its parameters are not known yet if it came with Parse; add them with [`Self::with_params`].
    pub fn new(text: Arc<str>, protocol: Protocol, analysis: Arc<Analysis>) -> Self {
        let protocol = match protocol {
            Protocol::Simple | Protocol::Copy | Protocol::Replication => "simple",
            Protocol::Extended => "extended",
            Protocol::Function => "function",
        };
        let relations = || analysis.tables_read.iter().chain(&analysis.tables_written);
        let schemas = sorted(relations().chain(&analysis.functions).filter_map(|name| schema(name)));
        Self {
            text,
            protocol,
            unknown: analysis.unknown.map(|reason| reason.to_string()).unwrap_or_default(),
            tables_read: sorted(analysis.tables_read.iter().map(|name| in_database(name))),
            tables_written: sorted(analysis.tables_written.iter().map(|name| in_database(name))),
            schemas,
            function_names: sorted(analysis.functions.iter().map(|name| last(name).to_owned())),
            opaque: analysis.kinds.iter().any(|kind| OPAQUE.contains(&kind.as_str())),
            params: (protocol != "extended").then(Vec::new),
            analysis,
        }
    }

    /// What it does.
    pub fn analysis(&self) -> &Analysis {
        &self.analysis
    }

    /// The same statement with its parameters as text, as Bind or FunctionCall gives them; none for NULL.
    #[must_use]
    pub fn with_params<'a>(mut self, params: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        self.params = Some(params.into_iter().map(|param| param.unwrap_or_default().to_owned()).collect());
        self
    }
}

/// Kinds that run what does not stand in the text.
const OPAQUE: [&str; 6] = ["do", "call", "function_call", "load", "create_extension", "alter_extension"];

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Without the database, which can only be the session's own.
fn in_database(written: &str) -> String {
    let mut parts = name::parts(written).rev();
    match (parts.next(), parts.next()) {
        (Some(relation), Some(schema)) => format!("{schema}.{relation}"),
        _ => written.to_owned(),
    }
}

fn schema(written: &str) -> Option<String> {
    name::parts(written).rev().nth(1).map(str::to_owned)
}

fn last(written: &str) -> &str {
    name::parts(written).next_back().unwrap_or(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::value::Encoding;
    use crate::session::{Micros, Origin, SessionId};

    fn session(partial: bool) -> SessionInfo {
        let origin = Origin {
            id: SessionId(uuid::Uuid::nil()),
            started_at: Micros(0),
            transport: Transport::Unix,
            client_addr: None,
            client_port: None,
            backend_pid: 1,
            host_pid: 1,
            peer_pid: None,
            peer_exe: None,
            server: Arc::default(),
            user: None,
            database: None,
            partial,
            idle: false,
        };
        SessionInfo {
            origin,
            user: Some("app".into()),
            database: None,
            application_name: None,
            auth_method: None,
            server_version: None,
            client_encoding: Encoding::Utf8,
            standard_conforming_strings: true,
            gss_encrypted: false,
            tls: false,
            tls_version: None,
            tls_cipher: None,
        }
    }

    #[test]
    fn what_a_client_has_not_said_is_absent_only_when_it_could_have() {
        let begun = SessionFacts::of(&session(false), false);
        assert_eq!((begun.application_name, begun.database, begun.tls), (None, None, None));
        assert_eq!((begun.user.as_deref(), begun.client_addr.as_deref()), (Some("app"), Some("")));
        assert_eq!((begun.transport.as_deref(), begun.server_port), (Some("unix"), Some(0)));
        let ready = SessionFacts::of(&session(false), true);
        assert_eq!((ready.application_name.as_deref(), ready.auth_method.as_deref()), (Some(""), Some("")));
        // PostgreSQL's default.
        assert_eq!((ready.database.as_deref(), ready.tls), (Some("app"), Some(false)));
        let partial = SessionFacts::of(&session(true), true);
        assert_eq!((partial.application_name, partial.database), (None, None));
    }

    #[test]
    fn names_are_told_without_the_database() {
        let analysis = Analysis {
            tables_read: vec!["db.s.t".into(), "s.t".into(), "u".into()],
            functions: vec!["f".into(), "s2.f".into()],
            ..Analysis::default()
        };
        let facts = StatementFacts::new("".into(), Protocol::Simple, Arc::new(analysis));
        assert_eq!(facts.tables_read, ["s.t", "u"]);
        assert_eq!(facts.schemas, ["s", "s2"]);
        assert_eq!(facts.function_names, ["f"]);
    }
}
