//! States of open sessions hold what clients and servers have said, which the record may not: they are sealed with a key
//! that lies in memory alone, so that the next agent can read them and nobody can who finds the disk.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::fs::{OFlags, statfs};
use tracing::warn;

use crate::config::Config;
use crate::probes::Pins;

/// Seals and opens states.
pub(super) struct Vault {
    master: hmac::Key,
    /// Of this agent: with it, no two agents seal with the same key.
    salt: [u8; SALT],
    key: LessSafeKey,
    sealed: u64,
    /// Where the next agent finds the master key; none if nowhere.
    file: Option<PathBuf>,
}

impl Vault {
    /// With the key that an earlier agent of this data directory has left in memory, or a new one that is left there.
    ///
    /// # Errors
    ///
    /// The system has no random numbers.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let (master, file) = match kept(config) {
            Some((master, file)) => (master, Some(file)),
            None => {
                warn!(
                    "no file system in memory takes the key of saved sessions: if this agent is killed, the next one begins \
                     them anew (see docs/errors.md#state-key)"
                );
                (random()?, None)
            }
        };
        let master = hmac::Key::new(hmac::HMAC_SHA256, &master);
        let salt = random()?;
        Ok(Self { key: derived(&master, &salt)?, master, salt, sealed: 0, file })
    }

    /// Appends the sealed `state` to `out`. `name` must be the same when it is opened.
    pub(super) fn seal(&mut self, name: &[u8], state: &[u8], out: &mut Vec<u8>) {
        self.sealed += 1;
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.sealed.to_le_bytes());
        let begin = out.len();
        out.extend_from_slice(state);
        let body = out.get_mut(begin..).unwrap_or_default();
        match self.key.seal_in_place_separate_tag(nonce(self.sealed), Aad::from(name), body) {
            Ok(tag) => out.extend_from_slice(tag.as_ref()),
            // Longer than a cipher can seal: 64 GiB.
            Err(_) => out.truncate(begin),
        }
    }

    /// The state; none if it was sealed with another key, or is damaged.
    pub(super) fn unseal(&self, name: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (salt, rest) = sealed.split_first_chunk::<SALT>()?;
        let (number, body) = rest.split_first_chunk()?;
        let key = derived(&self.master, salt).ok()?;
        let mut body = body.to_vec();
        let opened =
            key.open_in_place(nonce(u64::from_le_bytes(*number)), Aad::from(name), &mut body).ok()?;
        let length = opened.len();
        body.truncate(length);
        Some(body)
    }

    /// Nothing is left to a next agent.
    pub(super) fn forget(&self) {
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
    }
}

/// Removes the key that agents have left whose kernel side is called `name`.
pub(super) fn forget(config: &Config, name: &OsStr) {
    for file in places(config, name) {
        let _ = fs::remove_file(file);
    }
}

/// The key that is kept in memory, and its file.
fn kept(config: &Config) -> Option<([u8; KEY], PathBuf)> {
    let pins = Pins::of(Path::new("/"), &config.data_dir)?;
    let in_memory = |folder: &Path| statfs(folder).is_ok_and(|found| MEMORY.contains(&(found.f_type as u64)));
    let places: Vec<PathBuf> =
        places(config, pins.name()).into_iter().filter(|file| file.parent().is_some_and(in_memory)).collect();
    let found = places.iter().find_map(|file| Some((read(file).ok()?, file.clone())));
    found.or_else(|| places.into_iter().find_map(|file| Some((make(&file).ok()?, file))))
}

fn places(config: &Config, name: &OsStr) -> [PathBuf; 2] {
    let file = format!("capture-states-{}", name.to_string_lossy());
    [Path::new("/dev/shm").join(&file), config.shim.runtime_dir.join(file)]
}

fn read(path: &Path) -> io::Result<[u8; KEY]> {
    let mut file =
        OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)?;
    let found = file.metadata()?;
    // Others may make files there as well.
    if found.uid() != rustix::process::geteuid().as_raw()
        || found.mode() & 0o077 != 0
        || found.len() != KEY as u64
    {
        return Err(io::Error::other("it is none of ours"));
    }
    let mut key = [0; KEY];
    file.read_exact(&mut key)?;
    Ok(key)
}

fn make(path: &Path) -> io::Result<[u8; KEY]> {
    let key = random().map_err(io::Error::other)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(&key)?;
    Ok(key)
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
    Ok(bytes)
}

fn derived(master: &hmac::Key, salt: &[u8; SALT]) -> anyhow::Result<LessSafeKey> {
    let bytes = hmac::sign(master, salt);
    let key = UnboundKey::new(&AES_256_GCM, bytes.as_ref());
    Ok(LessSafeKey::new(key.map_err(|_| anyhow::anyhow!("no key can be made"))?))
}

/// Of a key that seals each number once.
fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    if let Some(place) = bytes.first_chunk_mut() {
        *place = number.to_le_bytes();
    }
    Nonce::assume_unique_for_key(bytes)
}

const KEY: usize = 32;
const SALT: usize = 16;
/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of `include/uapi/linux/magic.h`
const MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_opened_with_the_key_in_memory_and_with_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data_dir = folder.path().join("data");
        let mut first = Vault::open(&config).unwrap();
        let (mut one, mut again) = (Vec::new(), Vec::new());
        first.seal(b"name", b"select 'canary'", &mut one);
        first.seal(b"name", b"select 'canary'", &mut again);
        assert_ne!(one, again);
        assert!(!one.windows(6).any(|window| window == b"canary"));
        let next = Vault::open(&config).unwrap();
        assert_eq!(next.unseal(b"name", &one).as_deref(), Some(&b"select 'canary'"[..]));
        assert_eq!(next.unseal(b"other", &one), None);
        assert_eq!(next.unseal(b"name", &one[..one.len() - 1]), None);
        assert_eq!(next.unseal(b"name", b""), None);
        next.forget();
        let stranger = Vault::open(&config).unwrap();
        assert_eq!(stranger.unseal(b"name", &one), None);
        stranger.forget();
    }
}
