//! The key with which masked values are hashed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::config::Config;
use crate::mask::Key;
use crate::policy::{Policy, Strategy};

/// The key, if a rule of the policy needs one; made if it is not there.
///
/// # Errors
///
/// Its file cannot be read or made, others can read it, or it is too short.
pub(super) fn key(config: &Config, policy: &Policy) -> anyhow::Result<Option<Key>> {
    if policy.mask_rules().iter().all(|rule| rule.strategy != Strategy::Hash) {
        return Ok(None);
    }
    let own = || config.data_dir.join(format!(".mask-{}.key", config.node));
    let path = config.masking.key.clone().unwrap_or_else(own);
    let secret = open(&path).with_context(|| {
        format!("cannot use the key of masked values {} (see docs/errors.md#mask-key)", path.display())
    })?;
    Ok(Some(Key::new(&secret)))
}

fn open(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Ok(secret) => {
            let mode = fs::metadata(path)?.mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(io::Error::other(format!(
                    "others than its owner can read it (mode {mode:o}): `chmod 600` it"
                )));
            }
            if secret.len() < LEAST {
                return Err(io::Error::other(format!("it has fewer than {LEAST} bytes")));
            }
            Ok(secret)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(error),
    }
}

fn make(path: &Path) -> io::Result<Vec<u8>> {
    let mut secret = vec![0; LEAST];
    SystemRandom::new().fill(&mut secret).map_err(|_| io::Error::other("no random numbers"))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    Ok(secret)
}

/// As many as the hash has: a longer key adds nothing (RFC 2104, section 3).
const LEAST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let made = open(&path).unwrap();
        assert_eq!(open(&path).unwrap(), made);
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.len()), (0o600, 32));
        let mut readable = metadata.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut readable, 0o640);
        fs::set_permissions(&path, readable).unwrap();
        assert!(open(&path).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn no_key_is_made_that_no_rule_needs() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data_dir = folder.path().to_owned();
        assert!(key(&config, &Policy::default()).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
