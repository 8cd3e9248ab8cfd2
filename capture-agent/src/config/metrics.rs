//! Where metrics and health are served.

use std::net::SocketAddr;

use serde::Deserialize;

/// Where metrics and health are served.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Address and port, or `off`.
    pub listen: String,
    /// Whether the address may be another than this host's own.
    pub allow_remote: bool,
}

impl Metrics {
    /// The address and port; none if they are switched off.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }

    /// Whether what is set makes sense.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.listen == OFF {
            return Ok(());
        }
        match self.listen.parse::<SocketAddr>() {
            Err(_) => Err(format!(
                "`metrics.listen` is {:?}; expected an address and port such as \"127.0.0.1:10187\", or \"off\"",
                self.listen
            )),
            Ok(address) if !address.ip().to_canonical().is_loopback() && !self.allow_remote => Err(format!(
                "`metrics.listen` is {:?}, which others than this host can reach, and anybody may ask; if that is meant, \
                 set `metrics.allow_remote = true`",
                self.listen
            )),
            Ok(_) => Ok(()),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: "127.0.0.1:10187".to_owned(), allow_remote: false }
    }
}

const OFF: &str = "off";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_can_ask_unless_that_is_said() {
        let metrics = |listen: &str, allow_remote| Metrics { listen: listen.to_owned(), allow_remote };
        assert_eq!(Metrics::default().check(), Ok(()));
        assert_eq!(Metrics::default().address(), Some(([127, 0, 0, 1], 10_187).into()));
        for good in ["off", "[::1]:1", "127.8.0.1:80", "[::ffff:127.0.0.1]:9"] {
            assert_eq!(metrics(good, false).check(), Ok(()), "{good}");
        }
        assert_eq!(metrics("off", false).address(), None);
        for remote in ["0.0.0.0:10187", "[::]:10187", "10.0.0.1:80"] {
            assert!(metrics(remote, false).check().unwrap_err().contains("allow_remote"), "{remote}");
            assert_eq!(metrics(remote, true).check(), Ok(()));
        }
        for wrong in ["", "on", "localhost:10187", "10187", "127.0.0.1"] {
            assert!(metrics(wrong, true).check().unwrap_err().contains("expected"), "{wrong}");
        }
    }
}
