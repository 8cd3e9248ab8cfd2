//! How the storage is spoken with: TLS by rustls with ring and the configured authorities, bytes at the configured pace, and a
//! deadline for each request that its size gives.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::CONTENT_LENGTH;
use async_trait::async_trait;
use futures_util::{Stream, stream};
use http_body_util::{BodyExt as _, StreamBody};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
    HttpResponseBody, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::{Body, Client, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::UploadError;
use super::pace::Pace;

/// Speaks for an object store.
#[derive(Clone, Debug)]
pub(super) struct Speaker {
    client: Client,
    pace: Pace,
    /// Whether what it says may travel in clear.
    clear: bool,
}

impl Speaker {
    /// One that trusts the authorities in `ca_file`. The file need not be there as long as no server asks for it.
    pub(super) fn new(ca_file: &Path, pace: Pace) -> Result<Self, UploadError> {
        let mut roots = RootCertStore::empty();
        match CertificateDer::pem_file_iter(ca_file) {
            Ok(found) => {
                roots.add_parsable_certificates(found.filter_map(Result::ok));
            }
            Err(error) => tracing::debug!(file = %ca_file.display(), %error, "no authorities are trusted"),
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| other(error.into()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .use_preconfigured_tls(tls)
            .connect_timeout(CONNECT)
            // The record goes to this address and to nobody else.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| other(error.into()))?;
        Ok(Self { client, pace, clear: false })
    }
}

fn other(source: Box<dyn std::error::Error + Send + Sync>) -> UploadError {
    object_store::Error::Generic { store: "TLS", source }.into()
}

impl HttpConnector for Speaker {
    /// For the storage, or for the host's own source of credentials, which often speaks in clear.
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let clear =
            options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        Ok(HttpClient::new(Self { clear, ..self.clone() }))
    }
}

#[async_trait]
impl HttpService for Speaker {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (mut parts, body) = request.into_parts();
        if !self.clear && parts.uri.scheme_str() != Some("https") {
            let refused = io::Error::other("the endpoint is no https address; see `upload.endpoint`");
            return Err(HttpError::new(HttpErrorKind::Unknown, refused));
        }
        let bytes = body.content_length() as u64;
        let patience = PATIENCE
            + Duration::from_secs(bytes / SLOWEST)
            + self.pace.time(bytes).map_or(Duration::ZERO, |time| 2 * time);
        let body = match body.as_bytes() {
            Some(small) => Body::from(small.clone()),
            None => {
                // S3 takes no body whose length is not said before it.
                parts.headers.entry(CONTENT_LENGTH).or_insert_with(|| bytes.into());
                Body::wrap_stream(paced(body, self.pace.clone()))
            }
        };
        let url = parts.uri.to_string();
        let request = self.client.request(parts.method, url).headers(parts.headers).body(body);
        match tokio::time::timeout(patience, request.send()).await {
            Ok(Ok(response)) => {
                let response: ::http::Response<Body> = response.into();
                let (parts, body) = response.into_parts();
                Ok(HttpResponse::from_parts(parts, prompt(body)))
            }
            Ok(Err(error)) => Err(failed(error)),
            Err(late) => Err(HttpError::new(HttpErrorKind::Timeout, late)),
        }
    }
}

fn failed(error: reqwest::Error) -> HttpError {
    let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
    // What the address says is known, and it may hold what shall not be logged.
    HttpError::new(kind, error.without_url())
}

/// The same body, each piece when it may pass.
fn paced(body: HttpRequestBody, pace: Pace) -> impl Stream<Item = Result<bytes::Bytes, HttpError>> {
    stream::unfold((body, pace), |(mut body, pace)| async move {
        loop {
            match body.frame().await? {
                Ok(frame) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    pace.pass(bytes.len()).await;
                    return Some((Ok(bytes), (body, pace)));
                }
                Err(error) => return Some((Err(error), (body, pace))),
            }
        }
    })
}

/// An answer's body, of which each piece comes in time, or none does any more: also that of an error, which nobody else
/// looks after.
fn prompt(body: Body) -> HttpResponseBody {
    HttpResponseBody::new(StreamBody::new(stream::unfold(body, |mut body| async move {
        let frame = match tokio::time::timeout(PATIENCE, body.frame()).await {
            Ok(frame) => frame?.map_err(failed),
            Err(late) => Err(HttpError::new(HttpErrorKind::Timeout, late)),
        };
        Some((frame, body))
    })))
}

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take, and each piece of it; and what a server must take in a second beyond that.
const PATIENCE: Duration = Duration::from_secs(30);
const SLOWEST: u64 = 32 << 10;
