//! Compiles `capture-ebpf` for the kernel's virtual machine and hands the object to the agent's build script.
//!
//! Two toolchains can do it, tried in this order:
//!
//! 1. Debian's `rustc-web` with `libstd-rust-web-dev-bpf`, which brings `core` for `bpfel-unknown-none`
//!    ready-made. `RUSTC_BOOTSTRAP=1` lets this stable compiler use the target's unstable parts.
//! 2. A nightly toolchain of rustup with `rust-src`, which builds `core` itself (`-Z build-std=core`).
//!
//! Both need `bpf-linker`, which links LLVM bitcode and writes the BTF.

use anyhow::{Context as _, Result, bail};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles the eBPF crate in release mode and copies the object to `out/capture-ebpf`, whose path it returns.
///
/// Meant for a build script: `out` is its `OUT_DIR`, and what the object depends on is printed as
/// `cargo::rerun-if-changed`. The nested cargo has a target folder of its own, because the outer cargo holds the
/// lock of its own one.
///
/// # Errors
///
/// What is missing, with the command that installs it; or the compiler's own words.
pub fn build(out: &Path) -> Result<PathBuf> {
    let root = workspace_root();
    let linker = bpf_linker().context(MISSING_LINKER)?;
    let toolchain = Toolchain::find()?;
    let target_dir = target_dir(out);

    let mut cargo = toolchain.cargo();
    cargo
        .current_dir(root.join(CRATE))
        .args(["build", "--quiet", "--locked", "--release", "--target", TARGET])
        .args(toolchain.extra_args())
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&root, &linker));
    let output = cargo.output().with_context(|| format!("cannot run {cargo:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{CRATE} does not compile with {toolchain} ({}):\n{stderr}", output.status);
    }
    for line in stderr.lines() {
        tell_cargo(&format!("warning={line}"));
    }
    for source in SOURCES {
        tell_cargo(&format!("rerun-if-changed={}", root.join(source).display()));
    }
    tell_cargo(&format!("rerun-if-changed={}", linker.display()));
    tell_cargo("rerun-if-env-changed=PATH");

    let built = target_dir.join(TARGET).join("release").join(CRATE);
    let object = out.join(CRATE);
    fs::copy(&built, &object)
        .with_context(|| format!("cannot copy {} to {}", built.display(), object.display()))?;
    Ok(object)
}

/// Where `bpf-linker` is: on the path, or where `cargo install` puts it, which Debian's path leaves out.
#[must_use]
pub fn bpf_linker() -> Option<PathBuf> {
    let on_path =
        env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    on_path.chain(cargo_bin()).map(|folder| folder.join("bpf-linker")).find(|path| path.is_file())
}

/// The folder into which `cargo install` puts programs.
#[must_use]
pub fn cargo_bin() -> Option<PathBuf> {
    cargo_home().map(|home| home.join("bin"))
}

fn cargo_home() -> Option<PathBuf> {
    let set = env::var_os("CARGO_HOME").map(PathBuf::from);
    set.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
}

/// A toolchain that can compile for the kernel.
pub enum Toolchain {
    /// A compiler with a ready-made `core` for the target.
    Prebuilt {
        /// The compiler.
        rustc: PathBuf,
    },
    /// A rustup toolchain that builds `core` from `rust-src`.
    BuildStd {
        /// Its name, as `rustup run` takes it.
        name: String,
    },
}

impl Toolchain {
    /// The first toolchain that has what it takes.
    ///
    /// # Errors
    ///
    /// If there is none; the text says what was tried and what to do.
    pub fn find() -> Result<Self> {
        let rustc = PathBuf::from(DEBIAN_RUSTC);
        if has_prebuilt_core(&rustc) {
            return Ok(Self::Prebuilt { rustc });
        }
        if has_rust_src(NIGHTLY) {
            return Ok(Self::BuildStd { name: NIGHTLY.to_owned() });
        }
        bail!(MISSING_TOOLCHAIN)
    }

    /// A cargo of this toolchain, free of what an outer cargo, clippy or rustup put into the environment.
    fn cargo(&self) -> Command {
        let mut command = match self {
            Self::Prebuilt { rustc } => {
                let sibling = rustc.with_file_name("cargo");
                let cargo = if sibling.is_file() {
                    sibling.into_os_string()
                } else {
                    env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
                };
                Command::new(cargo)
            }
            Self::BuildStd { name } => {
                let mut command = Command::new("rustup");
                command.args(["run", name, "cargo"]);
                command
            }
        };
        for (key, _) in env::vars_os() {
            let text = key.to_string_lossy();
            if INHERITED.contains(&&*text) || INHERITED_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
            {
                command.env_remove(&key);
            }
        }
        if let Self::Prebuilt { rustc } = self {
            command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
        }
        // Empty, not absent: that also overrides a wrapper from a configuration file.
        command.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
        command
    }

    fn extra_args(&self) -> &'static [&'static str] {
        match self {
            Self::Prebuilt { .. } => &[],
            Self::BuildStd { .. } => &["-Z", "build-std=core"],
        }
    }
}

impl std::fmt::Display for Toolchain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Prebuilt { rustc } => write!(f, "{} and its packaged BPF core", rustc.display()),
            Self::BuildStd { name } => write!(f, "the {name} toolchain and its rust-src"),
        }
    }
}

fn has_prebuilt_core(rustc: &Path) -> bool {
    let Some(folder) =
        stdout_line(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))
    else {
        return false;
    };
    fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

fn has_rust_src(toolchain: &str) -> bool {
    stdout_line(Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]))
        .is_some_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir())
}

fn stdout_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Flags in the form of `CARGO_ENCODED_RUSTFLAGS`: separated by 0x1f, and stronger than any configuration file.
fn rustflags(root: &Path, linker: &Path) -> OsString {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned());
    let mut flags = vec![
        // aya-ebpf picks the layout of `pt_regs` by this.
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        // Line information in the object names files of the project, not folders of the build machine.
        format!("--remap-path-prefix={}=.", root.display()),
    ];
    flags.extend(cargo_home().map(|home| format!("--remap-path-prefix={}=cargo", home.display())));
    flags.join("\x1f").into()
}

/// The nested cargo's target folder: one for all profiles, because the object is the same for all, and beside
/// them in the outer target folder, which cargo tags.
fn target_dir(out: &Path) -> PathBuf {
    let outer = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    outer.unwrap_or(out).join("ebpf")
}

/// The project's folder: of this run, not of the build, because checkouts that share a target folder also share
/// the compiled programs.
pub fn workspace_root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().unwrap_or(Path::new(".")).to_owned()
}

#[expect(clippy::print_stdout, reason = "cargo reads a build script's standard output")]
fn tell_cargo(directive: &str) {
    println!("cargo::{directive}");
}

const CRATE: &str = "capture-ebpf";
const TARGET: &str = "bpfel-unknown-none";
const NIGHTLY: &str = "nightly";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// What the object is made of. Single folders and files, so that a stray `target` folder does not count.
const SOURCES: [&str; 6] = [
    "capture-ebpf/src",
    "capture-ebpf/Cargo.toml",
    "capture-ebpf/Cargo.lock",
    "capture-common/src",
    "capture-common/Cargo.toml",
    "Cargo.toml",
];

/// Variables that the outer cargo, clippy, rustup or the user set for host crates.
const INHERITED: [&str; 13] = [
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_MAKEFLAGS",
    "CARGO_TARGET_DIR",
    "MAKEFLAGS",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_LINKER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// The same, for variables that carry a package's, a profile's or a target's name.
const INHERITED_PREFIXES: [&str; 5] =
    ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_PKG_"];

const MISSING_LINKER: &str =
    "bpf-linker is missing, which links the eBPF object; `cargo xtask setup` installs it";

const MISSING_TOOLCHAIN: &str = "no toolchain here can compile eBPF; `cargo xtask setup` installs one. Tried:
  1. /usr/bin/rustc with a ready-made core for bpfel-unknown-none: Debian's packages rustc-web and libstd-rust-web-dev-bpf
  2. rustup's nightly with rust-src: rustup toolchain install nightly --component rust-src";
