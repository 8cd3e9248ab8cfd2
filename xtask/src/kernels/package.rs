//! Debian's kernels, taken out of their packages, below the folder of dependencies.
//!
//! Packages of other suites than this machine's are read with an apt configuration of their own, so that neither the
//! machine's sources nor its package lists change.

use crate::shell;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel that a release of Debian ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Series {
    /// Its version, as far as it stays the same within the release.
    pub(super) name: &'static str,
    /// The release.
    pub(super) suite: &'static str,
    /// The families of hooks that it is too old for.
    pub(super) lacks: &'static [&'static str],
}

/// Oldest first.
pub(super) const ALL: [Series; 3] = [
    Series { name: "5.10", suite: "bullseye", lacks: &["sock_length"] },
    Series { name: "6.1", suite: "bookworm", lacks: &["sock_length"] },
    Series { name: "6.12", suite: "trixie", lacks: &[] },
];

/// A kernel, ready to boot.
pub(super) struct Kernel {
    /// Debian's version of the package, such as `6.1.176-1`.
    pub(super) version: String,
    folder: PathBuf,
}

impl Kernel {
    /// What qemu boots.
    pub(super) fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The modules that the guest needs, named in the order in which they are to be loaded.
    pub(super) fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }

    /// A shell and its tools in one static program.
    pub(super) fn busybox(&self) -> PathBuf {
        self.folder.join("busybox")
    }
}

/// The kernel of a series: the one that is there, or else the newest that Debian's mirror has.
///
/// # Errors
///
/// The mirror is out of reach or does not hold the release (any more).
pub(super) fn ensure(series: &Series) -> Result<Kernel> {
    let home = shell::deps_dir().join("kernels").join(series.name);
    fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    if let Some(kernel) = unpacked(&home) {
        return Ok(kernel);
    }
    // Renamed when it is complete, so that what is there can be trusted.
    let draft = tempfile::Builder::new().prefix(".draft-").tempdir_in(&home)?;
    let apt = Apt::of(series.suite, draft.path())?;
    shell::step(
        &format!("reading {}'s package lists", series.suite),
        &mut apt.command("apt-get", &["update"]),
    )
    .with_context(|| format!("no packages of Debian {}: {MIRROR_ADVICE}", series.suite))?;
    let package = apt.image()?;
    shell::step(
        &format!("downloading {package}"),
        apt.command("apt-get", &["download", &package, "busybox-static"]).current_dir(draft.path()),
    )?;
    let version = unpack(draft.path(), &package)?;
    let target = home.join(&version);
    fs::rename(draft.path().join("kernel"), &target)
        .with_context(|| format!("cannot create {}", target.display()))?;
    unpacked(&home).context("an unpacked kernel is gone")
}

fn unpacked(home: &Path) -> Option<Kernel> {
    let mut folders: Vec<PathBuf> = fs::read_dir(home).ok()?.flatten().map(|entry| entry.path()).collect();
    folders.retain(|folder| folder.join("vmlinuz").is_file());
    folders.sort();
    let folder = folders.pop()?;
    Some(Kernel { version: folder.file_name()?.to_str()?.to_owned(), folder })
}

/// Takes what the guest needs out of the two packages in `folder` to `folder/kernel`; yields the kernel's version.
fn unpack(folder: &Path, package: &str) -> Result<String> {
    let deb = |name: &str| -> Result<PathBuf> {
        let files = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
        let begins = format!("{name}_");
        files
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&begins)))
            .with_context(|| format!("apt-get left no package {name}"))
    };
    let image = deb(package)?;
    let version = shell::read(Command::new("dpkg-deb").arg("-f").arg(&image).arg("Version"))?;
    let tree = folder.join("tree");
    for package in [image, deb("busybox-static")?] {
        let mut extract = Command::new("dpkg-deb");
        let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
        shell::step(&format!("unpacking {name}"), extract.arg("-x").arg(&package).arg(&tree))?;
    }
    let kernel = folder.join("kernel");
    fs::create_dir_all(kernel.join("modules"))?;
    let boot = tree.join("boot");
    let image = named(&boot, &|name| name.starts_with("vmlinuz-")).context("the package holds no vmlinuz")?;
    fs::copy(image, kernel.join("vmlinuz"))?;
    let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| tree.join(path));
    let busybox = busybox.iter().find(|path| path.is_file()).context("the package holds no busybox")?;
    fs::copy(busybox, kernel.join("busybox"))?;
    let mut modules = Modules { tree, target: kernel.join("modules"), done: Vec::new() };
    for name in ["virtio_pci", "9pnet_virtio", "9p", "overlay"] {
        modules.take(name)?;
    }
    Ok(version.trim().to_owned())
}

/// Modules and what they depend on, numbered in the order in which they are to be loaded.
struct Modules {
    tree: PathBuf,
    target: PathBuf,
    done: Vec<String>,
}

impl Modules {
    fn take(&mut self, name: &str) -> Result<()> {
        if self.done.iter().any(|done| done == name) {
            return Ok(());
        }
        self.done.push(name.to_owned());
        let wanted = |file: &str| file == format!("{name}.ko") || file == format!("{name}.ko.xz");
        // What is no module in this kernel is part of it.
        let Some(file) = named(&self.tree, &wanted) else { return Ok(()) };
        let module = if file.extension().is_some_and(|extension| extension == "xz") {
            let output = Command::new("xz").arg("-dc").arg(&file).output().context("cannot run xz")?;
            ensure!(output.status.success(), "xz cannot read {}", file.display());
            output.stdout
        } else {
            fs::read(&file)?
        };
        for dependency in dependencies(&module) {
            self.take(&dependency)?;
        }
        let number = fs::read_dir(&self.target)?.count();
        fs::write(self.target.join(format!("{number:02}-{name}.ko")), module)?;
        Ok(())
    }
}

/// The names after `depends=` in a module's section `.modinfo`, which holds strings that end with a zero.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let list = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The first file below `folder` whose name is `wanted`.
fn named(folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).ok()?.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => folders.push(entry.path()),
            Ok(kind) if kind.is_file() && wanted(&entry.file_name().to_string_lossy()) => {
                return Some(entry.path());
            }
            _ => {}
        }
    }
    folders.iter().find_map(|folder| named(folder, wanted))
}

/// An apt configuration for one suite, apart from the machine's.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn of(suite: &str, folder: &Path) -> Result<Self> {
        let home = folder.join("apt");
        fs::create_dir_all(home.join("state/lists/partial"))?;
        fs::create_dir_all(home.join("cache/archives/partial"))?;
        fs::write(home.join("status"), "")?;
        let mut sources = String::new();
        for (mirror, suffix) in mirrors()? {
            sources += &format!("deb [signed-by={KEYRING}] {mirror} {suite}{suffix} main\n");
        }
        fs::write(home.join("sources.list"), sources)?;
        let home = home.display();
        let options = [
            format!("Dir::Etc::sourcelist={home}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferences=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            format!("Dir::State={home}/state"),
            format!("Dir::State::status={home}/status"),
            format!("Dir::Cache={home}/cache"),
            "Acquire::Languages=none".to_owned(),
            // The account that apt downloads as need not be allowed to look into this folder.
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Self { options: options.into() })
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.args(["-o", option]);
        }
        command.arg("-q").args(arguments);
        command
    }

    /// The package that the newest `linux-image-amd64` stands for.
    fn image(&self) -> Result<String> {
        let said = shell::read(&mut self.command("apt-cache", &["depends", "linux-image-amd64"]))?;
        said.split_whitespace()
            .find(|word| word.starts_with("linux-image-") && *word != "linux-image-amd64")
            .map(str::to_owned)
            .with_context(|| format!("linux-image-amd64 depends on no kernel:\n{said}"))
    }
}

/// Where this machine gets Debian's packages from, with what follows a suite's name there.
fn mirrors() -> Result<Vec<(String, &'static str)>> {
    if let Ok(mirror) = std::env::var(MIRROR) {
        return Ok(vec![(mirror, "")]);
    }
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"]);
    let said = shell::read(&mut targets)?;
    let mut mirrors = Vec::new();
    for line in said.lines() {
        let found = match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["Debian", "Debian", mirror] => ((*mirror).to_owned(), ""),
            ["Debian", "Debian-Security", mirror] => ((*mirror).to_owned(), "-security"),
            _ => continue,
        };
        if !mirrors.contains(&found) {
            mirrors.push(found);
        }
    }
    if mirrors.is_empty() {
        bail!("apt knows no mirror of Debian: run `apt-get update` first, or {MIRROR_ADVICE}");
    }
    Ok(mirrors)
}

const MIRROR: &str = "CAPTURE_DEBIAN_MIRROR";
const MIRROR_ADVICE: &str =
    "set CAPTURE_DEBIAN_MIRROR to the address of one that holds it, such as Debian's archive of old releases";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_depends_on() {
        assert_eq!(dependencies(b"\x7fELF\0license=GPL\0depends=9pnet,netfs\0name=9p\0"), ["9pnet", "netfs"]);
        assert!(dependencies(b"\0depends=\0name=overlay\0").is_empty());
        assert!(dependencies(b"").is_empty());
    }
}
