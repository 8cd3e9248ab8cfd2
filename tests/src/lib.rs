//! The harness: real PostgreSQL servers, real clients, the real agent, and three independent judges of what the
//! agent recorded: the server's own log ([`log`], [`oracle`]), the kernel's own byte counts ([`wire`]) and
//! another engine that reads the files ([`record`]).
//!
//! The tests run as root. What is missing on the machine fails a test and says so; nothing is skipped.

pub mod agent;
pub mod canary;
pub mod captured;
pub mod certificates;
pub mod clients;
pub mod container;
pub mod corpus;
pub mod deps;
pub mod disk;
pub mod kerberos;
pub mod kernel;
pub mod kubernetes;
pub mod log;
pub mod matrix;
pub mod object_storage;
pub mod oracle;
pub mod record;
pub mod rights;
pub mod script;
pub mod server;
pub mod shim;
pub mod tls;
pub mod transport;
pub mod wait;
pub mod wire;

pub use agent::{Agent, AgentOptions};
pub use captured::{capture, capture_on, capture_with};
pub use container::{Container, ControlGroup, Network};
pub use disk::Disk;
pub use kerberos::Kerberos;
pub use log::ServerLog;
pub use object_storage::{FaultProxy, ObjectStorage};
pub use record::Record;
pub use rights::Rights;
pub use server::{Server, ServerOptions};
pub use transport::Transport;
