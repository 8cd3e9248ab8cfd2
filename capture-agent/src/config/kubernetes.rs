//! Where the names of Kubernetes pods are asked for. What is not set is as Kubernetes tells every pod.

use std::path::PathBuf;

use serde::Deserialize;

/// The API server, and how the agent proves itself to it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kubernetes {
    /// Its address; none: that of the cluster in which the agent runs.
    pub api: Option<String>,
    /// The file with the service account's token.
    pub token_file: PathBuf,
    /// The file with the certificate of the cluster's authority.
    pub ca_file: PathBuf,
    /// This host's name in the cluster; none: what the environment variable `NODE_NAME` says, else `node`.
    pub node_name: Option<String>,
}

impl Kubernetes {
    /// Whether what is set makes sense.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.api.as_deref() {
            Some(api) if !api.starts_with("https://") => Err(format!(
                "`kubernetes.api` is {api:?}; expected https://HOST:PORT, since the token must not travel in clear"
            )),
            _ => Ok(()),
        }
    }

    /// The API server's address, set or found in the environment that Kubernetes gives every container.
    pub fn address(&self, environment: impl Fn(&str) -> Option<String>) -> Option<String> {
        self.api.clone().or_else(|| {
            let host = environment("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty())?;
            let port = environment("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".into());
            Some(if host.contains(':') {
                format!("https://[{host}]:{port}")
            } else {
                format!("https://{host}:{port}")
            })
        })
    }
}

impl Default for Kubernetes {
    fn default() -> Self {
        let account = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount");
        Self {
            api: None,
            token_file: account.join("token"),
            ca_file: account.join("ca.crt"),
            node_name: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_of_the_agent_is_the_default() {
        let environment = |host: &'static str| {
            move |name: &str| match name {
                "KUBERNETES_SERVICE_HOST" => Some(host.to_owned()),
                "KUBERNETES_SERVICE_PORT" => Some("6443".to_owned()),
                _ => None,
            }
        };
        let kubernetes = Kubernetes::default();
        assert_eq!(kubernetes.address(environment("10.0.0.1")).as_deref(), Some("https://10.0.0.1:6443"));
        assert_eq!(kubernetes.address(environment("fd00::1")).as_deref(), Some("https://[fd00::1]:6443"));
        assert_eq!(kubernetes.address(|_| None), None);
        let set = Kubernetes { api: Some("https://api".into()), ..kubernetes };
        assert_eq!(set.address(environment("10.0.0.1")).as_deref(), Some("https://api"));
    }
}
