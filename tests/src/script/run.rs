//! Plays a script against a server.

use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::{Action, Script};
use crate::server::Server;
use crate::wait;
use crate::wire::{Message, Wire, backend, frontend};

/// A script that was played: how to find its session in the record, and what passed on its socket.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The client's port; none over a Unix socket.
    pub port: Option<u16>,
    /// The backend's process id, if the session got that far.
    pub backend: Option<u32>,
    /// Bytes that the client sent.
    pub sent: u64,
    /// Bytes that the client received.
    pub received: u64,
}

/// Plays a script.
///
/// # Errors
/// Something else came back than the script says: then with its line.
pub fn run(script: &Script, server: &Server) -> anyhow::Result<Run> {
    let mut player = Player { server, wire: None, outbox: Vec::new(), skipping: false };
    for step in &script.steps {
        player.step(&step.action).with_context(|| format!("{}.pgt, line {}", script.name, step.line))?;
    }
    let wire = player.wire.context("the script opens no connection")?;
    Ok(Run {
        port: wire.port()?,
        backend: wire.key.as_ref().map(|(pid, _)| *pid),
        sent: wire.sent,
        received: wire.received,
    })
}

struct Player<'a> {
    server: &'a Server,
    wire: Option<Wire>,
    /// Messages that follow each other in a script leave in one piece.
    outbox: Vec<u8>,
    skipping: bool,
}

impl Player<'_> {
    fn step(&mut self, action: &Action) -> anyhow::Result<()> {
        if let Action::Send(bytes) = action {
            self.outbox.extend(bytes);
            return Ok(());
        }
        self.flush()?;
        match action {
            Action::Send(_) => {}
            Action::Connect { unix, login, password } => self.connect(*unix, login.as_deref(), password)?,
            Action::Expect(pattern) => self.expect(pattern)?,
            Action::ExpectAnything => self.skipping = true,
            Action::Byte(wanted) => {
                let byte = self.wire()?.byte()?;
                ensure!(byte == *wanted, "the server answered {:?}", char::from(byte));
            }
            Action::Closed => self.closed()?,
            Action::Cancel => self.cancel()?,
            Action::Elsewhere(sql) => {
                self.server.psql(sql)?;
            }
            Action::Terminate => self.wire()?.terminate()?,
            Action::Close => self.wire()?.close()?,
        }
        Ok(())
    }

    fn connect(
        &mut self,
        unix: bool,
        login: Option<&[(String, String)]>,
        password: &str,
    ) -> anyhow::Result<()> {
        let mut wire = if unix { Wire::unix(self.server)? } else { Wire::tcp(self.server)? };
        if let Some(parameters) = login {
            let parameters: Vec<(&str, &str)> =
                parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            wire.start_with_password(&parameters, password)?;
        }
        self.wire = Some(wire);
        Ok(())
    }

    fn expect(&mut self, pattern: &str) -> anyhow::Result<()> {
        let skipping = std::mem::take(&mut self.skipping);
        loop {
            let message = self.wire()?.receive()?;
            let Some(message) = message else { bail!("the server closed the connection") };
            if matches(pattern, &message) {
                return Ok(());
            }
            ensure!(skipping, "the server said {}", backend::describe(&message));
        }
    }

    fn closed(&mut self) -> anyhow::Result<()> {
        let skipping = std::mem::take(&mut self.skipping);
        while let Some(message) = self.wire()?.receive()? {
            ensure!(skipping, "the server said {}", backend::describe(&message));
        }
        Ok(())
    }

    /// Waits until the session sleeps in `pg_sleep`: a CancelRequest that comes too early cancels nothing.
    fn cancel(&mut self) -> anyhow::Result<()> {
        let (pid, secret) = self.wire()?.key.clone().context("no BackendKeyData came")?;
        let asleep = format!("select wait_event = 'PgSleep' from pg_stat_activity where pid = {pid}");
        wait::until("the statement to run", Duration::from_secs(10), || {
            Ok((self.server.psql(&asleep)?.trim() == "t").then_some(()))
        })?;
        let mut wire = Wire::tcp(self.server)?;
        wire.send(&frontend::cancel(pid, &secret))?;
        wire.discard(u64::MAX)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.outbox);
        self.wire()?.send(&bytes)
    }

    fn wire(&mut self) -> anyhow::Result<&mut Wire> {
        self.wire.as_mut().context("the script opens no connection before this")
    }
}

/// A pattern is what [`backend::describe`] says, or its beginning up to a whole word. `*` at its end stands for
/// anything.
fn matches(pattern: &str, message: &Message) -> bool {
    let line = backend::describe(message);
    let pattern = pattern.strip_suffix(" *").unwrap_or(pattern);
    line.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}
