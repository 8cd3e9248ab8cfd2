//! From published files to their seals: what a seal says of a file, and where the chain goes on after an earlier agent.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::file::Place;
use super::{RecordError, Settings};
use crate::seal::{Chain, Contents, Hasher, SigningKey, What, hex};

/// Opens the chain of this node, with what an earlier agent left to do: a file that was sealed and not published gets its
/// name, and a chain that begins seals the files that are there.
pub(super) fn open(place: &Place, settings: &Settings) -> Result<Chain, RecordError> {
    let key = SigningKey::open(&settings.seal_key.clone().unwrap_or_else(|| place.seal_key()))?;
    let folder = place.seals();
    let unusable = |source| RecordError::Seals { path: folder.clone(), source };
    let mut chain =
        Chain::open(&folder, place.node(), &settings.node, key, settings.anchor.clone()).map_err(unusable)?;
    let mut waiting = Waiting::default();
    for what in chain.tail(TAIL).map_err(unusable)? {
        waiting.complete(place, &what).map_err(unusable)?;
    }
    match chain.last() {
        // An agent may have died before it had sealed all that it found.
        Some(What::Found(contents)) => {
            let behind = contents.file.clone();
            seal_found(place, Some(&behind), &mut chain).map_err(unusable)?;
        }
        Some(_) => {}
        None => seal_found(place, None, &mut chain).map_err(unusable)?,
    }
    Ok(chain)
}

/// What agents left in the folders of a record without its name, with its hashes.
#[derive(Default)]
struct Waiting(HashMap<PathBuf, Vec<(String, PathBuf)>>);

impl Waiting {
    /// Does what a line says, where an agent could not: it died, or the disk failed.
    fn complete(&mut self, place: &Place, what: &What) -> io::Result<()> {
        match what {
            What::File(contents) => self.publish(place, contents)?,
            What::Merged(merged) => {
                self.publish(place, &merged.contents)?;
                // What may be nowhere else stays.
                if place.data_dir.join(&merged.contents.file).exists() {
                    merged.replaced.iter().for_each(|replaced| clear(place, &replaced.file));
                }
            }
            What::Expired { file, .. } => clear(place, file),
            What::Found(_) | What::Withdrawn { .. } => {}
        }
        Ok(())
    }

    /// Gives a file its name that was sealed just before the agent died.
    fn publish(&mut self, place: &Place, contents: &Contents) -> io::Result<()> {
        let path = place.data_dir.join(&contents.file);
        let Some(folder) = path.parent().filter(|folder| folder.is_dir() && !path.exists()) else {
            return Ok(());
        };
        let waiting = match self.0.entry(folder.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let files = place.temporaries(folder)?.into_iter();
                let hashed = files.map(|path| Ok((hash_of(&mut File::open(&path)?)?, path)));
                new.insert(hashed.collect::<io::Result<_>>()?)
            }
        };
        if let Some(at) = waiting.iter().position(|(hash, _)| *hash == contents.sha256) {
            tracing::info!(file = contents.file, "published what an earlier agent had sealed");
            fs::rename(waiting.remove(at).1, &path)?;
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

/// Removes what is gone by the words of the chain. What cannot be removed now is no reason not to record: the keeper tries again.
fn clear(place: &Place, file: &str) {
    if let Err(error) = remove(place, file) {
        tracing::warn!(file, %error, "this file was to be removed and could not be");
    }
}

/// Removes a file of the record, which its chain says is gone.
pub(super) fn remove(place: &Place, file: &str) -> io::Result<()> {
    match fs::remove_file(place.data_dir.join(file)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Seals the files of a record that is older than its chain, in the order of their names: those `behind` the one that was
/// sealed last, if any was.
fn seal_found(place: &Place, behind: Option<&str>, chain: &mut Chain) -> io::Result<()> {
    let behind = behind.map(|file| Path::new(file).file_name());
    let mut found = place.complete_since(0)?;
    found.sort_by(|a, b| a.2.file_name().cmp(&b.2.file_name()));
    for (_, _, path) in found {
        if behind.is_some_and(|last| path.file_name() <= last) {
            continue;
        }
        let metadata = match place.keys().footer_reader().parse_and_finish(&File::open(&path)?) {
            Ok(metadata) => metadata,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "this file cannot be read as Parquet; it is not sealed");
                continue;
            }
        };
        let file = place.relative(&path);
        let bytes = fs::metadata(&path)?.len();
        chain.append(What::Found(contents(file, hash_of(&mut File::open(&path)?)?, bytes, &metadata)))?;
    }
    Ok(())
}

pub(super) fn hash_of(file: &mut File) -> io::Result<String> {
    let mut hashed = Hashed { to: io::sink(), hasher: Hasher::new() };
    io::copy(file, &mut hashed)?;
    Ok(hex(&hashed.hasher.finish()))
}

/// What a seal says of a complete file.
pub(super) fn contents(file: String, sha256: String, bytes: u64, metadata: &ParquetMetaData) -> Contents {
    let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    let times = TIMES.iter().find_map(|column| range(metadata, column, time)).unzip();
    let sessions = range(metadata, "session_id", text).unzip();
    Contents {
        file,
        sha256,
        bytes,
        rows,
        first_at: times.0.and_then(rfc3339),
        last_at: times.1.and_then(rfc3339),
        first_session: sessions.0,
        last_session: sessions.1,
    }
}

/// The least and the greatest value of a column, as the statistics of its row groups say.
fn range<T: Ord>(
    metadata: &ParquetMetaData,
    column: &str,
    read: fn(&Statistics) -> Option<(T, T)>,
) -> Option<(T, T)> {
    let columns = metadata.row_groups().iter().filter_map(|row_group| {
        row_group.columns().iter().find(|chunk| chunk.column_path().string() == column)
    });
    columns.filter_map(|chunk| read(chunk.statistics()?)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

fn time(statistics: &Statistics) -> Option<(i64, i64)> {
    match statistics {
        Statistics::Int64(values) => Some((*values.min_opt()?, *values.max_opt()?)),
        _ => None,
    }
}

fn text(statistics: &Statistics) -> Option<(String, String)> {
    match statistics {
        Statistics::ByteArray(values) => {
            let text = |value: &parquet::data_type::ByteArray| value.as_utf8().map(str::to_owned).ok();
            Some((text(values.min_opt()?)?, text(values.max_opt()?)?))
        }
        _ => None,
    }
}

fn rfc3339(us: i64) -> Option<String> {
    Timestamp::from_microsecond(us).ok().map(|at| at.to_string())
}

/// A writer that hashes what it passes on.
pub(super) struct Hashed<W> {
    pub(super) to: W,
    pub(super) hasher: Hasher,
}

impl<W: io::Write> io::Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Bytes of the chain's end in which unfinished work is looked for.
const TAIL: u64 = 1 << 20;

/// The columns that say when something was.
const TIMES: [&str; 2] = ["started_at", "at"];
