//! Wires the rooms: the one place that knows all of them.
//!
//! Two threads do the work. The capture thread (`capture`) drains the ring and carries every event through
//! streams, frames and session to the recorder's builders; the recorder's writer thread turns them into files.
//! The main thread waits for signals.

mod capture;
mod detach;
mod examine;
mod servers;
mod sessions;

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use self::capture::Capture;
pub use self::detach::detach;
pub use self::examine::doctor;
use self::servers::Servers;
use self::sessions::Sessions;
use crate::cli::RunOptions;
use crate::probes::{Kernel, Pins, TlsProbes, monotonic_now};
use crate::record::journal::SEGMENT_BYTES;
use crate::record::{Recorder, Settings};
use crate::session::Limits;

/// Records until SIGTERM or SIGINT; then drains, writes what it has, and returns success.
///
/// # Errors
///
/// If the hooks do not load, or the data directory cannot be used at the start, or not all could be written
/// at the end.
pub fn run(options: RunOptions) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise(options))
}

async fn supervise(options: RunOptions) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let config = options.config;
    let (recorder, recovery) = Recorder::new(Settings {
        data_dir: config.data_dir.clone(),
        node: config.node.clone(),
        rotate_age: config.rotate_age(),
        rotate_size: config.rotate.bytes,
        journal_sync: config.journal_sync(),
        segment_bytes: SEGMENT_BYTES,
    })?;
    let pins = Pins::of(&config.kernel.pin_dir, &config.data_dir);
    let (kernel, ring) = Kernel::load(config.ring_size, options.hooks, pins)
        .context("cannot attach to the kernel; see docs/errors.md#cannot-attach")?;
    info!(hooks = %kernel.plan.sockets, "attached");
    let tls = TlsProbes::new(&kernel, options.tls);
    let mut capture = Capture {
        kernel,
        ring,
        sessions: Sessions::new(Limits {
            rows: config.results.rows,
            bytes: config.results.bytes,
            ..Limits::default()
        }),
        servers: Servers::new(options.servers, tls),
        recorder,
        on_stop: config.kernel.on_stop,
        began: monotonic_now(),
        metrics_file: options.metrics_file,
    };
    capture.resume(&recovery);
    capture.scan();
    announce(capture.servers.len());

    let stop = Arc::new(AtomicBool::new(false));
    let (wake, woken) = UnixDatagram::pair()?;
    let (done, mut ended) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("capture".into()).spawn({
        let stop = stop.clone();
        move || {
            let result = capture.run(&stop, woken.as_raw_fd());
            // The main thread may have stopped waiting.
            let _ = done.send(());
            result
        }
    })?;

    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: writing what is captured"),
        _ = interrupt.recv() => info!("SIGINT: writing what is captured"),
        _ = &mut ended => {}
    }
    stop.store(true, Ordering::Release);
    // The thread may have ended by itself.
    let _ = wake.send(&[1]);
    thread.join().map_err(|_| anyhow!("the capture thread panicked; this is a bug"))??;
    Ok(ExitCode::SUCCESS)
}

/// Says that capture has begun: to people, and to systemd if it started the agent.
fn announce(servers: usize) {
    let _ = writeln!(std::io::stderr(), "capturing {servers} server(s)");
    if let Err(error) = notify_systemd() {
        info!(%error, "systemd was not told that the agent is ready");
    }
}

/// `sd_notify(3)`: one datagram to the socket that `NOTIFY_SOCKET` names.
fn notify_systemd() -> std::io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::SocketAddr;

    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
        None => SocketAddr::from_pathname(&name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address)?;
    Ok(())
}
