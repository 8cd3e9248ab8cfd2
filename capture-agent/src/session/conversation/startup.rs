//! The phases before ReadyForQuery first comes, and the settings that the server reports at any time.

use std::sync::Arc;

use super::{Conversation, Phase, Replication, Then, Turn};
use crate::frames::Frame;
use crate::frames::backend::{
    AUTH_GSS, AUTH_MD5, AUTH_OK, AUTH_PASSWORD, AUTH_SASL, AUTH_SSPI, Authentication, parameter_status,
};
use crate::frames::startup::Startup;
use crate::session::value::Encoding;
use crate::session::{SessionInfo, Sink};

impl Conversation {
    /// The client's startup packet.
    pub(super) fn startup(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) -> Then {
        match Startup::read(frame.body()) {
            Some(Startup::Ssl | Startup::Gss) => Then::Negotiate,
            Some(Startup::Cancel { .. }) => {
                self.phase = Phase::Cancel;
                Then::Started
            }
            Some(Startup::Message { options, .. }) => {
                self.phase = Phase::Authenticating;
                for (name, value) in options {
                    self.option(name, value, turn.info);
                }
                // A physical walsender is connected to no database.
                if turn.info.database.is_none() && !matches!(self.replication, Replication::Physical) {
                    turn.info.database.clone_from(&turn.info.user);
                }
                Then::Started
            }
            None => Then::Started,
        }
    }

    fn option(&mut self, name: &[u8], value: &[u8], info: &mut SessionInfo) {
        let text = |info: &SessionInfo| Some(Arc::from(info.client_encoding.decode(value)));
        match name {
            b"user" => info.user = text(info),
            b"database" => info.database = text(info),
            b"application_name" => info.application_name = text(info),
            b"client_encoding" => info.client_encoding = Encoding::from_name(&String::from_utf8_lossy(value)),
            b"replication" => self.replication = replication(value),
            _ => {}
        }
    }

    /// An authentication request, or that it is over.
    pub(super) fn authentication(&mut self, body: &[u8], info: &mut SessionInfo) {
        let Some(request) = Authentication::read(body) else { return };
        let method: Arc<str> = match request.kind {
            AUTH_OK if info.auth_method.is_none() => "trust".into(),
            AUTH_PASSWORD => "password".into(),
            AUTH_MD5 => "md5".into(),
            AUTH_GSS => "gss".into(),
            AUTH_SSPI => "sspi".into(),
            AUTH_SASL => match request.mechanisms().next() {
                Some(b"SCRAM-SHA-256" | b"SCRAM-SHA-256-PLUS") => "scram-sha-256".into(),
                Some(name) => String::from_utf8_lossy(name).into(),
                None => return,
            },
            _ => return,
        };
        info.auth_method = Some(method);
    }

    /// A setting that the server reports.
    pub(super) fn parameter_status(&mut self, body: &[u8], info: &mut SessionInfo) {
        let Some((name, value)) = parameter_status(body) else { return };
        match name {
            b"application_name" => info.application_name = Some(info.client_encoding.decode(value).into()),
            b"server_version" => info.server_version = Some(String::from_utf8_lossy(value).into()),
            b"client_encoding" => info.client_encoding = Encoding::from_name(&String::from_utf8_lossy(value)),
            b"standard_conforming_strings" => info.standard_conforming_strings = value == b"on",
            _ => {}
        }
    }
}

/// Reads the option as the server does: `database`, or any spelling of a boolean (`parse_bool` in
/// `src/backend/utils/adt/bool.c`).
fn replication(value: &[u8]) -> Replication {
    let value = value.to_ascii_lowercase();
    let is_true = |word: &[u8]| !value.is_empty() && word.starts_with(&value);
    if value == b"database" {
        Replication::Logical
    } else if is_true(b"true") || is_true(b"yes") || value == b"on" || value == b"1" {
        Replication::Physical
    } else {
        Replication::No
    }
}
