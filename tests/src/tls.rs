//! A client that encrypts its connection itself and knows what passed: the program `clients/tls_client.py`, which runs
//! as a process of its own and does as it is told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::clients;
use crate::server::Server;

/// A session, open until it is told to leave or goes out of scope.
#[derive(Debug)]
pub struct TlsClient {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What the client counted by the end of its session.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Counted {
    /// Its port.
    pub port: u16,
    /// Bytes of the protocol that it sent.
    pub sent: u64,
    /// Bytes of the protocol that it received.
    pub received: u64,
    /// Bytes that the kernel sent over the socket (`tcp_info`).
    pub socket_in: u64,
    /// Bytes that the kernel received.
    pub socket_out: u64,
}

impl TlsClient {
    /// Connects and logs in as the superuser. Of the arguments, `direct` leaves out SSLRequest, `max=1.2` names the
    /// newest version.
    ///
    /// # Errors
    /// The server refuses.
    pub fn connect(server: &Server, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = clients::command("tls_client.py")?;
        server.point(&mut command);
        let mut process = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let commands = process.stdin.take().context("no stdin")?;
        let answers = BufReader::new(process.stdout.take().context("no stdout")?);
        let mut client = Self { process, commands, answers };
        let ready: String = client.answer()?;
        anyhow::ensure!(ready == "ready", "{ready}");
        Ok(client)
    }

    /// Sends a Query. Yields the beginning of the last row's first value, or the error's SQLSTATE.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn query(&mut self, sql: &str) -> anyhow::Result<Option<String>> {
        self.ask(sql)?;
        self.answer()
    }

    /// Sends a Query and does not wait for the reply.
    ///
    /// # Errors
    /// The client has ended.
    pub fn ask(&mut self, sql: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.commands, "query {sql}")?)
    }

    /// Sends Terminate and waits until the server closes.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn leave(mut self) -> anyhow::Result<Counted> {
        writeln!(self.commands, "leave")?;
        self.answer()
    }

    fn answer<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the client ended: {}", self.process.wait()?);
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for TlsClient {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
