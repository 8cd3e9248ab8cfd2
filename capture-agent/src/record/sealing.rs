//! From published files to their seals: what a seal says of a file, and where the chain goes on after an earlier agent.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use jiff::Timestamp;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
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
    match chain.last() {
        Some(What::File(contents)) => publish(place, contents).map_err(unusable)?,
        // An agent may have died before it had sealed all that it found.
        Some(What::Found(contents)) => {
            let behind = contents.file.clone();
            seal_found(place, Some(&behind), &mut chain).map_err(unusable)?;
        }
        Some(What::Withdrawn { .. }) => {}
        None => seal_found(place, None, &mut chain).map_err(unusable)?,
    }
    Ok(chain)
}

/// Gives a file its name that was sealed just before the agent died.
fn publish(place: &Place, contents: &Contents) -> io::Result<()> {
    let path = place.data_dir.join(&contents.file);
    let Some(folder) = path.parent().filter(|folder| folder.is_dir() && !path.exists()) else {
        return Ok(());
    };
    for waiting in place.temporaries(folder)? {
        if hash_of(&waiting)? == contents.sha256 {
            tracing::info!(file = contents.file, "published what an earlier agent had sealed");
            fs::rename(waiting, &path)?;
            File::open(folder)?.sync_all()?;
            break;
        }
    }
    Ok(())
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
        let metadata = match ParquetMetaDataReader::new().parse_and_finish(&File::open(&path)?) {
            Ok(metadata) => metadata,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "this file is no complete Parquet; it is not sealed");
                continue;
            }
        };
        let file = place.relative(&path);
        let bytes = fs::metadata(&path)?.len();
        chain.append(What::Found(contents(file, hash_of(&path)?, bytes, &metadata)))?;
    }
    Ok(())
}

fn hash_of(path: &Path) -> io::Result<String> {
    let mut hashed = Hashed { to: io::sink(), hasher: Hasher::new() };
    io::copy(&mut File::open(path)?, &mut hashed)?;
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

/// The columns that say when something was.
const TIMES: [&str; 2] = ["started_at", "at"];
