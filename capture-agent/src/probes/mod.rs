//! The edge to the kernel: finds servers, attaches the hooks, and turns the ring into [`Event`]s.
//!
//! One of two rooms with `unsafe` code in the agent (the other is `shim`); everything that it hands on is
//! plain data.

mod attach;
mod backends;
mod btf;
mod container;
pub mod doctor;
mod event;
mod hooks;
mod kernel;
mod pins;
mod processes;
mod ring;
mod servers;
mod tls;
mod uprobes;

pub use backends::{OpenBackend, open_backends, waits_for_client};
pub use container::{Container, Pod};
pub use event::{Event, Form};
pub use hooks::{Plan, SocketHooks};
pub use kernel::{Counters, Kernel, LoadError};
pub use pins::Pins;
pub use processes::{executable, monotonic_now, raise_priority, unix_offset};
pub use ring::Ring;
pub use servers::{Selector, Server, find_servers, is_server_process};
pub use tls::{NoTls, TlsPlan, TlsProbes, TlsSource};
