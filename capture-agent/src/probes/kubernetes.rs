//! The API server of Kubernetes: one request, for the pods of this node.
//!
//! [List Pods](https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#list-list-or-watch-objects-of-kind-pod-1),
//! of which only the metadata is asked for
//! ([PartialObjectMetadataList](https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches)).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::container::Pod;

/// Where the pods of this node are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodList {
    /// The API server's address, `https://…`.
    pub api: String,
    /// The file that holds the service account's token. It is replaced now and then, so it is read for each request.
    pub token_file: PathBuf,
    /// The file that holds the certificates of the authority that the API server's must be signed by.
    pub ca_file: PathBuf,
    /// This node's name in the cluster.
    pub node_name: String,
}

/// Why the pods are not known.
#[derive(Debug, Error)]
pub enum KubernetesError {
    /// The token or the authority's certificate cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The authority's file holds something else.
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// There was no answer, or one that is no list of pods.
    #[error("{api}: {source}")]
    Refused {
        /// The API server.
        api: String,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
}

impl PodList {
    /// Asks the API server. Yields the names by the UIDs that control groups carry.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or there is no answer in time, or one that is no list of pods.
    pub fn fetch(&self) -> Result<HashMap<String, Pod>, KubernetesError> {
        let unreadable = |path: &PathBuf| {
            let path = path.clone();
            |source| KubernetesError::Unreadable { path, source }
        };
        let token = std::fs::read_to_string(&self.token_file).map_err(unreadable(&self.token_file))?;
        let pem = std::fs::read(&self.ca_file).map_err(unreadable(&self.ca_file))?;
        let trusted: Vec<_> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if trusted.is_empty() {
            return Err(KubernetesError::NoCertificate(self.ca_file.clone()));
        }
        let refused = |source| KubernetesError::Refused { api: self.api.clone(), source: Box::new(source) };
        let objects: Objects = client(RootCerts::from(trusted))
            .get(format!("{}/api/v1/pods", self.api.trim_end_matches('/')))
            .query("fieldSelector", format!("spec.nodeName={}", self.node_name))
            .header("Authorization", format!("Bearer {}", token.trim()))
            .header("Accept", ACCEPT)
            .call()
            .and_then(|mut answer| answer.body_mut().with_config().limit(LONGEST_ANSWER).read_json())
            .map_err(refused)?;
        Ok(objects.items.into_iter().flat_map(|Object { metadata }| metadata.names()).collect())
    }
}

/// A client for one request: the API server's address and authority may have changed by the next.
fn client(trusted: RootCerts) -> ureq::Agent {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(trusted)
        .build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        // The token goes to the API server and to nobody else.
        .https_only(true)
        .proxy(None)
        .max_redirects(0)
        .timeout_global(Some(PATIENCE))
        .build()
        .new_agent()
}

/// A `PodList` or a `PartialObjectMetadataList`.
#[derive(Deserialize)]
struct Objects {
    items: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

impl Metadata {
    /// By the pod's UID; and by that under which kubelet started it, if it found it in a file: the API server's pod of that
    /// name is only its mirror.
    fn names(mut self) -> impl Iterator<Item = (String, Pod)> {
        let file = self.annotations.remove(CONFIG_HASH);
        let pod = Pod { name: self.name, namespace: self.namespace };
        [Some(self.uid), file].into_iter().flatten().map(move |uid| (uid, pod.clone()))
    }
}

/// `ConfigHashAnnotationKey` in `pkg/kubelet/types`.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
const ACCEPT: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io, application/json";
/// A node has a few hundred pods at most, each with some kilobytes.
const LONGEST_ANSWER: u64 = 16 << 20;
/// The API server answers in milliseconds, or it is in trouble.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_by_its_uid_and_a_static_one_by_its_files() {
        let text = r#"{"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": [
            {"metadata": {"name": "db-0", "namespace": "shop", "uid": "a", "labels": {"app": "db"}}, "spec": {}},
            {"metadata": {"name": "etcd-n", "namespace": "kube-system", "uid": "b",
                          "annotations": {"kubernetes.io/config.hash": "c", "kubernetes.io/config.source": "file"}}}]}"#;
        let objects: Objects = serde_json::from_str(text).unwrap();
        let mut names: Vec<_> =
            objects.items.into_iter().flat_map(|object| object.metadata.names()).collect();
        names.sort_by(|one, two| one.0.cmp(&two.0));
        let pod = |name: &str, namespace: &str| Pod { name: name.into(), namespace: namespace.into() };
        let etcd = pod("etcd-n", "kube-system");
        assert_eq!(
            names,
            [("a".into(), pod("db-0", "shop")), ("b".into(), etcd.clone()), ("c".into(), etcd)]
        );
        assert!(serde_json::from_str::<Objects>(r#"{"kind": "Status", "code": 403}"#).is_err());
    }
}
