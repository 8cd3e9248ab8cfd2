//! One file into the storage, and the proof that it is there.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::multipart::PartId;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt as _, PutPayload};
use serde::{Deserialize, Serialize};

use super::UploadError;
use super::store::Store;
use crate::seal::{Contents, Hasher, hex};

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is there.
    Stored,
    /// There is no such local file.
    Missing,
    /// The local file is not what was sealed.
    Changed,
}

/// The upload in parts that is under way: noted, so that the next attempt can end it. A storage keeps, and charges for, parts
/// of uploads that nobody ends.
#[derive(Debug)]
pub(super) struct Parts {
    note: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The object's path.
    object: String,
    /// The provider's name of the upload.
    upload: String,
}

impl Parts {
    pub(super) fn new(data_dir: &Path, node: &str) -> Self {
        Self { note: data_dir.join(format!(".uploading-{node}.json")) }
    }

    /// Ends what an earlier attempt left.
    pub(super) async fn abandon(&self, store: &Store) -> Result<(), UploadError> {
        let Ok(text) = fs::read(&self.note) else { return Ok(()) };
        if let Ok(Note { object, upload }) = serde_json::from_slice(&text) {
            let path = ObjectPath::parse(object).map_err(object_store::Error::from)?;
            match store.storage.abort_multipart(&path, &upload).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                // Azure has no such request: it forgets parts after a week.
                Err(error) => tracing::debug!(%error, "an earlier upload in parts could not be ended"),
            }
        }
        self.forget()
    }

    fn note(&self, path: &ObjectPath, upload: &str) -> Result<(), UploadError> {
        let note = Note { object: path.to_string(), upload: upload.to_owned() };
        let text = serde_json::to_vec(&note).map_err(|error| local(&self.note, error.into()))?;
        fs::write(&self.note, text).map_err(|source| local(&self.note, source))
    }

    fn forget(&self) -> Result<(), UploadError> {
        match fs::remove_file(&self.note) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(local(&self.note, error)),
            _ => Ok(()),
        }
    }
}

/// Sends the file at `local_path`. Nothing is there under its name before all of it is.
pub(super) async fn put(
    store: &Store,
    path: &ObjectPath,
    local_path: &Path,
    contents: &Contents,
    parts: &Parts,
) -> Result<Outcome, UploadError> {
    let mut file = match File::open(local_path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Missing),
        Err(error) => return Err(local(local_path, error)),
    };
    let mut hasher = Hasher::new();
    let mut next = |most: u64| {
        let mut bytes = Vec::new();
        (&mut file).take(most).read_to_end(&mut bytes).map_err(|source| local(local_path, source))?;
        hasher.update(&bytes);
        Ok::<_, UploadError>(bytes)
    };
    if contents.bytes <= PART {
        // One byte more, so that a file that has grown is found out.
        let bytes = next(contents.bytes + 1)?;
        if hex(&hasher.finish()) != contents.sha256 {
            return Ok(Outcome::Changed);
        }
        store.storage.put(path, payload(bytes)).await?;
        return Ok(Outcome::Stored);
    }
    parts.abandon(store).await?;
    let upload = store.storage.create_multipart(path).await?;
    parts.note(path, &upload)?;
    let part = PART.max(contents.bytes.div_ceil(MOST_PARTS));
    let mut ids: Vec<PartId> = Vec::new();
    loop {
        let bytes = next(part)?;
        if bytes.is_empty() {
            break;
        }
        ids.push(store.storage.put_part(path, &upload, ids.len(), payload(bytes)).await?);
    }
    if hex(&hasher.finish()) != contents.sha256 {
        parts.abandon(store).await?;
        return Ok(Outcome::Changed);
    }
    store.storage.complete_multipart(path, &upload, ids).await?;
    parts.forget()?;
    Ok(Outcome::Stored)
}

/// In pieces, since each waits for its turn.
fn payload(bytes: Vec<u8>) -> PutPayload {
    let bytes = Bytes::from(bytes);
    (0..bytes.len()).step_by(PIECE).map(|begin| bytes.slice(begin..bytes.len().min(begin + PIECE))).collect()
}

/// Whether the storage gives back what was sealed: every byte of it is read.
pub(super) async fn holds(
    store: &Store,
    path: &ObjectPath,
    contents: &Contents,
) -> Result<bool, UploadError> {
    let mut hasher = Hasher::new();
    let length = read(store, path, contents.bytes, |bytes| hasher.update(bytes)).await?;
    Ok(length == Some(contents.bytes) && hex(&hasher.finish()) == contents.sha256)
}

/// Whether an object of the right size is there: for those who trust the storage's own checksums.
pub(super) async fn is_there(
    store: &Store,
    path: &ObjectPath,
    contents: &Contents,
) -> Result<bool, UploadError> {
    match store.storage.head(path).await {
        Ok(found) => Ok(found.size == contents.bytes),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A small object; none if there is none. Of one that is larger than `most`, only its beginning is read.
pub(super) async fn fetch(
    store: &Store,
    path: &ObjectPath,
    most: u64,
) -> Result<Option<Vec<u8>>, UploadError> {
    let mut whole = Vec::new();
    let length = read(store, path, most, |bytes| whole.extend_from_slice(bytes)).await?;
    Ok(length.map(|_| whole))
}

/// Reads an object until it ends or is longer than `most` bytes, and yields how many were read; none: it is not there.
async fn read(
    store: &Store,
    path: &ObjectPath,
    most: u64,
    mut each: impl FnMut(&[u8]),
) -> Result<Option<u64>, UploadError> {
    let found = match store.storage.get(path).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut pieces = found.into_stream();
    let mut length = 0;
    while length <= most {
        let piece = tokio::time::timeout(PATIENCE, pieces.next()).await.map_err(|_| UploadError::Silent)?;
        let Some(piece) = piece.transpose()? else { break };
        length += piece.len() as u64;
        store.pace.pass(piece.len()).await;
        each(&piece);
    }
    Ok(Some(length))
}

pub(super) fn local(path: &Path, source: io::Error) -> UploadError {
    UploadError::Local { path: path.to_owned(), source }
}

/// Files up to this size are sent at once, larger ones in parts of it. S3 takes parts of 5 MiB or more.
pub(super) const PART: u64 = 8 << 20;

/// S3 takes 10,000.
const MOST_PARTS: u64 = 9_000;

/// What is sent at once.
const PIECE: usize = 64 << 10;

/// How long the next bytes of an object may take.
const PATIENCE: Duration = Duration::from_secs(30);
