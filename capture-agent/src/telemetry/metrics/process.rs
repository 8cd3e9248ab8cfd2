//! The agent's process, named as Prometheus' clients in all languages name theirs.

use super::Metric;

/// Processor time of the agent.
pub static CPU: Metric =
    Metric::counter("process_cpu_seconds_total", "Processor time that the agent has used").in_micros();
/// Memory of the agent.
pub static RESIDENT: Metric =
    Metric::gauge("process_resident_memory_bytes", "Memory of the agent that is in use");
/// Address space of the agent.
pub static VIRTUAL: Metric = Metric::gauge("process_virtual_memory_bytes", "Address space of the agent");
/// Descriptors of the agent.
pub static OPEN_FDS: Metric = Metric::gauge("process_open_fds", "Descriptors that the agent has open");
/// The most descriptors that it may have.
pub static MAX_FDS: Metric = Metric::gauge("process_max_fds", "Descriptors that the agent may have open");
/// Threads of the agent.
pub static THREADS: Metric = Metric::gauge("process_threads", "Threads of the agent");
/// When the agent began.
pub static START: Metric =
    Metric::gauge("process_start_time_seconds", "When the agent began, in seconds since the Unix epoch")
        .in_micros();
