//! Objects that events of several classes have.

use serde_json::{Value, json};

use super::{Context, known};
use crate::session::{SessionInfo, Transport};

impl Context {
    /// Who: the role, the session, the client's program.
    pub(super) fn actor(&self, session: &SessionInfo) -> Value {
        let origin = &session.origin;
        let user = session.user.as_deref().or(origin.user.as_deref());
        let process = origin.peer_pid.map(|pid| {
            let file = origin.peer_exe.as_deref().map(|path| {
                let name = path.rsplit('/').next().unwrap_or(path);
                json!({ "name": name, "path": path, "type_id": 1, "type": "Regular File" })
            });
            known([("pid", pid.into()), ("file", file.unwrap_or_default())])
        });
        known([
            (
                "user",
                user.map(|name| json!({ "name": name, "type_id": 0, "type": "Unknown" })).unwrap_or_default(),
            ),
            (
                "session",
                json!({
                    "uid": origin.id.0.to_string(),
                    "created_time": origin.started_at.0 / 1_000,
                    "is_remote": origin.client_addr.is_some_and(|addr| !addr.is_loopback()),
                }),
            ),
            ("app_name", session.application_name.as_deref().into()),
            ("process", process.unwrap_or_default()),
        ])
    }

    /// The database; PostgreSQL's default is the role's name.
    pub(super) fn database(&self, session: &SessionInfo) -> Value {
        let origin = &session.origin;
        let name = session.database.as_deref().or(origin.database.as_deref());
        let name = name.or(session.user.as_deref()).or(origin.user.as_deref()).unwrap_or("unknown");
        json!({ "name": name, "type_id": 1, "type": "Relational" })
    }

    /// Where the client is.
    pub(super) fn source(&self, session: &SessionInfo) -> Value {
        let origin = &session.origin;
        match (origin.transport, origin.client_addr) {
            (Transport::Tcp, Some(ip)) => {
                known([("ip", ip.to_string().into()), ("port", origin.client_port.into())])
            }
            (Transport::Tcp, None) => json!({ "name": "unknown" }),
            (Transport::Unix, _) => json!({ "hostname": self.node, "name": "unix socket" }),
        }
    }

    /// Where the server is.
    pub(super) fn destination(&self, session: &SessionInfo) -> Value {
        let server = &session.origin.server;
        let container = server.container_id.as_deref().map(|id| {
            let pod = server.pod.as_deref().map(|pod| match server.namespace.as_deref() {
                Some(namespace) => format!("{namespace}/{pod}"),
                None => pod.to_owned(),
            });
            known([("uid", id.into()), ("name", pod.into()), ("pod_uuid", server.pod_uid.as_deref().into())])
        });
        known([
            ("hostname", self.node.as_str().into()),
            ("port", server.port.into()),
            ("svc_name", "postgresql".into()),
            ("container", container.unwrap_or_default()),
        ])
    }

    /// As much of a text as is told, and whether that is less than all of it.
    pub(super) fn text<'a>(&self, sql: &'a str) -> (&'a str, bool) {
        let told = sql.get(..sql.floor_char_boundary(self.sql_bytes)).unwrap_or_default();
        (told, told.len() < sql.len())
    }
}
