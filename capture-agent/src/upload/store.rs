//! The storage that the configuration names.

use std::str::FromStr;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::credentials::{self, CredentialsError};
use super::http::Speaker;
use super::pace::Pace;
use super::{Settings, UploadError};

/// What is needed of a storage.
pub(super) trait Storage: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Storage for T {}

/// A storage, and where in it this record lies.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) storage: Arc<dyn Storage>,
    prefix: String,
    pub(super) pace: Pace,
}

/// Whose storage it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// S3, or what speaks like it.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

/// Whose storage a url names, its bucket, and the prefix in it.
///
/// # Errors
///
/// What was expected.
pub fn provider(url: &str) -> Result<(Provider, &str, &str), String> {
    let wrong =
        || format!("{url:?}; expected s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX");
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let provider = match scheme {
        "s3" => Provider::S3,
        "gs" => Provider::Google,
        "az" => Provider::Azure,
        _ => return Err(wrong()),
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "._-=/".contains(c));
    let prefix = prefix.trim_end_matches('/');
    let parts = prefix.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if bucket.is_empty() || !plain(bucket) || !plain(prefix) || !(prefix.is_empty() || parts) {
        return Err(wrong());
    }
    Ok((provider, bucket, prefix))
}

/// Opens the storage with the credentials as they are now. Nothing is asked of it yet.
pub(super) fn open(settings: &Settings) -> Result<Store, UploadError> {
    let pace = Pace::new(settings.bytes_per_second);
    let speaker = Speaker::new(&settings.ca_file, pace.clone())?;
    // Failures are dealt with in one place, which counts and logs them.
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    // The configuration's check lets it be this host only. What the environment says does not count.
    let clear = settings.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let options = ClientOptions::new().with_allow_http(clear);
    let parse_failed = |text: String| object_store::Error::Generic { store: "url", source: text.into() };
    let (provider, bucket, prefix) = provider(&settings.url).map_err(parse_failed)?;
    let storage: Arc<dyn Storage> = match provider {
        Provider::S3 => {
            let mut builder =
                with_credentials(settings, AmazonS3Builder::from_env(), AmazonS3Builder::with_config)?
                    .with_bucket_name(bucket)
                    .with_client_options(options)
                    .with_retry(retry)
                    .with_http_connector(speaker)
                    .with_checksum_algorithm(Checksum::SHA256);
            if let Some(endpoint) = &settings.endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            if let Some(region) = &settings.region {
                builder = builder.with_region(region);
            }
            Arc::new(builder.build()?)
        }
        Provider::Google => {
            let mut builder = with_credentials(
                settings,
                GoogleCloudStorageBuilder::from_env(),
                GoogleCloudStorageBuilder::with_config,
            )?
            .with_bucket_name(bucket)
            .with_client_options(options)
            .with_retry(retry)
            .with_http_connector(speaker);
            if let Some(endpoint) = &settings.endpoint {
                builder = builder.with_base_url(endpoint);
            }
            Arc::new(builder.build()?)
        }
        Provider::Azure => {
            let mut builder = with_credentials(
                settings,
                MicrosoftAzureBuilder::from_env(),
                MicrosoftAzureBuilder::with_config,
            )?
            .with_container_name(bucket)
            .with_client_options(options)
            .with_retry(retry)
            .with_http_connector(speaker);
            if let Some(endpoint) = &settings.endpoint {
                builder = builder.with_endpoint(endpoint.clone());
            }
            Arc::new(builder.build()?)
        }
    };
    Ok(Store { storage, prefix: prefix.to_owned(), pace })
}

/// A builder with what the file of credentials says.
fn with_credentials<B, K: FromStr>(
    settings: &Settings,
    mut builder: B,
    with: impl Fn(B, K, String) -> B,
) -> Result<B, CredentialsError> {
    let Some(path) = &settings.credentials_file else { return Ok(builder) };
    for (line, name, value) in credentials::read(path)? {
        let key = name.parse().map_err(|_| CredentialsError::Line {
            path: path.clone(),
            line,
            wrong: format!("{name} means nothing for {}", settings.url),
        })?;
        builder = with(builder, key, value);
    }
    Ok(builder)
}

impl Store {
    #[cfg(test)]
    pub(super) fn new(storage: Arc<dyn Storage>, prefix: &str) -> Self {
        Self { storage, prefix: prefix.to_owned(), pace: Pace::new(None) }
    }

    /// Where a file of the data directory lies.
    pub(super) fn path(&self, file: &str) -> Result<Path, object_store::Error> {
        let whole = if self.prefix.is_empty() { file.to_owned() } else { format!("{}/{file}", self.prefix) };
        Ok(Path::parse(whole)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_provider_bucket_and_prefix() {
        assert_eq!(provider("s3://records/prod/eu/"), Ok((Provider::S3, "records", "prod/eu")));
        assert_eq!(provider("gs://records"), Ok((Provider::Google, "records", "")));
        assert_eq!(provider("az://records/a"), Ok((Provider::Azure, "records", "a")));
        for wrong in [
            "records",
            "s3://",
            "s3:///a",
            "ftp://a/b",
            "s3://a/../b",
            "s3://a//b",
            "s3://a/b c",
            "s3://u:p@a/b",
        ] {
            assert!(provider(wrong).is_err(), "{wrong}");
        }
    }
}
