//! The configuration: one TOML file, all of it optional, checked as a whole before anything starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

use crate::policy::{Policy, PolicyErrors, RowLimits};
use crate::record::Keys;
use crate::seal::{Anchor, hash, hex};

mod approvals;
mod bytes;
mod compaction;
mod encryption;
mod events;
mod kubernetes;
mod masking;
mod metrics;
mod retention;
mod upload;

pub use approvals::{Approvals, NoGroup, Webhook};
pub use compaction::Compaction;
pub use encryption::{Encryption, NoKey};
pub use events::Events;
pub use kubernetes::Kubernetes;
pub use masking::Masking;
pub use metrics::Metrics;
pub use retention::Retention;
pub use upload::Upload;

use bytes::bytes;

/// Everything that can be configured. Each default and its reason stand in `docs/defaults.md`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the record is written.
    pub data_dir: PathBuf,
    /// This host's name in the record.
    pub node: String,
    /// Size of the ring between kernel and agent in bytes; rounded up to a power of two.
    #[serde(deserialize_with = "bytes")]
    pub ring_size: u32,
    /// What becomes of the kernel side while no agent runs.
    pub kernel: KernelSide,
    /// The process that acts on stopped backends.
    pub shim: Shim,
    /// How much of each statement's rows is recorded.
    pub results: Results,
    /// When a file is completed.
    pub rotate: Rotate,
    /// How what is recorded survives the agent and the host.
    pub journal: Journal,
    /// How what is published is sealed.
    pub seals: Seals,
    /// Where the names of Kubernetes pods are asked for; none: nowhere.
    pub kubernetes: Option<Kubernetes>,
    /// Where published files are uploaded to; none: nowhere.
    pub upload: Option<Upload>,
    /// Who decides about statements that wait.
    pub approvals: Approvals,
    /// How long the record is kept; for ever without a rule.
    pub retention: Vec<Retention>,
    /// When small files are merged; never if it is not there.
    pub compaction: Option<Compaction>,
    /// What the record is encrypted with; with nothing if it is not there.
    pub encryption: Option<Encryption>,
    /// Where metrics and health are served.
    pub metrics: Metrics,
    /// Who elsewhere is told of statements and verdicts.
    pub events: Vec<Events>,
    /// What rules that mask need.
    pub masking: Masking,
    /// Its sections `[[record]]`, `[[guardrail]]` and `[[mask]]`, compiled.
    #[serde(skip)]
    pub policy: Policy,
    /// The file's SHA-256, in hexadecimal; none without a file.
    #[serde(skip)]
    pub sha256: Option<String>,
    /// What the policy's own reader reads.
    #[serde(rename = "record")]
    records: IgnoredAny,
    #[serde(rename = "guardrail")]
    guardrails: IgnoredAny,
    #[serde(rename = "mask")]
    masks: IgnoredAny,
}

/// What becomes of the kernel side while no agent runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KernelSide {
    /// Folder in the BPF file system that holds it if the agent dies; empty: it goes with the agent.
    pub pin_dir: PathBuf,
    /// What happens to it when the agent is stopped.
    pub on_stop: OnStop,
}

/// What happens to the kernel side when the agent is stopped by a signal that it can handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// It is detached: nothing is left.
    #[default]
    Detach,
    /// It goes on capturing into the ring, for the next agent.
    Stay,
}

/// The process that acts on stopped backends.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shim {
    /// Whether the agent starts it where a rule needs it; else somebody else runs `capture-agent shim`.
    pub start: bool,
    /// Folder of the sockets by which agents speak to it.
    pub runtime_dir: PathBuf,
}

/// How much of each statement's rows is recorded. Past a limit rows are counted, not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Results {
    /// Rows.
    pub rows: u64,
    /// Bytes of their messages.
    #[serde(deserialize_with = "bytes")]
    pub bytes: u64,
}

/// When a file is completed and a new one begun, whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rotate {
    /// Age of the file's first row in seconds.
    pub seconds: u64,
    /// Size of the file in bytes.
    #[serde(deserialize_with = "bytes")]
    pub bytes: u64,
}

/// How what is recorded survives the agent and the host until its file is completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// How often the journal is brought to the disk, in milliseconds; 0 for never.
    pub sync_ms: u64,
}

/// How what is published is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seals {
    /// The file of the private key; made if it is not there. None: in the data directory.
    pub key: Option<PathBuf>,
    /// The file outside of the data directory to which the chain's head is appended; none: nowhere.
    pub anchor: Option<PathBuf>,
    /// The time between two lines of it, in seconds.
    pub anchor_seconds: u64,
}

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source} (see docs/errors.md#config-unreadable)", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not TOML, or says something that is not known.
    #[error("{}: {message} (see docs/errors.md#config-invalid)", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, column, and what was expected.
        message: String,
    },
    /// Rules of the policy are wrong.
    #[error("{}", in_file(.path, .errors))]
    Policy {
        /// The file.
        path: PathBuf,
        /// All that is wrong with them.
        errors: PolicyErrors,
    },
}

/// Each error with its file, one to a line.
fn in_file(path: &Path, errors: &PolicyErrors) -> String {
    let lines: Vec<_> = errors.0.iter().map(|error| format!("{}: {error}", path.display())).collect();
    lines.join("\n")
}

/// Why a text is no configuration.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    Config(String),
    Policy(PolicyErrors),
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// The file, the line, and what was expected there.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let mut config = Self::parse(&text).map_err(|wrong| match wrong {
            Wrong::Config(message) => ConfigError::Invalid { path: path.to_owned(), message },
            Wrong::Policy(errors) => ConfigError::Policy { path: path.to_owned(), errors },
        })?;
        config.sha256 = Some(hex(&hash(text.as_bytes())));
        Ok(config)
    }

    /// Reads and checks a text; the error is what a person needs to mend it.
    fn parse(text: &str) -> Result<Self, Wrong> {
        let mut config: Self = toml::from_str(text).map_err(|error| Wrong::Config(error.to_string()))?;
        config.check().map_err(Wrong::Config)?;
        let otherwise = RowLimits { rows: config.results.rows, bytes: config.results.bytes };
        config.policy = Policy::compile(text, otherwise).map_err(Wrong::Policy)?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if self.data_dir.as_os_str().is_empty() {
            return Err("`data_dir` is empty; expected a folder".into());
        }
        if self.node.is_empty() || self.node.contains(['/', '\0']) || self.node.starts_with('.') {
            return Err(format!(
                "`node` is {:?}; expected a name that can be part of a file's name",
                self.node
            ));
        }
        if !RING_SIZES.contains(&self.ring_size) {
            return Err(format!(
                "`ring_size` is {}; expected {} to {} bytes",
                self.ring_size,
                RING_SIZES.start(),
                RING_SIZES.end()
            ));
        }
        if self.rotate.seconds == 0 || self.rotate.bytes == 0 {
            return Err("`rotate` must be at least 1 second and 1 byte".into());
        }
        self.approvals.check()?;
        self.retention.iter().try_for_each(Retention::check)?;
        self.compaction.map_or(Ok(()), Compaction::check)?;
        self.encryption.as_ref().map_or(Ok(()), Encryption::check)?;
        self.upload.as_ref().map_or(Ok(()), Upload::check)?;
        self.metrics.check()?;
        events::check(&self.events)?;
        self.kubernetes.as_ref().map_or(Ok(()), Kubernetes::check)
    }

    /// The keys of the record; none if it is not encrypted.
    ///
    /// # Errors
    ///
    /// One cannot be had.
    pub fn keys(&self) -> Result<Keys, NoKey> {
        self.encryption.as_ref().map_or_else(|| Ok(Keys::default()), Encryption::keys)
    }

    /// How long a file may grow.
    pub fn rotate_age(&self) -> Duration {
        Duration::from_secs(self.rotate.seconds)
    }

    /// Where the heads of the chain of seals are kept, and how often; none if nowhere.
    pub fn anchor(&self) -> Option<Anchor> {
        let every = Duration::from_secs(self.seals.anchor_seconds);
        self.seals.anchor.clone().map(|file| Anchor { file, every })
    }

    /// How often the journal is brought to the disk; none if never.
    pub fn journal_sync(&self) -> Option<Duration> {
        (self.journal.sync_ms > 0).then(|| Duration::from_millis(self.journal.sync_ms))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/capture"),
            node: host_name(),
            ring_size: 16 << 20,
            kernel: KernelSide::default(),
            shim: Shim::default(),
            results: Results::default(),
            rotate: Rotate::default(),
            journal: Journal::default(),
            seals: Seals::default(),
            kubernetes: None,
            upload: None,
            approvals: Approvals::default(),
            retention: Vec::new(),
            compaction: None,
            encryption: None,
            masking: Masking::default(),
            metrics: Metrics::default(),
            events: Vec::new(),
            policy: Policy::default(),
            sha256: None,
            records: IgnoredAny,
            guardrails: IgnoredAny,
            masks: IgnoredAny,
        }
    }
}

impl Default for KernelSide {
    fn default() -> Self {
        Self { pin_dir: PathBuf::from("/sys/fs/bpf/capture"), on_stop: OnStop::default() }
    }
}

impl Default for Shim {
    fn default() -> Self {
        Self { start: true, runtime_dir: PathBuf::from("/run/capture") }
    }
}

impl Default for Results {
    fn default() -> Self {
        Self { rows: 10_000, bytes: 16 << 20 }
    }
}

impl Default for Rotate {
    fn default() -> Self {
        Self { seconds: 10, bytes: 64 << 20 }
    }
}

impl Default for Seals {
    fn default() -> Self {
        Self { key: None, anchor: None, anchor_seconds: 60 }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self { sync_ms: 1_000 }
    }
}

/// Whether what is sent to this address does not travel in clear, or not beyond this host.
fn is_safe_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return url.starts_with("https://") };
    ["127.0.0.1", "[::1]", "localhost"].iter().any(|host| {
        rest.strip_prefix(host).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    }) && !rest.contains('@')
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".into(),
        name => name.into(),
    }
}

/// The smallest ring holds a few of the largest events; a reader that is a gibibyte behind does not catch up.
const RING_SIZES: std::ops::RangeInclusive<u32> = (1 << 20)..=(1 << 30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_of_kubernetes_is_asked_over_https_only() {
        let config = Config::parse("[kubernetes]\napi = 'https://10.0.0.1:6443'\n").unwrap();
        assert_eq!(config.kubernetes.and_then(|found| found.api).as_deref(), Some("https://10.0.0.1:6443"));
        assert!(Config::parse("[kubernetes]\n").unwrap().kubernetes.is_some());
        let error = message("[kubernetes]\napi = 'http://10.0.0.1'\n");
        assert!(error.contains("https://"), "{error}");
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Config::parse(""), Ok(Config::default()));
    }

    #[test]
    fn what_is_set_replaces_the_default_and_nothing_else() {
        let config = Config::parse("data_dir = '/data'\n[results]\nrows = 5\n").unwrap();
        assert_eq!(config.data_dir, Path::new("/data"));
        assert_eq!(config.results, Results { rows: 5, ..Results::default() });
        assert_eq!(config.rotate, Rotate::default());
        assert_eq!(config.journal_sync(), Some(Duration::from_secs(1)));
        let config = Config::parse("[journal]\nsync_ms = 0\n").unwrap();
        assert_eq!(config.journal_sync(), None);
    }

    #[test]
    fn an_error_names_the_line_and_what_was_expected() {
        let error = message("node = 'a'\nring_sise = 1\n");
        assert!(error.contains("line 2") && error.contains("ring_size"), "{error}");
        let error = message("ring_size = 'big'");
        assert!(error.contains("line 1") && error.contains("a number of bytes without a unit"), "{error}");
        for wrong in ["ring_size = 4096", "node = '../x'", "data_dir = ''", "rotate = { seconds = 0 }"] {
            assert!(Config::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_policy_is_part_of_the_file_and_checked_with_it() {
        let text =
            "[[record]]\nmatch = 'session.database == \"payments\"'\nresults = 'none'\n[results]\nrows = 7\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.policy.record_rules().len(), 2);
        assert_eq!(config.policy.record_rules()[1].results.rows, 7);
        let error = Config::parse("node = 'a'\n[[guardrail]]\nname = 'no-ddl'\n").unwrap_err();
        let Wrong::Policy(errors) = error else { panic!("{error:?}") };
        assert_eq!(errors.0[0].line, 2);
        let path = in_file(Path::new("/etc/capture.toml"), &errors);
        assert!(path.starts_with("/etc/capture.toml: line 2: guardrail \"no-ddl\""), "{path}");
    }

    #[test]
    fn rules_of_retention_are_checked() {
        let config =
            Config::parse("[[retention]]\ntables = ['results']\nage = '30d'\n[[retention]]\nbytes = 5\n")
                .unwrap();
        let rules: Vec<_> = config.retention.iter().map(Retention::rule).collect();
        assert_eq!((rules[0].tables.len(), rules[1].tables.len(), rules[1].bytes), (1, 5, Some(5)));
        for (wrong, named) in [
            ("[[retention]]\n", "`age`"),
            ("[[retention]]\nage = '30'\n", "90d"),
            ("[[retention]]\nage = '1d'\ntables = ['result']\n", "sessions, statements"),
        ] {
            let error = message(wrong);
            assert!(error.contains(named), "{error}");
        }
    }

    fn message(text: &str) -> String {
        match Config::parse(text).unwrap_err() {
            Wrong::Config(message) => message,
            Wrong::Policy(errors) => errors.to_string(),
        }
    }
}
