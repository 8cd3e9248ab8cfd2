//! The chain in the storage, where nothing can be appended to: pieces of some 64 KiB, of which the last grows by being
//! replaced. A piece begins where the chain says so, not when it is sent, so that every agent cuts in the same places.

use std::fs;

use futures_util::TryStreamExt as _;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutPayload};

use super::UploadError;
use super::chain::ChainFile;
use super::put::{fetch, local};
use super::store::Store;
use crate::seal::{CHAIN, FOLDER, PUBLIC_KEY, piece_name};

/// Where the pieces begin and end, and how far each is stored.
#[derive(Debug, Default)]
pub(super) struct Pieces(Vec<Piece>);

#[derive(Debug)]
struct Piece {
    /// The number of its first seal.
    first: u64,
    begin: u64,
    end: u64,
    /// Up to here it is stored.
    stored: u64,
}

impl Pieces {
    /// A line of the chain; none: it is no seal, and goes with the one before.
    pub(super) fn add(&mut self, number: Option<u64>, begin: u64, end: u64) {
        match (self.0.last_mut(), number) {
            (Some(piece), None) => piece.end = end,
            (Some(piece), Some(_)) if begin - piece.begin < PIECE => piece.end = end,
            (_, number) => self.0.push(Piece { first: number.unwrap_or(0), begin, end, stored: begin }),
        }
    }
}

/// Sees that the node's place in the storage is this chain's, and finds out how much of it is there.
pub(super) async fn claim(store: &Store, node: &str, chain: &mut ChainFile) -> Result<(), UploadError> {
    let path = chain.path().with_extension(PUBLIC_KEY);
    let key = fs::read(&path).map_err(|source| local(&path, source))?;
    let name = format!("{FOLDER}/{node}.{PUBLIC_KEY}");
    match fetch(store, &store.path(&name)?, key.len() as u64).await? {
        Some(found) if found == key => {}
        Some(_) => return Err(UploadError::Foreign(name)),
        None => {
            store.storage.put(&store.path(&name)?, PutPayload::from(key)).await?;
        }
    }
    let folder = format!("{FOLDER}/{node}.{CHAIN}");
    let there: Vec<_> = store.storage.list(Some(&store.path(&folder)?)).try_collect().await?;
    for object in &there {
        let piece = chain
            .pieces
            .0
            .iter()
            .position(|piece| object.location.filename() == Some(&piece_name(piece.first)));
        let known = piece.and_then(|piece| chain.pieces.0.get_mut(piece));
        match known {
            Some(piece) if object.size <= piece.end - piece.begin => piece.stored = piece.begin + object.size,
            _ => return Err(UploadError::Foreign(object.location.to_string())),
        }
    }
    // One chain's beginning is another's; their last common piece is not.
    if let Some(last) = chain.pieces.0.iter().rfind(|piece| piece.stored > piece.begin) {
        let bytes = chain.bytes(last.begin, last.stored).map_err(|source| local(chain.path(), source))?;
        let name = format!("{folder}/{}", piece_name(last.first));
        if fetch(store, &store.path(&name)?, bytes.len() as u64).await?.is_none_or(|found| found != bytes) {
            return Err(UploadError::Foreign(name));
        }
    }
    Ok(())
}

/// Stores the chain up to `end`, where a line ends.
pub(super) async fn push(
    store: &Store,
    node: &str,
    chain: &mut ChainFile,
    end: u64,
) -> Result<(), UploadError> {
    for index in 0..chain.pieces.0.len() {
        let Some(piece) = chain.pieces.0.get(index) else { break };
        let (begin, until) = (piece.begin, piece.end.min(end));
        if until <= piece.stored {
            continue;
        }
        let name = format!("{FOLDER}/{node}.{CHAIN}/{}", piece_name(piece.first));
        let bytes = chain.bytes(begin, until).map_err(|source| local(chain.path(), source))?;
        let path = store.path(&name)?;
        store.storage.put(&path, PutPayload::from(bytes.clone())).await?;
        if fetch(store, &path, bytes.len() as u64).await?.is_none_or(|found| found != bytes) {
            return Err(UploadError::Different(name));
        }
        if let Some(piece) = chain.pieces.0.get_mut(index) {
            piece.stored = until;
        }
    }
    Ok(())
}

/// A piece begins with the first line that lies this many bytes behind the beginning of the one before.
const PIECE: u64 = 64 << 10;
