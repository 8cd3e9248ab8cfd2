//! Who elsewhere is told of statements and verdicts: `[[events]]`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::bytes::bytes;
use super::is_safe_url;
use crate::events::{Receiver, Syslog, To, Transport, What};
use crate::policy::Filter;

/// A receiver of events.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// Its name, and that of its spool; what `to` says if none.
    pub name: Option<String>,
    /// How it is reached.
    pub to: Kind,
    /// What it is told.
    pub what: Vec<Told>,
    /// Of which sessions and statements: a condition in CEL; all if none.
    #[serde(rename = "match")]
    pub matching: Option<String>,
    /// Of the kind `file`: the file.
    pub path: Option<PathBuf>,
    /// Of the kind `syslog`: `tls://HOST:PORT`, or `tcp://` to this host itself.
    pub address: Option<String>,
    /// Of the kind `webhook`: `https://…`, or `http://` to this host itself.
    pub url: Option<String>,
    /// Of the kind `webhook`: the file with the secret that signs.
    pub secret_file: Option<PathBuf>,
    /// The file with the certificates of the authorities that the receiver's must be signed by.
    #[serde(default = "super::approvals::authorities")]
    pub ca_file: PathBuf,
    /// Of the kind `syslog`: the agent's own certificate, if the server asks for one.
    pub certificate_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// Bytes of a statement's text that are told; 0 for none.
    #[serde(default = "sql_bytes", deserialize_with = "bytes")]
    pub sql_bytes: usize,
    /// Bytes of events that wait for the receiver, before the oldest are dropped.
    #[serde(default = "spool_bytes", deserialize_with = "bytes")]
    pub spool_bytes: u64,
    /// Events that are sent at once.
    #[serde(default = "batch_events")]
    pub batch_events: usize,
    /// The pause after a failure, in milliseconds, and the longest to which it grows.
    #[serde(default = "retry_ms")]
    pub retry_ms: (u64, u64),
}

/// How a receiver is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A file to which lines are appended.
    File,
    /// A syslog server.
    Syslog,
    /// An address that takes POSTs.
    Webhook,
}

/// What receivers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    /// Statements.
    Activity,
    /// Verdicts of guardrails.
    Findings,
}

impl Events {
    /// The receiver's name.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(match self.to {
            Kind::File => "file",
            Kind::Syslog => "syslog",
            Kind::Webhook => "webhook",
        })
    }

    /// The same, for the threads that tell it.
    ///
    /// # Errors
    ///
    /// What is set makes no sense: in words.
    pub fn receiver(&self) -> Result<Receiver, String> {
        let name = self.name();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
            return Err(format!(
                "`events.name` is {name:?}; expected 1 to 63 letters, digits, hyphens and underscores"
            ));
        }
        let of = |what: &str| format!("events \"{name}\": {what}");
        if self.what.is_empty() {
            return Err(of("`what` is empty; expected \"activity\", \"findings\" or both"));
        }
        let filter = self.matching.as_deref().map(Filter::compile).transpose();
        let filter =
            filter.map_err(|error| of(&format!("`match`: {error} (see docs/errors.md#policy-condition)")))?;
        if self.spool_bytes < LEAST_SPOOL || self.batch_events == 0 || self.sql_bytes > MOST_SQL {
            return Err(of(
                "expected `spool_bytes` of at least 4194304, `batch_events` of at least 1, and `sql_bytes` of at \
                           most 1048576",
            ));
        }
        let (shortest, longest) = self.retry_ms;
        if shortest == 0 || longest < shortest {
            return Err(of(
                "`retry_ms` is the first and the longest pause; expected two numbers such as [1000, 30000]",
            ));
        }
        Ok(Receiver {
            name: name.to_owned(),
            to: self.to().map_err(|error| of(&error))?,
            what: What {
                activity: self.what.contains(&Told::Activity),
                findings: self.what.contains(&Told::Findings),
            },
            filter,
            sql_bytes: self.sql_bytes,
            spool_bytes: self.spool_bytes,
            batch_events: self.batch_events,
            retry: (Duration::from_millis(shortest), Duration::from_millis(longest)),
        })
    }

    fn to(&self) -> Result<To, String> {
        self.check_keys()?;
        match self.to {
            Kind::File => Ok(To::File(self.path.clone().ok_or("`path` is missing: the file")?)),
            Kind::Webhook => {
                let url = self.url.clone().ok_or("`url` is missing: https://…")?;
                let secret_file = self.secret_file.clone().ok_or("`secret_file` is missing: what signs")?;
                if !is_safe_url(&url) {
                    return Err(format!(
                        "`url` is {url:?}; expected https://…, or http:// to this host itself"
                    ));
                }
                Ok(To::Webhook { url, secret_file, ca_file: self.ca_file.clone() })
            }
            Kind::Syslog => {
                let address = self.address.as_deref().ok_or("`address` is missing: tls://HOST:PORT")?;
                self.syslog(address).map(To::Syslog)
            }
        }
    }

    /// Keys of another kind of receiver mean that somebody is mistaken.
    fn check_keys(&self) -> Result<(), String> {
        for (set, key, kind) in [
            (self.path.is_some(), "path", Kind::File),
            (self.url.is_some(), "url", Kind::Webhook),
            (self.secret_file.is_some(), "secret_file", Kind::Webhook),
            (self.address.is_some(), "address", Kind::Syslog),
            (self.certificate_file.is_some(), "certificate_file", Kind::Syslog),
            (self.key_file.is_some(), "key_file", Kind::Syslog),
        ] {
            if set && kind != self.to {
                return Err(format!("`{key}` is for another kind of receiver"));
            }
        }
        Ok(())
    }

    fn syslog(&self, address: &str) -> Result<Syslog, String> {
        let wrong = || format!("`address` is {address:?}; expected tls://HOST:PORT, or tcp://127.0.0.1:PORT");
        let (scheme, rest) = address.split_once("://").ok_or_else(wrong)?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        let port = port.parse().map_err(|_| wrong())?;
        if host.is_empty() {
            return Err(wrong());
        }
        let transport = match (scheme, &self.certificate_file, &self.key_file) {
            ("tls", Some(certificate), Some(key)) => Transport::Tls {
                ca_file: self.ca_file.clone(),
                own: Some((certificate.clone(), key.clone())),
            },
            ("tls", None, None) => Transport::Tls { ca_file: self.ca_file.clone(), own: None },
            ("tls", ..) => return Err("`certificate_file` and `key_file` belong together".to_owned()),
            ("tcp", None, None) if host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()) => Transport::Tcp,
            ("tcp", None, None) => {
                return Err(format!(
                    "`address` is {address:?}: statements must not travel in clear; expected tls://"
                ));
            }
            _ => return Err(wrong()),
        };
        Ok(Syslog { host, port, transport })
    }
}

/// Whether what is set makes sense, and no two have the same name.
pub(super) fn check(events: &[Events]) -> Result<(), String> {
    for (index, one) in events.iter().enumerate() {
        one.receiver()?;
        if events[..index].iter().any(|other| other.name() == one.name()) {
            return Err(format!("there is another receiver of events {:?}; give each a `name`", one.name()));
        }
    }
    Ok(())
}

/// With its frame it fits into the 8 KiB that syslog servers take unless told otherwise (RFC 5425, section 4.3.1).
fn sql_bytes() -> usize {
    4_096
}

/// About 200,000 events: an hour at 50 a second.
fn spool_bytes() -> u64 {
    256 << 20
}

fn batch_events() -> usize {
    500
}

fn retry_ms() -> (u64, u64) {
    (1_000, 30_000)
}

const LEAST_SPOOL: u64 = 4 << 20;
const MOST_SQL: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(text: &str) -> Result<Receiver, String> {
        toml::from_str::<Events>(text).map_err(|error| error.to_string())?.receiver()
    }

    #[test]
    fn each_kind_of_receiver_has_its_keys() {
        let file = receiver("to = 'file'\nwhat = ['findings']\npath = '/var/log/events.jsonl'").unwrap();
        assert_eq!((file.name.as_str(), file.to), ("file", To::File("/var/log/events.jsonl".into())));
        assert_eq!((file.what.activity, file.what.findings), (false, true));
        let syslog =
            receiver("to = 'syslog'\nwhat = ['activity', 'findings']\naddress = 'tls://[fd00::1]:6514'")
                .unwrap();
        let To::Syslog(Syslog { host, port, transport: Transport::Tls { own: None, .. } }) = syslog.to else {
            panic!("{syslog:?}")
        };
        assert_eq!((host.as_str(), port), ("fd00::1", 6514));
        let webhook = "to = 'webhook'\nname = 'siem'\nwhat = ['findings']\nurl = 'https://x/'\nsecret_file = '/s'\n\
                       match = 'session.database == \"payments\"'\nretry_ms = [10, 20]";
        let webhook = receiver(webhook).unwrap();
        assert!(webhook.filter.is_some() && webhook.name == "siem");
        assert_eq!(webhook.retry, (Duration::from_millis(10), Duration::from_millis(20)));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_was_expected() {
        for (wrong, why) in [
            ("to = 'file'\nwhat = ['findings']", "path"),
            ("to = 'file'\nwhat = []\npath = '/x'", "activity"),
            ("to = 'file'\nwhat = ['findings']\npath = '/x'\nurl = 'https://x'", "another kind"),
            ("to = 'file'\nwhat = ['findings']\npath = '/x'\nname = '../x'", "letters"),
            ("to = 'file'\nwhat = ['findings']\npath = '/x'\nspool_bytes = 10", "spool_bytes"),
            ("to = 'file'\nwhat = ['findings']\npath = '/x'\nretry_ms = [9, 1]", "longest"),
            ("to = 'file'\nwhat = ['findings']\npath = '/x'\nmatch = 'session.nobody'", "match"),
            ("to = 'webhook'\nwhat = ['findings']\nurl = 'http://10.0.0.1/'\nsecret_file = '/s'", "https"),
            ("to = 'webhook'\nwhat = ['findings']\nurl = 'https://x/'", "secret_file"),
            ("to = 'syslog'\nwhat = ['findings']\naddress = 'tcp://10.0.0.1:514'", "clear"),
            ("to = 'syslog'\nwhat = ['findings']\naddress = 'udp://127.0.0.1:514'", "tls://"),
            ("to = 'syslog'\nwhat = ['findings']\naddress = 'tls://x:1'\nkey_file = '/k'", "together"),
            ("to = 'kafka'\nwhat = ['findings']", "syslog"),
        ] {
            let error = receiver(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
        let twice = "to = 'file'\nwhat = ['findings']\npath = '/x'";
        let twice = [toml::from_str(twice).unwrap(), toml::from_str(twice).unwrap()];
        assert!(check(&twice).unwrap_err().contains("name"));
    }
}
