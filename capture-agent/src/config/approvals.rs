//! Who decides about statements that wait, and how they are told.

use std::path::PathBuf;

use serde::Deserialize;

use super::is_safe_url;
use crate::approvals::{Destination, group_id};

/// Who decides about statements that wait, and how they are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Approvals {
    /// A group of the host whose members may decide, beside root.
    pub group: Option<String>,
    /// Where notices of statements that wait, and of those that guardrails with `alert` caught, are sent.
    pub webhook: Option<Webhook>,
}

/// Where notices are sent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// The address, `https://…`; or `http://` of this host itself.
    pub url: String,
    /// The file with the secret that signs them.
    pub secret_file: PathBuf,
    /// The file with the certificates of the authorities that the address's must be signed by.
    #[serde(default = "authorities")]
    pub ca_file: PathBuf,
    /// Whether they have the statements' texts and parameters.
    #[serde(default = "yes")]
    pub texts: bool,
}

/// The group that may decide is none of the host's.
#[derive(Debug, thiserror::Error)]
#[error("`approvals.group` is {0:?}, but /etc/group has no such group (see docs/errors.md#approvals-group)")]
pub struct NoGroup(String);

impl Webhook {
    /// The same, for the thread that sends.
    pub fn destination(&self) -> Destination {
        let Self { url, secret_file, ca_file, texts } = self.clone();
        Destination { url, secret_file, ca_file, texts }
    }
}

impl Approvals {
    /// The id of the group whose members may decide, if one is named.
    ///
    /// # Errors
    ///
    /// The host has no such group.
    pub fn group_id(&self) -> Result<Option<u32>, NoGroup> {
        let Some(group) = &self.group else { return Ok(None) };
        group_id(group).map(Some).ok_or_else(|| NoGroup(group.clone()))
    }

    /// Whether what is set makes sense.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.group.as_deref() {
            Some(group) if group.is_empty() || group.contains([':', '\n', '\0']) => {
                return Err(format!(
                    "`approvals.group` is {group:?}; expected the name of a group in /etc/group"
                ));
            }
            _ => {}
        }
        match &self.webhook {
            Some(Webhook { url, .. }) if !is_safe_url(url) => Err(format!(
                "`approvals.webhook.url` is {url:?}; expected https://…, since statements must not travel in clear, or \
                 http://127.0.0.1, http://[::1] or http://localhost"
            )),
            _ => Ok(()),
        }
    }
}

/// Where Debian keeps them.
pub(super) fn authorities() -> PathBuf {
    PathBuf::from("/etc/ssl/certs/ca-certificates.crt")
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_a_name() {
        let approvals = |group: &str| Approvals { group: Some(group.to_owned()), webhook: None };
        assert_eq!(Approvals::default().check(), Ok(()));
        assert_eq!(approvals("dba").check(), Ok(()));
        assert_eq!(approvals("root").group_id().unwrap(), Some(0));
        assert_eq!(Approvals::default().group_id().unwrap(), None);
        let error = approvals("no such group").group_id().unwrap_err().to_string();
        assert!(error.contains("no such group") && error.contains("#approvals-group"), "{error}");
        for wrong in ["", "a:b", "a\nb"] {
            assert!(approvals(wrong).check().unwrap_err().contains("/etc/group"));
        }
    }

    #[test]
    fn statements_do_not_travel_in_clear() {
        for url in ["https://hooks.example/x", "http://127.0.0.1:80/x", "http://localhost", "http://[::1]/"] {
            assert!(is_safe_url(url), "{url}");
        }
        let others =
            ["http://10.0.0.1/", "http://127.0.0.1.example/", "http://localhost:1@example/", "ftp://x", ""];
        for url in others {
            assert!(!is_safe_url(url), "{url}");
        }
        let text = "webhook = { url = 'https://x/', secret_file = '/etc/capture/secret' }";
        let approvals: Approvals = toml::from_str(text).unwrap();
        let webhook = approvals.webhook.unwrap();
        assert!(webhook.texts && webhook.ca_file == authorities());
        assert!(toml::from_str::<Approvals>("webhook = { url = 'https://x/' }").is_err());
    }
}
