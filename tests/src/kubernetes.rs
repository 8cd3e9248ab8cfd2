//! A cluster's API server that knows the pods that a test tells it, and is in the mood that a test wants: the program
//! `clients/api_server.py`, gone when this goes out of scope.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{certificates, clients};

/// A running API server.
#[derive(Debug)]
pub struct ApiServer {
    folder: tempfile::TempDir,
    process: Child,
    port: u16,
}

/// A request that it got.
#[derive(Clone, Debug, Deserialize)]
pub struct Request {
    /// The path, with the query.
    pub path: String,
    /// The header `Authorization`.
    pub token: Option<String>,
    /// The mood that it met.
    pub mood: String,
}

impl ApiServer {
    /// Starts one that knows no pod, takes the token `first token`, and is in good mood.
    ///
    /// # Errors
    /// Python or openssl is missing.
    pub fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("capture-api-").tempdir()?;
        certificates::make(folder.path())?;
        fs::write(folder.path().join("mood"), "good")?;
        fs::write(folder.path().join("token"), "first token\n")?;
        fs::write(folder.path().join("pods.json"), pod_list(&[]).to_string())?;
        let mut command = clients::command("api_server.py")?;
        let mut process = command.arg(folder.path()).stdout(Stdio::piped()).spawn()?;
        let mut said = String::new();
        BufReader::new(process.stdout.take().context("no stdout")?).read_line(&mut said)?;
        let port = said.trim().parse().with_context(|| format!("api_server.py said {said:?}"))?;
        Ok(Self { folder, process, port })
    }

    /// What the agent's configuration says of it, for the node `node-a`.
    pub fn config(&self) -> String {
        self.config_with("ca.crt")
    }

    /// The same, with another authority, which has not signed this server's certificate.
    pub fn config_with_another_authority(&self) -> String {
        self.config_with("other.crt")
    }

    fn config_with(&self, authority: &str) -> String {
        let (port, folder) = (self.port, self.folder.path().display());
        format!(
            "kubernetes = {{ api = 'https://127.0.0.1:{port}', token_file = '{folder}/token', \
             ca_file = '{folder}/{authority}', node_name = 'node-a' }}"
        )
    }

    /// From now on it is in this mood: `good`, or one of those in which it does not answer as it should.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_mood(&self, mood: &str) -> anyhow::Result<()> {
        self.replace("mood", mood)
    }

    /// From now on it takes this token only, and the service account has it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_token(&self, token: &str) -> anyhow::Result<()> {
        self.replace("token", token)
    }

    /// These are the pods of the node: UID, namespace and name of each.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_pods(&self, pods: &[[&str; 3]]) -> anyhow::Result<()> {
        self.replace("pods.json", &pod_list(pods).to_string())
    }

    /// Every request so far.
    ///
    /// # Errors
    /// The file holds something else.
    pub fn requests(&self) -> anyhow::Result<Vec<Request>> {
        let text = fs::read_to_string(self.folder.path().join("requests")).unwrap_or_default();
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    fn replace(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let new = self.folder.path().join("new");
        fs::write(&new, text)?;
        Ok(fs::rename(new, self.folder.path().join(name))?)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// As `kubectl get --raw /api/v1/pods` prints it, for pods that a StatefulSet made.
fn pod_list(pods: &[[&str; 3]]) -> Value {
    let pod = |[uid, namespace, name]: &[&str; 3]| {
        json!({
            "metadata": {
                "name": name, "generateName": "orders-db-", "namespace": namespace, "uid": uid,
                "resourceVersion": "481516", "creationTimestamp": "2026-01-02T03:04:05Z",
                "labels": {"app": "orders-db", "statefulset.kubernetes.io/pod-name": name},
                "annotations": {"cni.projectcalico.org/podIP": "10.244.1.7/32"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "orders-db",
                                     "uid": "0d3f0a52-0000-4000-8000-000000000001", "controller": true}],
            },
            "spec": {"nodeName": "node-a", "containers": [{"name": "postgres", "image": "postgres:18"}]},
            "status": {"phase": "Running", "podIP": "10.244.1.7", "qosClass": "Burstable"},
        })
    };
    json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "481520"},
        "items": pods.iter().map(pod).collect::<Vec<_>>(),
    })
}
