//! The ways in which a client reaches a server.

use std::fmt;
use std::process::Command;

use crate::record::Session;
use crate::server::Server;
use crate::{clients, deps};

/// How a session's bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In clear over TCP.
    Tcp,
    /// Over the Unix socket.
    Unix,
    /// Encrypted over TCP; the server must have been started with [`tls`](crate::ServerOptions::tls).
    Tls,
}

impl Transport {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Unix, Self::Tls];

    /// Sets libpq's environment so that `command` reaches `server` in this way and no other.
    pub fn point(self, server: &Server, command: &mut Command) {
        server.point(command);
        command.env("PGSSLMODE", if self == Self::Tls { "require" } else { "disable" });
        if self == Self::Unix {
            command.env("PGHOST", server.socket_folder());
        }
    }

    /// A client program of PostgreSQL's that finds the server by itself.
    ///
    /// # Errors
    /// The program is not installed.
    pub fn program(self, server: &Server, name: &str) -> anyhow::Result<Command> {
        let mut command = server.program(name)?;
        self.point(server, &mut command);
        Ok(command)
    }

    /// Runs a program of `tests/clients`, as [`clients::run`] does.
    ///
    /// # Errors
    /// A driver is missing, or the program fails: then with its words.
    pub fn run(self, server: &Server, program: &str) -> anyhow::Result<String> {
        let mut command = clients::command(program)?;
        self.point(server, &mut command);
        deps::run(&mut command)
    }

    /// Whether this is how a recorded session came.
    #[must_use]
    pub fn is_of(self, session: &Session) -> bool {
        let transport = if self == Self::Unix { "unix" } else { "tcp" };
        session.transport == transport && session.tls == (self == Self::Tls) && !session.gss_encrypted
    }
}

/// In small letters, as a part of a name.
impl fmt::Display for Transport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Tcp => "tcp",
            Self::Unix => "unix",
            Self::Tls => "tls",
        })
    }
}
