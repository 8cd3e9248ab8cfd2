//! Wires the rooms: the one place that knows all of them.
//!
//! Two threads do the work, and a third asks Kubernetes for names, if configured. The capture thread (`capture`)
//! drains the ring and carries every event through streams, frames and session to the recorder's builders; the
//! recorder's writer thread turns them into files. The main thread waits for signals.

mod approving;
mod capture;
mod cores;
mod decisions;
mod detach;
mod events;
mod examine;
mod masking;
mod open;
mod origin;
mod pace;
mod reload;
mod rights;
mod rules;
mod servers;
mod sessions;
mod shim;
mod vault;
mod verdicts;

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

use self::capture::Capture;
pub use self::detach::detach;
pub use self::examine::doctor;
use self::pace::Pace;
use self::reload::Reload;
use self::rules::Rules;
use self::servers::Servers;
use self::sessions::Sessions;
pub use self::shim::shim;
use self::vault::Vault;
use self::verdicts::Verdicts;
use crate::cli::RunOptions;
use crate::config::{Compaction, Config, Retention};
use crate::enforce::Overruns;
use crate::keep::{self, Keeper};
use crate::mask::Masker;
use crate::probes::{Kernel, Pins, PodList, PodNames, TlsProbes, memory, monotonic_now};
use crate::record::journal::SEGMENT_BYTES;
use crate::record::{Recorder, Settings};
use crate::telemetry::{file, health, http};
use crate::upload::Upload;

/// Records until SIGTERM or SIGINT; then drains, writes what it has, and returns success.
///
/// # Errors
///
/// If the hooks do not load, or the data directory cannot be used at the start, or not all could be written
/// at the end.
pub fn run(options: RunOptions) -> anyhow::Result<ExitCode> {
    rights::give_up(&options.config)?;
    cores::forbid();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise(options))
}

async fn supervise(options: RunOptions) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let config = options.config;
    if let Some(address) = config.metrics.address() {
        drop(tokio::spawn(http::serve(address)));
    }
    let settings = Settings {
        data_dir: config.data_dir.clone(),
        node: config.node.clone(),
        rotate_age: config.rotate_age(),
        rotate_size: config.rotate.bytes,
        journal_sync: config.journal_sync(),
        segment_bytes: SEGMENT_BYTES,
        seal_key: config.seals.key.clone(),
        anchor: config.anchor(),
        keys: config.keys()?,
    };
    let (mut recorder, recovery) = Recorder::with_tap(settings, events::tap(&config)?)?;
    let keeper = keep(&config, &recorder)?;
    let archive = recorder.archive().clone();
    let upload = config.upload.as_ref().map(|upload| upload.settings(&config.data_dir, &config.node));
    let (declare, backlogs) = std::sync::mpsc::sync_channel(BACKLOGS);
    let upload = upload.map(|settings| Upload::start(settings, declare)).transpose()?;
    decisions::policy_loaded(&config, options.config_file.as_deref(), &mut recorder);
    let access = rights::access(&config)?;
    let pins = Pins::of(&config.kernel.pin_dir, &config.data_dir);
    let (mut kernel, ring) = Kernel::load(config.ring_size, options.hooks, pins)
        .context("cannot attach to the kernel; see docs/errors.md#cannot-attach")?;
    info!(hooks = %kernel.plan.sockets, "attached");
    let rules = Rules::new(Arc::new(config.policy.clone()));
    // Before any session is followed, and before anything is stopped for want of a reader.
    kernel.beat();
    let backends = (rules.require_any() || rules.guard_any())
        .then(|| shim::backends(&config, options.config_file.as_deref(), &kernel))
        .transpose()?;
    kernel.set_default_orders(rules.default_orders())?;
    recorder.set_required(rules.require_any());
    let masker = Masker::new(rules.policy(), masking::key(&config, rules.policy())?);
    let vault = Vault::open(&config)?;
    let mut verdicts = Verdicts::new(Arc::clone(rules.policy()));
    verdicts.prepare(rules.policy(), &config, &kernel)?;
    let file = options.config_file;
    let (policies, reloads) = std::sync::mpsc::sync_channel(1);
    let tls = TlsProbes::new(&kernel, options.tls);
    let (fresh, written) = options.metrics_file.map(metrics_file).unzip();
    let passes =
        kernel.passes().context("cannot map the kernel side's table of rows that are passed over")?;
    let mut capture = Capture {
        kernel,
        ring,
        verdicts,
        sessions: Sessions::new(rules, masker, vault, passes),
        servers: Servers::new(options.servers, access, tls, pod_names(&config)?),
        recorder,
        backends,
        overruns: Overruns::default(),
        reloads,
        backlogs,
        on_stop: config.kernel.on_stop,
        began: monotonic_now(),
        metrics_file: fresh,
        pace: Pace::default(),
        file: file.clone(),
        config,
    };
    capture.resume(&recovery);
    capture.scan();
    memory::give_back();
    announce(capture.servers.len());
    health::DETACHED.set(false);

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

    let mut reload = file.map(|file| Reload::new(file, policies));
    let mut look = tokio::time::interval(LOOK_AT_FILE);
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                info!("SIGTERM: writing what is captured");
                break;
            }
            _ = interrupt.recv() => {
                info!("SIGINT: writing what is captured");
                break;
            }
            _ = &mut ended => break,
            _ = hangup.recv() => reload.iter_mut().for_each(Reload::now),
            _ = look.tick() => reload.iter_mut().for_each(Reload::if_changed),
        }
    }
    stop.store(true, Ordering::Release);
    archive.end_waiting();
    // The thread may have ended by itself.
    let _ = wake.send(&[1]);
    // Before the writer ends, so that it need not wait for a file that is being merged.
    drop(keeper);
    let recorded = thread.join().map_err(|_| anyhow!("the capture thread panicked; this is a bug"));
    // Whatever was published is worth storing.
    if let Some(upload) = upload {
        upload.finish();
    }
    if let Some(written) = written {
        written.await?;
    }
    recorded??;
    Ok(ExitCode::SUCCESS)
}

/// Has the metrics written to `path` whenever the sender says that they have changed, until it is gone.
fn metrics_file(path: PathBuf) -> (watch::Sender<()>, JoinHandle<()>) {
    let (fresh, news) = watch::channel(());
    (fresh, tokio::spawn(file::keep(path, news)))
}

/// Sees to what becomes of complete files.
fn keep(config: &Config, recorder: &Recorder) -> anyhow::Result<Keeper> {
    let rules = config.retention.iter().map(Retention::rule).collect();
    let uploads = config.upload.is_some();
    // A storage would have the rows of merged files twice meanwhile.
    let compaction = config.compaction.filter(|_| !uploads).map(Compaction::rule);
    if compaction.is_none() && config.compaction.is_some() {
        tracing::info!("small files are not merged, since they are uploaded");
    }
    let settings = keep::Settings { rules, compaction, uploads, ..keep::Settings::default() };
    Ok(Keeper::start(recorder.archive().clone(), settings)?)
}

/// What the uploader may say of its backlog within a tick; it says one thing, or the other.
const BACKLOGS: usize = 16;

/// How often the configuration file is looked at.
const LOOK_AT_FILE: Duration = Duration::from_secs(1);

/// Whom to ask for the names of Kubernetes pods, if that is configured.
fn pod_names(config: &Config) -> anyhow::Result<Option<PodNames>> {
    let Some(kubernetes) = &config.kubernetes else { return Ok(None) };
    let environment = |name: &str| std::env::var(name).ok();
    let api = kubernetes.address(environment).context(
        "`kubernetes.api` is not set, and the agent does not run in a cluster; see docs/errors.md#kubernetes-unset",
    )?;
    let node_name = kubernetes.node_name.clone().or_else(|| environment("NODE_NAME"));
    let pods = PodList {
        api,
        token_file: kubernetes.token_file.clone(),
        ca_file: kubernetes.ca_file.clone(),
        node_name: node_name.unwrap_or_else(|| config.node.clone()),
    };
    Ok(Some(PodNames::start(pods)?))
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
