//! The fields that conditions may read. `docs/policy.md` documents them; a test compares the two.

use super::condition::Type;
use super::condition::{Items, Missing, Value};
use super::facts::{SessionFacts, StatementFacts};

/// A field of `session` or `stmt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    User,
    Database,
    ApplicationName,
    ClientAddr,
    Transport,
    Tls,
    AuthMethod,
    ServerVersion,
    ServerPort,
    ContainerId,
    Pod,
    Namespace,
    PeerExe,
    Text,
    Protocol,
    Kinds,
    TablesRead,
    TablesWritten,
    Schemas,
    Functions,
    FunctionNames,
    Settings,
    UpdateWithoutWhere,
    DeleteWithoutWhere,
    Opaque,
    Unknown,
    Params,
}

/// A field as conditions write it.
#[derive(Debug)]
pub struct FieldInfo {
    /// `session` or `stmt`.
    pub object: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// Its type, as CEL calls it.
    pub kind: Type,
    /// What it says.
    pub meaning: &'static str,
    pub(super) field: Field,
}

/// Every field.
pub const FIELDS: [FieldInfo; 27] = [
    session(
        "user",
        Type::String,
        Field::User,
        "the role that the client authenticates as; SET ROLE does not change it",
    ),
    session("database", Type::String, Field::Database, "the database that it connects to"),
    session(
        "application_name",
        Type::String,
        Field::ApplicationName,
        "the current `application_name`; the client chooses it and may change it at any time",
    ),
    session(
        "client_addr",
        Type::String,
        Field::ClientAddr,
        "the client's IP address; empty on a Unix socket",
    ),
    session("transport", Type::String, Field::Transport, "`tcp` or `unix`"),
    session("tls", Type::Bool, Field::Tls, "whether the session is encrypted, by TLS or GSSAPI"),
    session(
        "auth_method",
        Type::String,
        Field::AuthMethod,
        "`trust`, `password`, `md5`, `scram-sha-256`, `gss`, `sspi`, or another SASL mechanism's name",
    ),
    session("server_version", Type::String, Field::ServerVersion, "the server's version, such as `15.14`"),
    session(
        "server_port",
        Type::Int,
        Field::ServerPort,
        "the port that the server listens on, in its own network; 0 if it is not known",
    ),
    session(
        "container_id",
        Type::String,
        Field::ContainerId,
        "the container that the server runs in; empty outside of containers",
    ),
    session("pod", Type::String, Field::Pod, "the server's Kubernetes pod"),
    session("namespace", Type::String, Field::Namespace, "the pod's namespace"),
    session(
        "peer_exe",
        Type::String,
        Field::PeerExe,
        "the client's executable, of a client on the same host",
    ),
    stmt(
        "text",
        Type::String,
        Field::Text,
        "the query string, with all its statements; empty for FunctionCall",
    ),
    stmt("protocol", Type::String, Field::Protocol, "`simple`, `extended` or `function`"),
    stmt("kinds", Type::STRINGS, Field::Kinds, "the kinds of all statements in the text, at any depth"),
    stmt(
        "tables_read",
        Type::STRINGS,
        Field::TablesRead,
        "relations that are read, with their schema where it is written, without the database",
    ),
    stmt(
        "tables_written",
        Type::STRINGS,
        Field::TablesWritten,
        "relations whose rows, definition or privileges are changed",
    ),
    stmt("schemas", Type::STRINGS, Field::Schemas, "schemas that are written before relations and functions"),
    stmt(
        "functions",
        Type::STRINGS,
        Field::Functions,
        "functions and procedures that are called, with their schema where it is written",
    ),
    stmt("function_names", Type::STRINGS, Field::FunctionNames, "the same without schemas"),
    stmt(
        "settings",
        Type::STRINGS,
        Field::Settings,
        "parameters that SET and RESET change, in lower case: `search_path`, `role`, `session_authorization`, …; `all` for RESET ALL",
    ),
    stmt(
        "update_without_where",
        Type::Bool,
        Field::UpdateWithoutWhere,
        "whether an UPDATE, at any depth, has no WHERE",
    ),
    stmt(
        "delete_without_where",
        Type::Bool,
        Field::DeleteWithoutWhere,
        "whether a DELETE, at any depth, has no WHERE",
    ),
    stmt(
        "opaque",
        Type::Bool,
        Field::Opaque,
        "whether it runs what does not stand in the text: DO, CALL, FunctionCall, LOAD, CREATE or ALTER EXTENSION",
    ),
    stmt(
        "unknown",
        Type::String,
        Field::Unknown,
        "why it is not known what the text does; empty if it is known",
    ),
    stmt(
        "params",
        Type::STRINGS,
        Field::Params,
        "the parameters as text, NULL as an empty string; what cannot be decoded as `\\x` and hexadecimal digits",
    ),
];

const fn session(name: &'static str, kind: Type, field: Field, meaning: &'static str) -> FieldInfo {
    FieldInfo { object: "session", name, kind, meaning, field }
}

const fn stmt(name: &'static str, kind: Type, field: Field, meaning: &'static str) -> FieldInfo {
    FieldInfo { object: "stmt", name, kind, meaning, field }
}

impl Field {
    /// Whether it tells what a text does, which the text may leave unknown.
    pub(super) fn is_analyzed(self) -> bool {
        use Field as F;
        matches!(
            self,
            F::Kinds
                | F::TablesRead
                | F::TablesWritten
                | F::Schemas
                | F::Functions
                | F::FunctionNames
                | F::Settings
                | F::UpdateWithoutWhere
                | F::DeleteWithoutWhere
                | F::Opaque
                | F::Unknown
        )
    }

    /// Its value; missing if it is not known.
    pub(super) fn value<'f>(self, session: &'f SessionFacts, stmt: Option<&'f StatementFacts>) -> Value<'f> {
        let text = |text: &'f Option<std::sync::Arc<str>>| match text {
            Some(text) => Value::Text(text.as_ref().into()),
            None => Value::Missing(Missing::SESSION),
        };
        match self {
            Self::User => text(&session.user),
            Self::Database => text(&session.database),
            Self::ApplicationName => text(&session.application_name),
            Self::ClientAddr => text(&session.client_addr),
            Self::Transport => text(&session.transport),
            Self::Tls => session.tls.map_or(Value::Missing(Missing::SESSION), Value::Bool),
            Self::AuthMethod => text(&session.auth_method),
            Self::ServerVersion => text(&session.server_version),
            Self::ServerPort => session.server_port.map_or(Value::Missing(Missing::SESSION), Value::Int),
            Self::ContainerId => text(&session.container_id),
            Self::Pod => text(&session.pod),
            Self::Namespace => text(&session.namespace),
            Self::PeerExe => text(&session.peer_exe),
            _ => stmt.map_or(Value::Missing(Missing::STATEMENT), |stmt| self.of_statement(stmt)),
        }
    }

    fn of_statement<'f>(self, stmt: &'f StatementFacts) -> Value<'f> {
        let analysis = &stmt.analysis;
        if analysis.unknown.is_some() && self.is_analyzed() && self != Self::Unknown {
            return Value::Missing(Missing::STATEMENT);
        }
        let list = |list: &'f Vec<String>| Value::List(Items::Strings(list));
        match self {
            Self::Text => Value::Text(stmt.text.as_ref().into()),
            Self::Protocol => Value::Text(stmt.protocol.into()),
            Self::Kinds => list(&analysis.kinds),
            Self::TablesRead => list(&stmt.tables_read),
            Self::TablesWritten => list(&stmt.tables_written),
            Self::Schemas => list(&stmt.schemas),
            Self::Functions => list(&analysis.functions),
            Self::FunctionNames => list(&stmt.function_names),
            Self::Settings => list(&analysis.settings),
            Self::UpdateWithoutWhere => Value::Bool(analysis.update_without_where),
            Self::DeleteWithoutWhere => Value::Bool(analysis.delete_without_where),
            Self::Opaque => Value::Bool(stmt.opaque),
            Self::Unknown => Value::Text(stmt.unknown.as_str().into()),
            Self::Params => stmt.params.as_ref().map_or(Value::Missing(Missing::LATER), list),
            // Fields of the session do not come here.
            _ => Value::Missing(Missing::SESSION),
        }
    }
}
