//! Where published files are uploaded to. Credentials never stand in the configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::bytes::bytes;
use super::is_safe_url;
use crate::record::node_in_names;
use crate::upload::{Provider, Settings, provider};

/// Where published files are uploaded to, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upload {
    /// Bucket and prefix: `s3://BUCKET/PREFIX`, `gs://…` or `az://…`.
    pub url: String,
    /// The server to speak with, `https://…`, or `http://` of this host itself; none: the provider's own.
    pub endpoint: Option<String>,
    /// The region, where the provider has them; none: what `AWS_REGION` says.
    pub region: Option<String>,
    /// The file with the credentials; none: what the environment or the host's own identity gives.
    pub credentials_file: Option<PathBuf>,
    /// The file with the certificates of the authorities that the server's must be signed by.
    #[serde(default = "authorities")]
    pub ca_file: PathBuf,
    /// Bytes that may pass in a second, both ways together; 0 for as many as can.
    #[serde(default, deserialize_with = "bytes")]
    pub bytes_per_second: u64,
    /// Bytes that may wait before that is called an error; 0 for any number.
    #[serde(default = "backlog", deserialize_with = "bytes")]
    pub backlog_bytes: u64,
    /// Whether each object is read back and compared with its seal before it counts as stored.
    #[serde(default = "yes")]
    pub read_back: bool,
    /// How long an agent that is stopped goes on, until all is stored, in seconds.
    #[serde(default = "drain")]
    pub drain_seconds: u64,
}

impl Upload {
    /// Whether what is set makes sense.
    pub(super) fn check(&self) -> Result<(), String> {
        let (provider, ..) = provider(&self.url).map_err(|wrong| format!("`upload.url` is {wrong}"))?;
        if let Some(endpoint) = self.endpoint.as_deref().filter(|endpoint| !is_safe_url(endpoint)) {
            return Err(format!(
                "`upload.endpoint` is {endpoint:?}; expected https://…, since the record must not travel in clear, or \
                 http://127.0.0.1, http://[::1] or http://localhost"
            ));
        }
        if self.region.is_some() && provider != Provider::S3 {
            return Err(format!("`upload.region` is set, but {} has none; remove it", self.url));
        }
        if self.bytes_per_second != 0 && self.bytes_per_second < SLOWEST {
            return Err(format!(
                "`upload.bytes_per_second` is {}; expected {SLOWEST} at least, or 0 for no limit",
                self.bytes_per_second
            ));
        }
        Ok(())
    }

    /// The same, for the thread that uploads.
    pub fn settings(&self, data_dir: &Path, node: &str) -> Settings {
        let Self { url, endpoint, region, credentials_file, ca_file, read_back, .. } = self.clone();
        let some = |number: u64| (number > 0).then_some(number);
        Settings {
            data_dir: data_dir.to_owned(),
            node: node_in_names(node),
            url,
            endpoint,
            region,
            credentials_file,
            ca_file,
            bytes_per_second: some(self.bytes_per_second),
            backlog_bytes: some(self.backlog_bytes),
            read_back,
            drain: Duration::from_secs(self.drain_seconds),
        }
    }
}

/// Where Debian keeps them.
fn authorities() -> PathBuf {
    PathBuf::from("/etc/ssl/certs/ca-certificates.crt")
}

fn backlog() -> u64 {
    10 << 30
}

fn yes() -> bool {
    true
}

fn drain() -> u64 {
    10
}

/// Less than this does not carry away what a quiet node records.
const SLOWEST: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Upload, String> {
        let upload: Upload = toml::from_str(text).map_err(|error| error.to_string())?;
        upload.check().map(|()| upload)
    }

    #[test]
    fn a_url_is_all_that_is_needed() {
        let upload = parse("url = 's3://records/prod'").unwrap();
        assert!(upload.read_back && upload.backlog_bytes == 10 << 30 && upload.drain_seconds == 10);
        let settings = upload.settings(Path::new("/data"), "db 1");
        assert_eq!((settings.node.as_str(), settings.bytes_per_second), ("db_1", None));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, word) in [
            ("url = '/mnt/bucket'", "s3://BUCKET/PREFIX"),
            ("", "missing field `url`"),
            ("url = 's3://b'\nendpoint = 'http://storage.example'", "in clear"),
            ("url = 'gs://b'\nregion = 'x'", "`upload.region`"),
            ("url = 's3://b'\nbytes_per_second = 10", "`upload.bytes_per_second`"),
            ("url = 's3://b'\naccess_key = 'x'", "unknown field"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        parse("url = 's3://b'\nendpoint = 'http://127.0.0.1:8333'\nregion = 'eu-1'").unwrap();
    }
}
