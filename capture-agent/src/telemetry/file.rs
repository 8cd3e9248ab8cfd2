//! Metrics in a file, for node_exporter's textfile collector.
//!
//! Written among the tasks of the main thread, on a thread for what waits: a file that is replaced may have to wait for the
//! disk to free its blocks, and the thread that captures must not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::watch::Receiver;

use super::metrics;

/// Writes the metrics to `path` whenever `fresh` says that there are new ones, and once more when its sender is gone.
pub async fn keep(path: PathBuf, mut fresh: Receiver<()>) {
    loop {
        let over = fresh.changed().await.is_err();
        let path = path.clone();
        // It does not panic.
        let _ = tokio::task::spawn_blocking(move || write(&path)).await;
        if over {
            return;
        }
    }
}

fn write(path: &Path) {
    if let Err(error) = replace(path, &metrics::render()) {
        tracing::warn!(path = %path.display(), %error, "cannot write the metrics");
    }
}

/// Replaces the file as a whole: whoever reads it finds all of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("capture.prom");
        replace(&path, "first, and longer").unwrap();
        let reader = fs::File::open(&path).unwrap();
        replace(&path, "second").unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), "first, and longer");
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn it_is_written_when_there_is_news_and_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("capture.prom");
        let (fresh, news) = tokio::sync::watch::channel(());
        let kept = tokio::spawn(keep(path.clone(), news));
        fresh.send_replace(());
        while !path.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        fs::write(&path, "").unwrap();
        drop(fresh);
        kept.await.unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("capture_kernel_events_total"));
    }
}
