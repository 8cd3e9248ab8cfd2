//! The file of what was counted, and with which compiler.

use super::callgrind::Counted;
use crate::shell;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::process::Command;
use std::{env, fmt, fs};

/// The figures that were committed to, relative to the project's folder.
pub(super) const FILE: &str = "capture-agent/benches/instructions.json";

/// What a commit is held to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Committed {
    /// What they were compiled with.
    pub(super) compiler: Compiler,
    /// Instructions per item.
    pub(super) instructions: BTreeMap<String, f64>,
}

/// What decides which instructions a program has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Compiler {
    /// Such as `1.95.0`.
    pub(super) rustc: String,
    /// Such as `22.1.2`. Debian's rustc has Debian's.
    pub(super) llvm: String,
    /// Such as `x86_64-unknown-linux-gnu`.
    pub(super) host: String,
}

impl Committed {
    /// Commits to what was counted.
    pub(super) fn new(compiler: Compiler, counted: &[Counted]) -> Self {
        let instructions = counted.iter().map(|counted| (counted.name.clone(), counted.each)).collect();
        Self { compiler, instructions }
    }

    /// Nothing.
    pub(super) fn none(compiler: &Compiler) -> Self {
        Self::new(compiler.clone(), &[])
    }

    /// Reads the file.
    ///
    /// # Errors
    ///
    /// It is missing or is none of ours.
    pub(super) fn read() -> Result<Self> {
        let path = shell::root().join(FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| {
            format!("{FILE} is none of ours: make it anew with `cargo xtask instructions --write`")
        })
    }

    /// Replaces the file.
    pub(super) fn write(&self) -> Result<()> {
        let path = shell::root().join(FILE);
        fs::write(&path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Compiler {
    /// The one that cargo uses.
    pub(super) fn in_use() -> Result<Self> {
        let said =
            shell::read(Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV"))?;
        Self::parse(&said).with_context(|| format!("rustc does not say what it is: {said}"))
    }

    fn parse(said: &str) -> Option<Self> {
        let word = |key: &str| {
            said.lines().find_map(|line| line.strip_prefix(key)).map(|word| word.trim().to_owned())
        };
        Some(Self { rustc: word("release:")?, llvm: word("LLVM version:")?, host: word("host:")? })
    }

    /// Whether it makes the same instructions of the same source, as far as can be expected.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let minor = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
        let major = |version: &str| version.split('.').next().map(str::to_owned);
        minor(&self.rustc) == minor(&other.rustc)
            && major(&self.llvm) == major(&other.llvm)
            && self.host == other.host
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rustc {} with LLVM {} on {}", self.rustc, self.llvm, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(rustc: &str, llvm: &str, host: &str) -> Compiler {
        let [rustc, llvm, host] = [rustc, llvm, host].map(str::to_owned);
        Compiler { rustc, llvm, host }
    }

    #[test]
    fn a_compiler_is_known_by_what_it_says() {
        let said = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
        assert_eq!(Compiler::parse(said), Some(compiler("1.95.0", "22.1.2", "x86_64-unknown-linux-gnu")));
        assert_eq!(Compiler::parse("error"), None);
    }

    #[test]
    fn a_patch_of_the_compiler_is_the_same_compiler() {
        let ours = compiler("1.95.0", "22.1.2", "x86_64");
        assert!(ours.is_like(&compiler("1.95.1", "22.2.0", "x86_64")));
        for (rustc, llvm, host) in
            [("1.96.0", "22.1.2", "x86_64"), ("1.95.0", "21.1.8", "x86_64"), ("1.95.0", "22.1.2", "aarch64")]
        {
            assert!(!ours.is_like(&compiler(rustc, llvm, host)), "{rustc} {llvm} {host}");
        }
    }
}
