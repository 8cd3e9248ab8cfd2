//! Whether a record is what was sealed: offline, on the data directory or a copy of it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufRead as _, Read as _};
use std::path::{Component, Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use super::anchor::Head;
use super::claims::Claims;
use super::entry::{self, Contents, Line};
use super::finding::{Finding, Wrong};
use super::hex::hex;
use super::key::{KeyError, PublicKey};
use super::{CHAIN, FOLDER, Hasher, PUBLIC_KEY, pieces};

/// What is to be verified.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The data directory, or a copy.
    pub data_dir: PathBuf,
    /// The key that all chains must be signed with; those that stand beside the chains if none.
    pub public_key: Option<PathBuf>,
    /// Heads that were kept elsewhere.
    pub anchor: Option<PathBuf>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The chains.
    pub chains: Vec<Checked>,
    /// What is not as it was sealed.
    pub findings: Vec<Finding>,
}

/// A chain that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Whose.
    pub node: String,
    /// Its seals.
    pub seals: u64,
    /// Files that are there as they were sealed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows.
    pub rows: u64,
    /// When its first seal was made.
    pub from: Option<String>,
    /// When its last seal was made.
    pub to: Option<String>,
    /// The name of the key that signed it.
    pub key: String,
}

/// Why nothing can be said.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// There is no chain.
    #[error(
        "there are no seals in {}: give the folder of the record with --data-dir (see docs/seals.md)",
        path.display()
    )]
    NoSeals {
        /// The folder that was looked at.
        path: PathBuf,
    },
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Something cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A line of the anchor is none.
    #[error("line {line} of the anchor {} is not what the agent writes there (see docs/seals.md)", path.display())]
    Anchor {
        /// The anchor.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

/// Compares the record with its seals. `progress` is told how many bytes of how many were read.
///
/// # Errors
///
/// Something cannot be read, so that nothing can be said.
pub fn verify(request: &Request, mut progress: impl FnMut(u64, u64)) -> Result<Report, VerifyError> {
    let data_dir = request.data_dir.as_path();
    let anchors = request.anchor.as_deref().map(heads).transpose()?.unwrap_or_default();
    let mut report = Report::default();
    let mut sealed = Claims::default();
    let chains = chains(data_dir)?;
    // Before the chains are read, which a running agent continues: a file is sealed before it is published.
    let mut there = Vec::new();
    list(data_dir, data_dir, &mut there)?;
    for (name, path) in chains {
        let key = match &request.public_key {
            Some(path) => PublicKey::open(path)?,
            None => PublicKey::open(&path.with_extension(PUBLIC_KEY))?,
        };
        let index = report.chains.len();
        let chain = read_chain(&path, &name, index, &key, &mut sealed, &mut report.findings)?;
        compare_heads(&name, &chain, &anchors, &mut report.findings);
        report.chains.push(chain.checked);
    }
    for node in anchors.keys() {
        if !report.chains.iter().any(|chain| chain.node == *node) {
            let anchored = anchors.get(node).into_iter().flatten().map(|head| head.number).max().unwrap_or(0);
            let file = format!("{FOLDER}/{node}.{CHAIN}");
            report.findings.push(Finding { file, line: None, wrong: Wrong::CutOff { anchored } });
        }
    }
    compare_files(data_dir, &sealed, &mut report, &mut progress)?;
    excuse_removed(request, &mut report)?;
    for file in there {
        if sealed.files.contains_key(&file) || sealed.doubtful.contains(&file) {
            continue;
        }
        match sealed.gone.get(&file) {
            // An agent that runs is about to remove it, or the next one will.
            Some((chain, line)) if report.chains.get(*chain).is_some_and(|chain| chain.seals == *line) => {}
            // Or has done so since.
            Some(_) if !data_dir.join(&file).exists() => {}
            Some((_, line)) => {
                report.findings.push(Finding { file, line: Some(*line), wrong: Wrong::Back });
            }
            None => report.findings.push(Finding { file, line: None, wrong: Wrong::Added }),
        }
    }
    Ok(report)
}

/// A chain that was read.
#[derive(Default)]
struct ChainRead {
    checked: Checked,
    /// The hash of each line, by the seal's number.
    hashes: HashMap<u64, String>,
    /// The number of the last seal.
    last: Option<u64>,
}

/// The chains in the data directory, by their names.
fn chains(data_dir: &Path) -> Result<Vec<(String, PathBuf)>, VerifyError> {
    let folder = data_dir.join(FOLDER);
    let mut found = Vec::new();
    if let Ok(entries) = fs::read_dir(&folder) {
        for entry in entries {
            let path =
                entry.map_err(|source| VerifyError::Unreadable { path: folder.clone(), source })?.path();
            if path.extension().is_some_and(|extension| extension == CHAIN)
                && let Some(name) = path.file_stem().and_then(|name| name.to_str())
            {
                found.push((name.to_owned(), path));
            }
        }
    }
    found.sort();
    if found.is_empty() { Err(VerifyError::NoSeals { path: data_dir.to_owned() }) } else { Ok(found) }
}

/// Reads a chain line by line, each compared with the one that stands before it, whatever is wrong with that.
fn read_chain(
    path: &Path,
    name: &str,
    index: usize,
    key: &PublicKey,
    sealed: &mut Claims,
    findings: &mut Vec<Finding>,
) -> Result<ChainRead, VerifyError> {
    let unreadable = |source| VerifyError::Unreadable { path: path.to_owned(), source };
    let own = format!("{FOLDER}/{name}.{CHAIN}");
    let mut chain = ChainRead::default();
    name.clone_into(&mut chain.checked.node);
    chain.checked.key = key.name();
    let mut lines = pieces::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    let mut previous = entry::none();
    let mut next = 0;
    for line in 1.. {
        bytes.clear();
        if lines.read_until(b'\n', &mut bytes).map_err(unreadable)? == 0 {
            break;
        }
        let mut say =
            |file: &str, wrong| findings.push(Finding { file: file.to_owned(), line: Some(line), wrong });
        if bytes.pop_if(|last| *last == b'\n').is_none() {
            say(&own, Wrong::Torn);
            break;
        }
        let text = std::str::from_utf8(&bytes).ok();
        let parsed = text.and_then(Line::parse);
        let hash = hex(&super::hash(&bytes));
        let Some(parsed) = parsed else {
            say(&own, Wrong::Unreadable);
            previous = hash;
            next += 1;
            continue;
        };
        let seal = &parsed.seal;
        let genuine = parsed.is_signed_by(key);
        if !genuine {
            say(seal.what.file(), Wrong::Forged);
        }
        if seal.previous != previous || seal.number != next {
            say(seal.what.file(), Wrong::OutOfOrder);
        }
        seal.node.clone_into(&mut chain.checked.node);
        chain.checked.seals += 1;
        chain.checked.from.get_or_insert_with(|| seal.at.clone());
        chain.checked.to = Some(seal.at.clone());
        chain.hashes.insert(seal.number, hash.clone());
        chain.last = chain.last.max(Some(seal.number));
        previous = hash;
        next = seal.number.saturating_add(1);
        if !genuine {
            sealed.doubtful.insert(seal.what.file().to_owned());
            continue;
        }
        sealed.take(parsed.seal.what, index, line, say);
    }
    Ok(chain)
}

/// Whether the chain still is what its anchors saw.
fn compare_heads(
    name: &str,
    chain: &ChainRead,
    anchors: &BTreeMap<String, Vec<Head>>,
    findings: &mut Vec<Finding>,
) {
    let heads = anchors.get(&chain.checked.node).into_iter().flatten();
    let file = format!("{FOLDER}/{name}.{CHAIN}");
    // The first head that does not fit says it; those behind it follow from that.
    let wrong = heads
        .filter_map(|head| match chain.hashes.get(&head.number) {
            Some(hash) if *hash == head.hash => None,
            Some(_) => Some(Wrong::Replaced { anchored: head.number }),
            None if chain.last < Some(head.number) => Some(Wrong::CutOff { anchored: head.number }),
            None => Some(Wrong::Replaced { anchored: head.number }),
        })
        .next();
    findings.extend(wrong.map(|wrong| Finding { file, line: None, wrong }));
}

/// The anchored heads, by node.
fn heads(path: &Path) -> Result<BTreeMap<String, Vec<Head>>, VerifyError> {
    let text = fs::read_to_string(path)
        .map_err(|source| VerifyError::Unreadable { path: path.to_owned(), source })?;
    let mut heads: BTreeMap<String, Vec<Head>> = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |_| VerifyError::Anchor { path: path.to_owned(), line: number };
        let head: Head = serde_json::from_str(line).map_err(wrong)?;
        heads.entry(head.node.clone()).or_default().push(head);
    }
    Ok(heads)
}

fn compare_files(
    data_dir: &Path,
    sealed: &Claims,
    report: &mut Report,
    progress: &mut impl FnMut(u64, u64),
) -> Result<(), VerifyError> {
    let total: u64 = sealed.files.values().map(|entry| entry.contents.bytes).sum();
    let mut done = 0;
    progress(done, total);
    for (file, entry) in &sealed.files {
        let mut say =
            |wrong| report.findings.push(Finding { file: file.clone(), line: Some(entry.line), wrong });
        let chain = report.chains.get_mut(entry.chain);
        let is_last = chain.as_ref().is_some_and(|chain| chain.seals == entry.line);
        let hash = inside(data_dir, file).map(|path| match digest(&path, entry.contents.bytes) {
            Ok(None) if is_last => waiting(&path, &entry.contents),
            digest => digest,
        });
        match hash {
            None | Some(Ok(None)) => say(Wrong::Removed),
            Some(Ok(Some(hash))) if hash == entry.contents.sha256 => {
                if let Some(chain) = chain {
                    chain.files += 1;
                    chain.bytes += entry.contents.bytes;
                    chain.rows += entry.contents.rows;
                }
            }
            Some(Ok(Some(_))) => say(Wrong::Changed),
            Some(Err(source)) => {
                return Err(VerifyError::Unreadable { path: data_dir.join(file), source });
            }
        }
        done += entry.contents.bytes;
        progress(done, total);
    }
    Ok(())
}

/// Takes back what is said of files that an agent removed meanwhile, as its chain says by now.
fn excuse_removed(request: &Request, report: &mut Report) -> Result<(), VerifyError> {
    if !report.findings.iter().any(|finding| finding.wrong == Wrong::Removed) {
        return Ok(());
    }
    let mut now = Claims::default();
    for (index, (name, path)) in chains(&request.data_dir)?.into_iter().enumerate() {
        let key = match &request.public_key {
            Some(path) => PublicKey::open(path)?,
            None => PublicKey::open(&path.with_extension(PUBLIC_KEY))?,
        };
        read_chain(&path, &name, index, &key, &mut now, &mut Vec::new())?;
    }
    report
        .findings
        .retain(|finding| finding.wrong != Wrong::Removed || !now.gone.contains_key(&finding.file));
    Ok(())
}

/// Where a file that a chain names lies; none if that is not in the data directory.
fn inside(data_dir: &Path, file: &str) -> Option<PathBuf> {
    let path = Path::new(file);
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| data_dir.join(path))
}

/// The hash of the file that was sealed last, if it has its hidden name still: an agent that runs is about to publish it, or
/// the next one will.
fn waiting(path: &Path, contents: &Contents) -> io::Result<Option<String>> {
    let Some(Ok(folder)) = path.parent().map(fs::read_dir) else { return Ok(None) };
    for entry in folder {
        let entry = entry?.path();
        let hidden = entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden
            && let Some(hash) = digest(&entry, contents.bytes)?
            && hash == contents.sha256
        {
            return Ok(Some(hash));
        }
    }
    // It may have got its name meanwhile.
    digest(path, contents.bytes)
}

/// The hash of a file, no further than one byte more than it is said to have; none if it is not there.
fn digest(path: &Path, bytes: u64) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut rest = file.take(bytes.saturating_add(1));
    let mut hasher = Hasher::new();
    let mut piece = vec![0; PIECE];
    loop {
        match rest.read(&mut piece) {
            Ok(0) => return Ok(Some(hex(&hasher.finish()))),
            Ok(length) => hasher.update(piece.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// All that a reader may take for a file of the record: what ends in `.parquet`, wherever it lies.
fn list(data_dir: &Path, folder: &Path, found: &mut Vec<String>) -> Result<(), VerifyError> {
    let unreadable = |source| VerifyError::Unreadable { path: folder.to_owned(), source };
    let mut entries =
        fs::read_dir(folder).map_err(unreadable)?.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type().map_err(unreadable)?.is_dir() {
            list(data_dir, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "parquet")
            && let Ok(file) = path.strip_prefix(data_dir)
        {
            found.push(file.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
