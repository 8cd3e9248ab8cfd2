//! Debian's packages.

use super::{For, need_root};
use crate::{postgres, shell};
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// Installs the packages that are missing for `purpose`, and yields how many.
pub(super) fn ensure(purpose: For) -> Result<usize> {
    let installed = install(&missing(purpose))?;
    // Its package is named after the server's version, which is known once there is one.
    Ok(installed + if purpose == For::Bench { pgaudit()? } else { 0 })
}

/// The same for valgrind alone, which counting instructions needs and building does not.
pub(super) fn ensure_valgrind() -> Result<usize> {
    let missing = shell::find("valgrind").is_none().then_some("valgrind");
    install(missing.as_slice())
}

fn install(missing: &[&str]) -> Result<usize> {
    if missing.is_empty() {
        return Ok(0);
    }
    let names = missing.join(" ");
    if shell::find("apt-get").is_none() {
        bail!("this is no Debian: install what these packages hold, then try again: {names}");
    }
    need_root(&format!("installing Debian packages ({names})"))?;
    shell::step("reading Debian's package lists", &mut apt(&["update"]))?;
    let clusters = NoCluster::declare(missing)?;
    println!("  to install: {names}");
    let mut install = apt(&["install", "--no-install-recommends"]);
    shell::step("installing Debian packages", install.args(missing))?;
    drop(clusters);
    Ok(missing.len())
}

fn missing(purpose: For) -> Vec<&'static str> {
    let mut packages = Vec::new();
    let mut need = |there: bool, names: &[&'static str]| {
        if !there {
            packages.extend_from_slice(names);
        }
    };
    let program = |name: &str| shell::find(name).is_some();
    need(program("cc") && program("ld"), &["build-essential"]);
    // pg_query's bindings are generated from the C header.
    need(has_libclang(), &["libclang-dev"]);
    need(xtask::ebpf::Toolchain::find().is_ok(), &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"]);
    if !super::rust::has_bpf_linker() {
        need(program("llvm-config-22"), &["llvm-22-dev"]);
        need(installed("libpolly-22-dev"), &["libpolly-22-dev"]);
        need(installed("libzstd-dev"), &["libzstd-dev"]);
        need(installed("zlib1g-dev"), &["zlib1g-dev"]);
    }
    if purpose >= For::Demo {
        need(postgres::bin_dir().is_ok(), &["postgresql"]);
        need(program("psql"), &["postgresql-client"]);
        need(has_python_venv(), &["python3-venv"]);
        // Servers with TLS, the benchmark's and the tests', need a certificate.
        need(program("openssl"), &["openssl"]);
    }
    if purpose == For::Bench {
        need(Path::new("/usr/sbin/pgbouncer").is_file(), &["pgbouncer"]);
        need(program("tcpdump"), &["tcpdump"]);
        need(program("bpftrace"), &["bpftrace"]);
    }
    if purpose >= For::Test {
        need(program("node"), &["nodejs"]);
        need(program("npm"), &["npm"]);
        need(program("ip"), &["iproute2"]);
        // Sessions that GSSAPI encrypts need a Kerberos realm, which the tests make for themselves.
        need(program("krb5kdc"), &["krb5-kdc"]);
        need(program("kadmin.local"), &["krb5-admin-server"]);
        need(program("kinit"), &["krb5-user"]);
        // A file system with quotas that hold for root as well.
        need(program("mkfs.btrfs"), &["btrfs-progs"]);
        // Spark reads object storage through a mount, and needs Java.
        need(program("s3fs"), &["s3fs"]);
        need(program("java"), &["default-jre-headless"]);
        if !program("rustup") {
            need(program("cargo-fmt") && program("rustfmt"), &["rustfmt-web"]);
            need(program("cargo-clippy"), &["rust-web-clippy"]);
        }
    }
    if purpose >= For::Kernels {
        need(program("qemu-system-x86_64"), &["qemu-system-x86"]);
        // Debian's kernel modules are compressed.
        need(program("xz"), &["xz-utils"]);
    }
    if purpose >= For::All {
        need(program("valgrind"), &["valgrind"]);
        // libFuzzer is C++.
        need(program("c++"), &["build-essential"]);
    }
    packages.dedup();
    packages
}

fn pgaudit() -> Result<usize> {
    // `/usr/lib/postgresql/15/bin`
    let bin = postgres::bin_dir()?;
    let folder = bin.parent().context("the server lies in no folder")?;
    if folder.join("lib/pgaudit.so").is_file() {
        return Ok(0);
    }
    let version = folder.file_name().context("the server's folder has no name")?;
    install(&[&format!("postgresql-{}-pgaudit", version.to_string_lossy())])
}

fn has_libclang() -> bool {
    if env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    folders
        .filter(|folder| folder.file_name().to_string_lossy().starts_with("llvm-"))
        .filter_map(|folder| fs::read_dir(folder.path().join("lib")).ok())
        .flat_map(|files| files.flatten())
        .any(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            // `libclang-cpp` is another library: it comes with LLVM, and bindgen cannot use it.
            (name.starts_with("libclang.so") || name.starts_with("libclang-"))
                && !name.starts_with("libclang-cpp")
        })
}

fn has_python_venv() -> bool {
    shell::works(Command::new(super::python_node::PYTHON).args(["-c", "import ensurepip, venv"]))
}

fn installed(package: &str) -> bool {
    let status = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}\n", package]).output();
    status.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).lines().any(|line| line == "installed"))
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-y"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Debian's `postgresql` makes and starts a server of its own when it is installed. While this value lives, it
/// does not: tests and demo use throwaway servers, and nobody asked for another one.
struct NoCluster;

impl NoCluster {
    fn declare(packages: &[&str]) -> Result<Option<Self>> {
        if !packages.contains(&"postgresql") {
            return Ok(None);
        }
        let file = Path::new(CREATE_CLUSTER);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(file, "create_main_cluster = false\n")
            .with_context(|| format!("cannot write {CREATE_CLUSTER}"))?;
        Ok(Some(Self))
    }
}

impl Drop for NoCluster {
    fn drop(&mut self) {
        // Left behind, the file would change what the administrator's next installation does.
        drop(fs::remove_file(CREATE_CLUSTER));
    }
}

/// Read by postgresql-common's maintainer scripts, see pg_createcluster(1).
const CREATE_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/capture-setup.conf";
