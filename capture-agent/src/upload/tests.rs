//! The whole of it, but for the network: what is stored, in which order, and what is left after an end in the middle.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use futures_util::TryStreamExt as _;
use object_store::memory::InMemory;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutPayload};
use tempfile::TempDir;
use tokio::sync::watch;

use super::put::PART;
use super::store::Store;
use super::work::Work;
use super::{Backlog, Settings, UploadError};
use crate::seal::{self, Chain, Contents, SigningKey, What, hash, hex};

/// A data directory with a chain, and a storage.
struct Node {
    folder: TempDir,
    storage: Arc<InMemory>,
    chain: Chain,
}

impl Node {
    fn new() -> Self {
        Self::with(Arc::new(InMemory::new()))
    }

    fn with(storage: Arc<InMemory>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::open(&folder.path().join("key")).unwrap();
        let chain = Chain::open(&folder.path().join(seal::FOLDER), "node", "node", key, None).unwrap();
        Self { folder, storage, chain }
    }

    fn seal(&mut self, file: &str, bytes: &[u8]) {
        let contents = Contents {
            file: file.to_owned(),
            sha256: hex(&hash(bytes)),
            bytes: bytes.len() as u64,
            ..Contents::default()
        };
        self.chain.append(What::File(contents)).unwrap();
    }

    fn publish(&mut self, file: &str, bytes: &[u8]) {
        self.seal(file, bytes);
        let path = self.folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn work(&self) -> Work {
        self.limited(None, 1).0
    }

    /// With a limit for what waits, and what is said of it, of which so much has room.
    fn limited(&self, backlog_bytes: Option<u64>, room: usize) -> (Work, Receiver<Backlog>) {
        let settings = Settings {
            data_dir: self.folder.path().to_owned(),
            node: "node".into(),
            url: "s3://bucket/fleet".into(),
            endpoint: None,
            region: None,
            credentials_file: None,
            ca_file: "/none".into(),
            bytes_per_second: None,
            backlog_bytes,
            read_back: true,
            drain: std::time::Duration::ZERO,
        };
        let (_, stop) = watch::channel(false);
        let (declare, backlogs) = sync_channel(room);
        (Work::with_store(settings, stop, declare, Store::new(self.storage.clone(), "fleet")), backlogs)
    }

    async fn stored(&self) -> Vec<String> {
        let objects: Vec<_> = self.storage.list(None).try_collect().await.unwrap();
        let mut names: Vec<_> = objects.into_iter().map(|object| object.location.to_string()).collect();
        names.sort();
        names
    }

    async fn object(&self, name: &str) -> Vec<u8> {
        self.storage.get(&name.into()).await.unwrap().bytes().await.unwrap().to_vec()
    }

    /// What the storage holds, as a data directory.
    async fn download(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in self.stored().await {
            let path = folder.path().join(name.strip_prefix("fleet/").unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, self.object(&name).await).unwrap();
        }
        folder
    }

    fn confirmed(&self) -> usize {
        let list = fs::read_to_string(self.folder.path().join(".uploaded-node.jsonl")).unwrap_or_default();
        list.lines().count()
    }
}

fn findings(data_dir: &Path) -> Vec<seal::Finding> {
    let request = seal::Request { data_dir: data_dir.to_owned(), ..seal::Request::default() };
    seal::verify(&request, |_, _| {}).unwrap().findings
}

#[tokio::test]
async fn what_is_stored_is_a_record_that_verifies_also_when_the_chain_has_many_pieces() {
    let mut node = Node::new();
    let mut work = node.work();
    work.round().await.unwrap();
    assert!(node.stored().await.is_empty());
    for n in 0..400 {
        node.publish(&format!("statements/date=2026-11-27/node-{n:04}.parquet"), &[n as u8; 100]);
        if n % 90 == 0 {
            work.round().await.unwrap();
            assert!(findings(node.download().await.path()).is_empty());
        }
    }
    work.round().await.unwrap();
    let pieces = node.stored().await.iter().filter(|name| name.contains("node.jsonl/")).count();
    assert!(pieces > 2, "{pieces} pieces");
    let copy = node.download().await;
    assert_eq!(findings(copy.path()), []);
    assert_eq!(node.confirmed(), 400);
    fs::remove_file(copy.path().join("statements/date=2026-11-27/node-0007.parquet")).unwrap();
    assert_eq!(findings(copy.path()).len(), 1);
}

#[tokio::test]
async fn the_next_agent_goes_on_behind_what_is_stored_and_repairs_what_is_not() {
    let mut node = Node::new();
    node.publish("statements/a.parquet", b"a");
    node.work().round().await.unwrap();
    node.publish("statements/b.parquet", b"bb");
    // An agent died after the one and before the other; of the one it had noted nothing.
    node.storage.put(&"fleet/statements/b.parquet".into(), PutPayload::from_static(b"bb")).await.unwrap();
    node.publish("statements/c.parquet", b"ccc");
    node.storage.put(&"fleet/statements/c.parquet".into(), PutPayload::from_static(b"half")).await.unwrap();
    // Nobody looks at what is confirmed.
    fs::remove_file(node.folder.path().join("statements/a.parquet")).unwrap();
    node.work().round().await.unwrap();
    assert_eq!(node.object("fleet/statements/c.parquet").await, b"ccc");
    assert_eq!(findings(node.download().await.path()), []);
    assert_eq!(node.confirmed(), 3);
    // Without the list all is looked at, and nothing is lost.
    fs::remove_file(node.folder.path().join(".uploaded-node.jsonl")).unwrap();
    node.work().round().await.unwrap();
    assert_eq!(node.confirmed(), 3);
}

#[tokio::test]
async fn a_large_file_goes_in_parts_and_parts_that_were_left_are_ended() {
    let mut node = Node::new();
    let large: Vec<u8> = (0..2 * PART + 17).map(|n| (n % 251) as u8).collect();
    node.publish("results/large.parquet", &large);
    let note = node.folder.path().join(".uploading-node.json");
    fs::write(&note, "{\"object\":\"fleet/results/old.parquet\",\"upload\":\"0\"}").unwrap();
    node.work().round().await.unwrap();
    assert_eq!(node.object("fleet/results/large.parquet").await, large);
    assert!(!note.exists());
}

#[tokio::test]
async fn what_is_not_what_was_sealed_is_not_stored_and_keeps_nothing_else_from_it() {
    let mut node = Node::new();
    node.publish("statements/changed.parquet", b"as sealed");
    fs::write(node.folder.path().join("statements/changed.parquet"), b"otherwise").unwrap();
    node.seal("statements/gone.parquet", b"gone");
    node.seal("statements/withdrawn.parquet", b"withdrawn");
    node.chain.append(What::Withdrawn { file: "statements/withdrawn.parquet".into() }).unwrap();
    node.publish("statements/good.parquet", b"good");
    node.seal("statements/next.parquet", b"has no name yet");
    let mut work = node.work();
    work.round().await.unwrap();
    let files: Vec<_> = node.stored().await.into_iter().filter(|name| name.ends_with(".parquet")).collect();
    assert_eq!(files, ["fleet/statements/good.parquet"]);
    fs::write(node.folder.path().join("statements/next.parquet"), b"has no name yet").unwrap();
    work.round().await.unwrap();
    assert_eq!(node.object("fleet/statements/next.parquet").await, b"has no name yet");
    let words: Vec<_> = findings(node.download().await.path()).iter().map(ToString::to_string).collect();
    assert!(words.len() == 2 && words.iter().all(|finding| finding.starts_with("removed")), "{words:?}");
}

#[tokio::test]
async fn a_place_of_another_chain_is_left_alone() {
    let mut first = Node::new();
    first.publish("statements/a.parquet", b"a");
    first.work().round().await.unwrap();
    let mut second = Node::with(first.storage.clone());
    second.publish("statements/b.parquet", b"b");
    let error = second.work().round().await.unwrap_err();
    assert!(matches!(error, UploadError::Foreign(_)), "{error}");
    assert_eq!(findings(first.download().await.path()), []);
}

#[tokio::test]
async fn a_seal_that_the_recorder_took_back_is_forgotten() {
    let mut node = Node::new();
    node.publish("statements/a.parquet", b"a");
    let chain = node.folder.path().join("seals/node.jsonl");
    let length = fs::metadata(&chain).unwrap().len();
    let before = fs::read(&chain).unwrap();
    node.seal("statements/b.parquet", b"b");
    let mut work = node.work();
    work.round().await.unwrap();
    fs::write(&chain, &before).unwrap();
    assert_eq!(fs::metadata(&chain).unwrap().len(), length);
    let key = SigningKey::open(&node.folder.path().join("key")).unwrap();
    node.chain = Chain::open(&node.folder.path().join("seals"), "node", "node", key, None).unwrap();
    node.publish("statements/c.parquet", b"c");
    work.round().await.unwrap();
    assert_eq!(findings(node.download().await.path()), []);
}

#[tokio::test]
async fn a_backlog_is_declared_once_when_it_is_too_much_and_once_when_it_is_not() {
    let mut node = Node::new();
    for n in 0..4 {
        node.publish(&format!("statements/{n}.parquet"), &[n; 100]);
    }
    let (mut work, backlogs) = node.limited(Some(250), 2);
    work.round().await.unwrap();
    let said: Vec<_> = backlogs.try_iter().collect();
    let over = Backlog { over: true, files: 4, bytes: 400, limit: 250 };
    let under = Backlog { over: false, files: 2, bytes: 200, limit: 250 };
    assert_eq!(said, [over, under]);
    node.publish("statements/4.parquet", &[4; 100]);
    work.round().await.unwrap();
    assert_eq!(backlogs.try_iter().count(), 0);
}

#[tokio::test]
async fn a_backlog_that_nobody_has_time_to_hear_of_is_declared_later() {
    let mut node = Node::new();
    for n in 0..4 {
        node.publish(&format!("statements/{n}.parquet"), &[n; 100]);
    }
    let (mut work, backlogs) = node.limited(Some(250), 1);
    work.round().await.unwrap();
    assert!(backlogs.try_iter().map(|backlog| backlog.over).eq([true]));
    // Less waits again since then, which had no room.
    work.round().await.unwrap();
    assert!(backlogs.try_iter().map(|backlog| backlog.over).eq([false]));
}
