//! The edge to the kernel: finds servers, attaches the hooks, and turns the ring into [`Event`]s.
//!
//! One of two rooms with `unsafe` code in the agent (the other is `shim`); everything that it hands on is
//! plain data.

mod access;
mod attach;
mod backends;
mod btf;
mod container;
mod counters;
pub mod doctor;
mod error;
mod event;
mod fields;
mod guarded;
mod holds;
mod hooks;
mod kernel;
mod kubernetes;
mod lock_waits;
mod mapping;
pub mod memory;
mod passes;
mod pins;
mod pod_names;
mod ports;
mod priority;
mod processes;
mod ring;
mod servers;
mod spin;
mod tls;
mod uprobes;

pub use access::{Access, Answer, OwnRights, Question, ServerFile};
pub use backends::{OpenBackend, open_backends, waits_for_client};
pub use container::{Container, Pod};
pub use counters::Counters;
pub use error::LoadError;
pub use event::{Event, Form, Stop};
pub use holds::{Holds, Way};
pub use hooks::{Plan, SocketHooks};
pub use kernel::Kernel;
pub use kubernetes::{KubernetesError, PodList};
pub use lock_waits::{LockWaits, waiting_for_locks};
pub use passes::{Passed, Passes};
pub use pins::Pins;
pub use pod_names::PodNames;
pub use priority::{Turns, run_first, run_promptly};
pub use processes::{is_being_ended, monotonic_now, thread_time, unix_offset};
pub use ring::Ring;
pub use servers::{Selector, Server, find_server, find_servers, installed_servers, soon_to_serve};
pub use tls::{NoTls, TlsPlan, TlsProbes, TlsSource};
