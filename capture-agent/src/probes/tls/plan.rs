//! Which sites read a server's encrypted sessions.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;

use capture_common::{BACKEND, FRONTEND, Operand, Site};
use thiserror::Error;

use super::elf::{Bytes, ElfError, Function, Image};
use super::object::{FileId, Object};
use super::x86::{self, After, NoSite, Target};
use super::{AFTER, BEFORE, Probe};
use crate::probes::access::{Access, path_of};

/// Where the plaintext of encrypted sessions is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsSource {
    /// In the server's own code: `be_tls_read`, `be_tls_write`, or the functions that call them. Costs nobody else
    /// anything, and sees client sessions only.
    Server,
    /// In the TLS library that the server has mapped. Every other process that uses the same file pays for it.
    Library,
    /// Nowhere.
    Off,
}

impl std::str::FromStr for TlsSource {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "server" => Ok(Self::Server),
            "library" => Ok(Self::Library),
            "off" => Ok(Self::Off),
            _ => Err(format!("`{name}` is not one of server, library, off")),
        }
    }
}

/// The sites in one file.
#[derive(Debug)]
pub struct TlsPlan {
    /// The file, which is open as long as the kernel has to find it.
    opened: File,
    /// Which file it is.
    pub(super) file: FileId,
    /// What the server calls it.
    name: String,
    /// What to attach.
    pub(super) points: Vec<Point>,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// The function in which it stands.
    function: &'static str,
    /// The instruction's place in the file.
    pub(super) offset: u64,
    /// Whether the kernel emulates the instruction.
    emulated: bool,
    /// What it does.
    pub(super) kind: PointKind,
}

/// What a probe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PointKind {
    /// Keeps a call's arguments.
    Before,
    /// Looks at a call's result: [`FRONTEND`] or [`BACKEND`].
    After(After, u16),
}

/// Why a server's encrypted sessions cannot be read.
#[derive(Debug, Error)]
pub enum NoTls {
    /// It was asked not to.
    #[error("reading encrypted sessions is switched off")]
    Off,
    /// The server is gone, or may not be looked at.
    #[error("the server's files cannot be looked at: {0}")]
    Unreadable(#[from] std::io::Error),
    /// The server has no TLS.
    #[error("the server was built without TLS, or its TLS library is not OpenSSL")]
    NoLibrary,
    /// No site was found.
    #[error("{name}: {}", list(.reasons))]
    NoSite {
        /// The file that was searched last.
        name: String,
        /// Each function, and why it has none.
        reasons: Vec<(&'static str, NoSite)>,
    },
    /// Neither the server's own code nor its library has sites.
    #[error("{0}; {1}")]
    Neither(Box<NoTls>, Box<NoTls>),
    /// A file cannot be searched.
    #[error("{name}: {source}")]
    Elf {
        /// The file.
        name: String,
        /// What is wrong with it.
        source: ElfError,
    },
    /// The kernel refused a probe.
    #[error("the kernel refused the probe: {0}")]
    Refused(#[from] crate::probes::LoadError),
}

impl NoTls {
    /// Whether it is only that nobody is there just now who may look at the server's files.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreadable(error) => error.kind() == std::io::ErrorKind::NotConnected,
            Self::Neither(one, other) => one.may_pass() || other.may_pass(),
            _ => false,
        }
    }
}

impl TlsPlan {
    /// Searches the files of the server whose postmaster is `pid`, or those of one kind only.
    pub fn of(pid: u32, only: Option<TlsSource>, access: &dyn Access) -> Result<Self, NoTls> {
        match only {
            Some(TlsSource::Off) => Err(NoTls::Off),
            Some(TlsSource::Server) => server(pid, access),
            Some(TlsSource::Library) => library(pid, access),
            None => server(pid, access).or_else(|server| {
                library(pid, access).map_err(|library| match library {
                    NoTls::NoLibrary => library,
                    _ => NoTls::Neither(Box::new(server), Box::new(library)),
                })
            }),
        }
    }

    /// Searches a server's executable, whether one runs it or not.
    pub(super) fn of_executable(executable: Object) -> Result<Self, NoTls> {
        search(executable, |image, reasons| {
            let mut points =
                tls_in_server(image, "be_tls_read", "secure_read", "SSL_read", FRONTEND, reasons)?;
            points.extend(tls_in_server(
                image,
                "be_tls_write",
                "secure_write",
                "SSL_write",
                BACKEND,
                reasons,
            )?);
            // A server without GSSAPI has nothing to read there.
            for (wrapper, inner, direction) in
                [("secure_read", "be_gssapi_read", FRONTEND), ("secure_write", "be_gssapi_write", BACKEND)]
            {
                if let Ok(after) = find(image, wrapper, inner, false) {
                    points.extend(point(image, inner, after, direction));
                }
            }
            Some(points)
        })
    }

    /// The file that is searched first: what was found there for another server holds for this one.
    pub(super) fn first_file(pid: u32, only: Option<TlsSource>, access: &dyn Access) -> Option<FileId> {
        match only {
            Some(TlsSource::Off) => None,
            Some(TlsSource::Library) => Some(Object::tls_library(pid, access).ok()??.id),
            Some(TlsSource::Server) | None => Some(Object::executable(pid, access).ok()?.id),
        }
    }

    /// Where this process can open the file.
    pub(super) fn path(&self) -> PathBuf {
        path_of(&self.opened)
    }

    /// The probes of this plan, as the set `set`.
    pub(super) fn probes(&self, set: u16) -> impl Iterator<Item = Probe> {
        self.points.iter().map(move |point| match point.kind {
            PointKind::Before => {
                let unused = Operand { word: 0, memory: None };
                let (int, gss) = (false, false);
                let site = Site { direction: FRONTEND, result: unused, int, buffer: None, gss, set };
                Probe { program: BEFORE, offset: point.offset, cookie: site.to_cookie() }
            }
            PointKind::After(After { result, int, buffer, .. }, direction) => {
                let gss = point.function.starts_with("be_gssapi");
                let site = Site { direction, result, int, buffer, gss, set };
                Probe { program: AFTER, offset: point.offset, cookie: site.to_cookie() }
            }
        })
    }

    /// Whether the kernel emulates the instructions of all probes.
    pub fn is_cheap(&self) -> bool {
        self.points.iter().all(|point| point.emulated)
    }
}

impl fmt::Display for TlsPlan {
    /// `be_tls_read, be_tls_write in /usr/lib/postgresql/15/bin/postgres, emulated`
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut functions: Vec<&str> = self.points.iter().map(|point| point.function).collect();
        functions.dedup();
        let cost = if self.is_cheap() { "emulated (cheap)" } else { "single-stepped (dear)" };
        write!(out, "{} in {}, {cost}", functions.join(", "), self.name)
    }
}

fn server(pid: u32, access: &dyn Access) -> Result<TlsPlan, NoTls> {
    TlsPlan::of_executable(Object::executable(pid, access)?)
}

/// In the function that calls the library, or, should the compiler have put it into its only caller, there.
fn tls_in_server(
    image: &Image<'_>,
    function: &'static str,
    wrapper: &'static str,
    library: &'static str,
    direction: u16,
    reasons: &mut Vec<(&'static str, NoSite)>,
) -> Option<Vec<Point>> {
    // The function may be there for others, with a copy of it in its caller.
    let is_used = image.function(wrapper).is_none_or(|wrapper| calls(image, wrapper, function));
    let own = if is_used { Some((function, library, true)) } else { None };
    for (place, call, int) in own.into_iter().chain([(wrapper, function, false), (wrapper, library, true)]) {
        match find(image, place, call, int) {
            Ok(after) => return point(image, place, after, direction).map(|point| vec![point]),
            Err(reason) => reasons.push((place, reason)),
        }
    }
    None
}

fn library(pid: u32, access: &dyn Access) -> Result<TlsPlan, NoTls> {
    let library = Object::tls_library(pid, access)?.ok_or(NoTls::NoLibrary)?;
    let executable = Bytes::of(Object::executable(pid, access)?.file);
    let used = executable
        .as_ref()
        .ok()
        .and_then(|bytes| Image::parse(bytes, WANTED).ok())
        .map(|server| LIBRARY.iter().filter(|(name, _)| server.imports(name)).copied().collect::<Vec<_>>())
        .unwrap_or_default();
    // A server that loads the library by itself may use any of them.
    let used = if used.is_empty() { LIBRARY.to_vec() } else { used };
    search(library, |image, reasons| {
        let mut points = Vec::new();
        for (function, direction) in &used {
            let around = match image.function(function) {
                Some(code) => x86::around_inner_call(code, |target| resolve(image, target)),
                None => Err(NoSite::NoCall),
            };
            match around {
                Ok((address, emulated, after)) => {
                    let offset = image.file_offset(address)?;
                    points.push(Point { function, offset, emulated, kind: PointKind::Before });
                    points.push(point(image, function, after, *direction)?);
                }
                Err(reason) => reasons.push((function, reason)),
            }
        }
        let both = [FRONTEND, BACKEND].iter().all(|direction| {
            points.iter().any(|point| matches!(point.kind, PointKind::After(_, of) if of == *direction))
        });
        both.then_some(points)
    })
}

fn search(
    object: Object,
    sites: impl FnOnce(&Image<'_>, &mut Vec<(&'static str, NoSite)>) -> Option<Vec<Point>>,
) -> Result<TlsPlan, NoTls> {
    let Object { name, id, file } = object;
    let opened = file.try_clone()?;
    let bytes = match Bytes::of(file) {
        Ok(bytes) => bytes,
        Err(source) => return Err(NoTls::Elf { name, source }),
    };
    let image = match Image::parse(&bytes, WANTED) {
        Ok(image) => image,
        Err(source) => return Err(NoTls::Elf { name, source }),
    };
    let mut reasons = Vec::new();
    match sites(&image, &mut reasons) {
        Some(points) => Ok(TlsPlan { opened, file: id, name, points }),
        None => Err(NoTls::NoSite { name, reasons }),
    }
}

fn find(image: &Image<'_>, place: &str, call: &str, int: bool) -> Result<After, NoSite> {
    let function = image.function(place).ok_or(NoSite::NoCall)?;
    x86::after_call(function, call, int, |target| resolve(image, target))
}

fn calls(image: &Image<'_>, function: Function<'_>, callee: &str) -> bool {
    x86::calls(function, |target| resolve(image, target) == Some(callee))
}

/// The name of what a call's target is: a function of this file, or one that is imported.
fn resolve(image: &Image<'_>, target: Target) -> Option<&'static str> {
    match target {
        Target::Slot(slot) => image.imported_at(slot),
        Target::Code(address) => image.defined_at(address).or_else(|| {
            let stub = image.code(address, LINKAGE_ENTRY)?;
            image.imported_at(x86::linkage_slot(stub, address)?)
        }),
    }
}

fn point(image: &Image<'_>, function: &'static str, after: After, direction: u16) -> Option<Point> {
    let offset = image.file_offset(after.address)?;
    Some(Point { function, offset, emulated: after.emulated, kind: PointKind::After(after, direction) })
}

fn list(reasons: &[(&'static str, NoSite)]) -> String {
    reasons.iter().map(|(function, reason)| format!("{function}: {reason}")).collect::<Vec<_>>().join("; ")
}

/// The functions whose names matter.
const WANTED: &[&str] = &[
    "be_tls_read",
    "be_tls_write",
    "be_gssapi_read",
    "be_gssapi_write",
    "secure_read",
    "secure_write",
    "SSL_read",
    "SSL_write",
    "SSL_read_ex",
    "SSL_write_ex",
    "SSL_get_error",
];
/// OpenSSL's functions that move bytes, and which way.
const LIBRARY: &[(&str, u16)] =
    &[("SSL_read", FRONTEND), ("SSL_write", BACKEND), ("SSL_read_ex", FRONTEND), ("SSL_write_ex", BACKEND)];
/// Bytes of an entry of a procedure linkage table.
const LINKAGE_ENTRY: u64 = 16;
