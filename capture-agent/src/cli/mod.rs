//! The command line.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

mod approvals;
mod check;
mod holds;
mod print;
mod sessions;
mod show;
mod verify;
mod when;

use approvals::ApprovalsArgs;
use check::CheckArgs;
use holds::HoldsArgs;
use sessions::SessionsArgs;
use show::ShowArgs;
use verify::VerifyArgs;

use crate::config::Config;
use crate::probes::{Selector, SocketHooks, TlsSource};
use crate::telemetry;

/// Records every session that clients hold with a PostgreSQL server, from inside the kernel.
#[derive(Debug, Parser)]
#[command(name = "capture-agent", after_help = EXIT_CODES, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Record until SIGTERM or SIGINT
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Check what capture needs of this host, and say what to do about what is missing
    #[command(after_help = DOCTOR_HELP)]
    Doctor(DoctorArgs),
    /// Remove what an agent left in the kernel: hooks that capture for the next one
    #[command(after_help = DETACH_HELP)]
    Detach(DetachArgs),
    /// Watch over stopped backends, read their memory and look at servers for the agent (started by `run` where it is needed)
    #[command(after_help = SHIM_HELP)]
    Shim(Place),
    /// Check a configuration file, and say what its rules would do
    #[command(after_help = check::HELP)]
    Check(CheckArgs),
    /// List the statements that wait for approval, approve or deny them
    #[command(after_help = approvals::HELP)]
    Approvals(ApprovalsArgs),
    /// List recorded sessions
    #[command(after_help = sessions::HELP)]
    Sessions(SessionsArgs),
    /// Show what was said in one session
    #[command(after_help = show::HELP)]
    Show(ShowArgs),
    /// Prove that the record is what was recorded: compare it with its signed seals, offline
    #[command(after_help = verify::HELP)]
    Verify(VerifyArgs),
    /// Keep what rules of retention would remove: list, add and remove legal holds
    #[command(after_help = holds::HELP)]
    Holds(HoldsArgs),
}

/// Where the configuration and the record are.
#[derive(Debug, Args)]
struct Place {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the record [default: the configuration's, or /var/lib/capture]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    place: Place,
    /// Record this server only: `auto` for all, a port in any network namespace, or a process id (repeatable)
    #[arg(long, value_name = "auto|PORT|PID", default_value = "auto")]
    server: Vec<Selector>,
    /// Use these hooks instead of the cheapest that load: fexit, sock_length, sys_exit or tracepoints
    #[arg(long, value_name = "HOOKS")]
    hooks: Option<SocketHooks>,
    /// Read encrypted sessions here instead of where it costs least: server, library or off
    #[arg(long, value_name = "WHERE", hide = true)]
    tls: Option<TlsSource>,
    /// Write metrics to this file in the Prometheus text format, ten times a second
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct DetachArgs {
    #[command(flatten)]
    place: Place,
    /// Detach what agents of any data directory left
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct DoctorArgs {
    #[command(flatten)]
    place: Place,
    /// Look for this server only: `auto` for all, a port in any network namespace, or a process id (repeatable)
    #[arg(long, value_name = "auto|PORT|PID", default_value = "auto")]
    server: Vec<Selector>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `capture-agent run` was asked to do.
#[derive(Debug)]
pub struct RunOptions {
    /// The configuration, with the command line's changes.
    pub config: Config,
    /// The file that it came from, if any.
    pub config_file: Option<PathBuf>,
    /// The servers to record; all if one of them is [`Selector::Auto`].
    pub servers: Vec<Selector>,
    /// The hooks to use; the cheapest that load if none.
    pub hooks: Option<SocketHooks>,
    /// Where to read encrypted sessions; where it costs least if none.
    pub tls: Option<TlsSource>,
    /// Where to write metrics, if anywhere.
    pub metrics_file: Option<PathBuf>,
}

/// What `capture-agent detach` was asked to do.
#[derive(Debug)]
pub struct DetachOptions {
    /// The configuration, with the command line's changes.
    pub config: Config,
    /// Whether every data directory is meant.
    pub all: bool,
}

/// The commands that need the kernel: this room comes before the one that wires them.
#[derive(Clone, Copy, Debug)]
pub struct Agent {
    /// `capture-agent run`.
    pub run: fn(RunOptions) -> anyhow::Result<ExitCode>,
    /// `capture-agent detach`.
    pub detach: fn(&DetachOptions) -> anyhow::Result<ExitCode>,
    /// `capture-agent shim`.
    pub shim: fn(&Config) -> anyhow::Result<ExitCode>,
    /// `capture-agent doctor`, for these servers, as JSON or for people.
    pub doctor: fn(&Config, &[Selector], bool) -> anyhow::Result<ExitCode>,
}

/// Runs the command of this process's arguments.
pub fn main(agent: Agent) -> ExitCode {
    let command = Cli::command().version(telemetry::version());
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    telemetry::init_logging();
    execute(cli.command, agent).unwrap_or_else(|error| {
        if print::is_broken_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

fn execute(command: Command, agent: Agent) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => (agent.run)(RunOptions {
            config: args.place.config()?,
            config_file: args.place.config,
            servers: args.server,
            hooks: args.hooks,
            tls: args.tls,
            metrics_file: args.metrics_file,
        }),
        Command::Detach(args) => {
            (agent.detach)(&DetachOptions { config: args.place.config()?, all: args.all })
        }
        Command::Shim(place) => (agent.shim)(&place.config()?),
        Command::Doctor(args) => (agent.doctor)(&args.place.config()?, &args.server, args.json),
        Command::Check(args) => check::check(&args, &mut stdout()),
        Command::Approvals(args) => approvals::approvals(args, &mut stdout()),
        Command::Sessions(args) => sessions::sessions(args, &mut stdout()),
        Command::Show(args) => show::show(&args, &mut stdout()),
        Command::Verify(args) => verify::verify(&args, &mut stdout()),
        Command::Holds(args) => holds::holds(args, &mut stdout()),
    }
}

fn stdout() -> impl std::io::Write {
    std::io::BufWriter::new(std::io::stdout())
}

impl Place {
    fn config(&self) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::default(),
        };
        if let Some(data_dir) = &self.data_dir {
            config.data_dir.clone_from(data_dir);
        }
        Ok(config)
    }
}

/// Exit code of `show`: there is no such session, or there are several.
const NOT_FOUND: u8 = 3;

const EXIT_CODES: &str = "Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such session or
request for approval, 4 not allowed.";

const RUN_HELP: &str = "\
Example: record the server on port 5432 into /data/capture
  capture-agent run --server 5432 --data-dir /data/capture

Prints `capturing N server(s)` on stderr once every hook is attached. On SIGTERM
or SIGINT it writes what it has and exits 0. Servers and sessions that start
later are found by themselves. CAPTURE_LOG=debug logs more.

Exit codes: 0 stopped by a signal, 1 failure, 2 wrong usage.";

const DOCTOR_HELP: &str = "\
Example:
  capture-agent doctor

With --config, it also looks for the shim that runs beside this agent.

Exit codes: 0 this host is ready, 1 something that capture needs is missing,
2 wrong usage.";

const DETACH_HELP: &str = "\
Example:
  capture-agent detach --data-dir /data/capture

An agent that dies leaves its hooks to the next one of the same data directory;
so does one that is stopped, if `kernel.on_stop` is \"stay\". This removes them:
the servers go on, unrecorded.

Exit codes: 0 nothing is left, 1 failure, or an agent still runs,
2 wrong usage.";

const SHIM_HELP: &str = "\
Example: beside an agent that runs with `shim.start = false`
  capture-agent shim --data-dir /data/capture

Serves one agent's data directory: such an agent gives up CAP_SYS_PTRACE, and this
looks at servers in its place. When that agent is dead, a backend that it
had stopped goes on or ends at its deadline, as its rule says. Ends by itself
when the agent has detached.

Exit codes: 0 the agent has detached, 1 failure, 2 wrong usage.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
