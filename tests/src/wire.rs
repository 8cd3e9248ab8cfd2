//! A client that speaks the protocol over a raw socket, one message at a time, right or wrong, and that knows
//! how many bytes the kernel counted on its socket.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::deps;
use crate::server::Server;
use crate::wait;

mod auth;
pub mod backend;
pub mod frontend;

pub use backend::{Message, error};

/// One connection.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    /// Bytes handed to the socket.
    pub sent: u64,
    /// Bytes taken from the socket.
    pub received: u64,
    /// BackendKeyData: process id and secret key.
    pub key: Option<(u32, Vec<u8>)>,
    /// What proved the client's identity: passwords, their hashes, SASL proofs.
    pub secrets: Vec<String>,
    inbox: Vec<u8>,
    parsed: usize,
}

/// What the kernel counted on a TCP socket, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Bytes that the server's side acknowledged.
    pub sent: u64,
    /// Bytes that arrived.
    pub received: u64,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    /// Connects over TCP and says nothing yet.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn tcp(server: &Server) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", server.port()))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(wait::patient(PATIENCE)))?;
        Ok(Self::over(Socket::Tcp(stream)))
    }

    /// Connects over the Unix socket and says nothing yet.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn unix(server: &Server) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(server.socket())?;
        stream.set_read_timeout(Some(wait::patient(PATIENCE)))?;
        Ok(Self::over(Socket::Unix(stream)))
    }

    /// Connects over TCP and logs in as the superuser.
    ///
    /// # Errors
    /// The server refuses.
    pub fn login(server: &Server, application_name: &str) -> anyhow::Result<Self> {
        let mut wire = Self::tcp(server)?;
        wire.start(&[
            ("user", "postgres"),
            ("database", "postgres"),
            ("application_name", application_name),
        ])?;
        Ok(wire)
    }

    /// Sends a startup packet of protocol 3.0 and proceeds to the first ReadyForQuery, without a password.
    ///
    /// # Errors
    /// The server refuses.
    pub fn start(&mut self, parameters: &[(&str, &str)]) -> anyhow::Result<Vec<Message>> {
        self.start_with_password(parameters, "")
    }

    /// The same, with a password for whatever method the server asks for.
    ///
    /// # Errors
    /// The server refuses; then with its words.
    pub fn start_with_password(
        &mut self,
        parameters: &[(&str, &str)],
        password: &str,
    ) -> anyhow::Result<Vec<Message>> {
        self.start_with_version(PROTOCOL_3_0, parameters, password)
    }

    /// The same, with another version of the protocol.
    ///
    /// # Errors
    /// The server refuses; then with its words.
    pub fn start_with_version(
        &mut self,
        version: u32,
        parameters: &[(&str, &str)],
        password: &str,
    ) -> anyhow::Result<Vec<Message>> {
        self.send(&frontend::startup(version, parameters))?;
        let user = parameters.iter().find(|(name, _)| *name == "user").map_or("", |(_, value)| *value);
        auth::authenticate(self, user, password)?;
        self.until_ready()
    }

    /// The client's port; none over a Unix socket.
    ///
    /// # Errors
    /// The socket has no address.
    pub fn port(&self) -> anyhow::Result<Option<u16>> {
        Ok(match &self.socket {
            Socket::Tcp(stream) => Some(stream.local_addr()?.port()),
            Socket::Unix(_) => None,
        })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(bytes)?,
            Socket::Unix(stream) => stream.write_all(bytes)?,
        }
        self.sent += bytes.len() as u64;
        Ok(())
    }

    /// The next message; none if the server closed the connection.
    ///
    /// # Errors
    /// The server is silent for too long, or breaks off inside a message.
    pub fn receive(&mut self) -> anyhow::Result<Option<Message>> {
        loop {
            if let Some((message, length)) = Message::cut(&self.inbox[self.parsed..])? {
                self.parsed += length;
                if let Message { tag: b'K', body } = &message
                    && let [a, b, c, d, secret @ ..] = body.as_slice()
                {
                    self.key = Some((u32::from_be_bytes([*a, *b, *c, *d]), secret.to_vec()));
                }
                return Ok(Some(message));
            }
            if !self.fill()? {
                ensure!(self.parsed == self.inbox.len(), "the server broke off inside a message");
                return Ok(None);
            }
        }
    }

    /// The next message.
    ///
    /// # Errors
    /// There is none.
    pub fn expect(&mut self) -> anyhow::Result<Message> {
        self.receive()?.context("the server closed the connection")
    }

    /// The next single byte, as SSLRequest and GSSENCRequest are answered.
    ///
    /// # Errors
    /// There is none.
    pub fn byte(&mut self) -> anyhow::Result<u8> {
        while self.parsed == self.inbox.len() {
            ensure!(self.fill()?, "the server closed the connection");
        }
        self.parsed += 1;
        Ok(self.inbox[self.parsed - 1])
    }

    /// Sends messages in one piece, or each by itself, and yields the replies up to ReadyForQuery.
    ///
    /// # Errors
    /// As [`Wire::until_ready`].
    pub fn exchange(&mut self, messages: &[Vec<u8>], together: bool) -> anyhow::Result<Vec<Message>> {
        if together {
            self.send(&messages.concat())?;
        } else {
            for message in messages {
                self.send(message)?;
            }
        }
        self.until_ready()
    }

    /// All messages up to and with the next ReadyForQuery.
    ///
    /// # Errors
    /// The connection ends before; then with the server's last words.
    pub fn until_ready(&mut self) -> anyhow::Result<Vec<Message>> {
        let mut messages = Vec::new();
        loop {
            let Some(message) = self.receive()? else {
                bail!("the server closed the connection: {:?}", messages.last().map(backend::describe));
            };
            let ready = message.tag == b'Z';
            messages.push(message);
            if ready {
                return Ok(messages);
            }
        }
    }

    /// Sends a Query and yields the whole reply.
    ///
    /// # Errors
    /// The connection is broken. An ErrorResponse is a reply.
    pub fn query(&mut self, sql: &str) -> anyhow::Result<Vec<Message>> {
        self.send(&frontend::query(sql))?;
        self.until_ready()
    }

    /// Passes over `length` bytes of messages, or all up to the server's close. Stops between two messages.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn discard(&mut self, length: u64) -> anyhow::Result<()> {
        let mut discarded = 0;
        while discarded < length {
            match self.receive()? {
                Some(message) => discarded += message.body.len() as u64 + 5,
                None => break,
            }
        }
        Ok(())
    }

    /// What the kernel has counted on this socket so far. A TCP connection's own SYN counts as one byte that was
    /// acknowledged (RFC 793 numbers it); it is taken off.
    ///
    /// # Errors
    /// This is not TCP, or something that was sent is not acknowledged in time.
    pub fn counted(&self) -> anyhow::Result<Counted> {
        let Socket::Tcp(stream) = &self.socket else { bail!("the kernel counts bytes on TCP sockets only") };
        wait::until("all that was sent to be acknowledged", PATIENCE, || {
            let socket = Stdio::from(OwnedFd::from(stream.try_clone()?));
            let output = Command::new(deps::python()?).args(["-c", TCP_INFO]).stdin(socket).output()?;
            let text = String::from_utf8(output.stdout)?;
            let (acked, received) = text
                .trim()
                .split_once(' ')
                .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
            let counted = Counted { sent: acked.parse::<u64>()? - 1, received: received.parse()? };
            Ok((counted.sent >= self.sent).then_some(counted))
        })
    }

    /// Sends Terminate and waits until the server closes.
    ///
    /// # Errors
    /// The server says something else, or does not close.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        self.send(&frontend::message(b'X', &[]))?;
        match self.receive()? {
            None => Ok(()),
            Some(message) => bail!("after Terminate came {}", backend::describe(&message)),
        }
    }

    /// Says that no more bytes will come, and waits until the server closes.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn close(&mut self) -> anyhow::Result<()> {
        let _ = match &self.socket {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
        // A reset is an end as well: the server closed while bytes were on their way.
        while matches!(self.fill(), Ok(true)) {
            self.inbox.clear();
            self.parsed = 0;
        }
        Ok(())
    }

    fn over(socket: Socket) -> Self {
        Self { socket, sent: 0, received: 0, key: None, secrets: Vec::new(), inbox: Vec::new(), parsed: 0 }
    }

    fn fill(&mut self) -> anyhow::Result<bool> {
        if self.parsed > 0 {
            self.inbox.drain(..self.parsed);
            self.parsed = 0;
        }
        let held = self.inbox.len();
        self.inbox.resize(held + CHUNK, 0);
        let room = &mut self.inbox[held..];
        // A read with a deadline is not restarted by the kernel when the process was frozen or stopped meanwhile (signal(7)).
        let read = loop {
            let read = match &mut self.socket {
                Socket::Tcp(stream) => stream.read(room),
                Socket::Unix(stream) => stream.read(room),
            };
            if !read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::Interrupted) {
                break read;
            }
        };
        // After a reset nothing comes any more, as after an orderly end.
        let read = match read {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(0),
            other => other,
        };
        self.inbox.truncate(held + *read.as_ref().unwrap_or(&0));
        let read = read.context("nothing came from the server")?;
        self.received += read as u64;
        Ok(read > 0)
    }
}

/// Protocol version 3.0, as the startup packet carries it (`src/include/libpq/pqcomm.h`).
pub const PROTOCOL_3_0: u32 = 3 << 16;

/// Protocol version 3.2, which PostgreSQL 18 is the first to speak: its cancel keys have 32 bytes, not 4.
pub const PROTOCOL_3_2: u32 = PROTOCOL_3_0 + 2;

const PATIENCE: Duration = Duration::from_secs(60);
const CHUNK: usize = 256 * 1024;

/// `tcpi_bytes_acked` and `tcpi_bytes_received` of the socket on stdin (`struct tcp_info` in
/// `include/uapi/linux/tcp.h`). Python reads it, because the standard library of Rust does not.
const TCP_INFO: &str = "
import socket, struct
info = socket.socket(fileno=0).getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
print(*struct.unpack_from('=QQ', info, 120))
";
