//! The configuration: one TOML file, all of it optional, checked as a whole before anything starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

/// Everything that can be configured. Each default and its reason stand in `docs/defaults.md`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the record is written.
    pub data_dir: PathBuf,
    /// This host's name in the record.
    pub node: String,
    /// Size of the ring between kernel and agent in bytes; rounded up to a power of two.
    pub ring_size: u32,
    /// What becomes of the kernel side while no agent runs.
    pub kernel: KernelSide,
    /// How much of each statement's rows is recorded.
    pub results: Results,
    /// When a file is completed.
    pub rotate: Rotate,
    /// How what is recorded survives the agent and the host.
    pub journal: Journal,
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

/// How much of each statement's rows is recorded. Past a limit rows are counted, not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Results {
    /// Rows.
    pub rows: u64,
    /// Bytes of their messages.
    pub bytes: u64,
}

/// When a file is completed and a new one begun, whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rotate {
    /// Age of the file's first row in seconds.
    pub seconds: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// How what is recorded survives the agent and the host until its file is completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// How often the journal is brought to the disk, in milliseconds; 0 for never.
    pub sync_ms: u64,
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
        Self::parse(&text).map_err(|message| ConfigError::Invalid { path: path.to_owned(), message })
    }

    /// Reads and checks a text; the error is what a person needs to mend it.
    fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        if let Some(section) = ["record", "guardrail"].into_iter().find(|name| table.contains_key(*name)) {
            return Err(format!("`[[{section}]]` is not supported yet: this version records everything"));
        }
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
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
        Ok(())
    }

    /// How long a file may grow.
    pub fn rotate_age(&self) -> Duration {
        Duration::from_secs(self.rotate.seconds)
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
            results: Results::default(),
            rotate: Rotate::default(),
            journal: Journal::default(),
        }
    }
}

impl Default for KernelSide {
    fn default() -> Self {
        Self { pin_dir: PathBuf::from("/sys/fs/bpf/capture"), on_stop: OnStop::default() }
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

impl Default for Journal {
    fn default() -> Self {
        Self { sync_ms: 1_000 }
    }
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
        let error = Config::parse("node = 'a'\nring_sise = 1\n").unwrap_err();
        assert!(error.contains("line 2") && error.contains("ring_size"), "{error}");
        let error = Config::parse("ring_size = 'big'").unwrap_err();
        assert!(error.contains("line 1") && error.contains("u32"), "{error}");
        for wrong in ["ring_size = 4096", "node = '../x'", "data_dir = ''", "rotate = { seconds = 0 }"] {
            assert!(Config::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rules_of_a_later_version_are_refused_not_ignored() {
        let error = Config::parse("[[guardrail]]\nname = 'no-ddl'\n").unwrap_err();
        assert!(error.contains("[[guardrail]]"), "{error}");
    }
}
