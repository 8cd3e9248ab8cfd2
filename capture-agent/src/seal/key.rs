//! The Ed25519 key that signs seals (RFC 8032), and its public half, in the files that `openssl` reads and writes (RFC
//! 7468, RFC 8410).

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use thiserror::Error;

use super::{hash, hex};

/// A signature.
pub(super) type Signature = [u8; 64];

/// Signs seals.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    path: PathBuf,
    pem: Vec<u8>,
}

/// Without what is secret.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Says whether a seal was signed by the key that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// Why a key cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// Its file cannot be read or made.
    #[error("cannot read or make the key {}: {source} (see docs/errors.md#seal-key)", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others can read the private key.
    #[error(
        "others than its owner can read the key {} (mode {mode:o}): make it readable for its owner only, with \
         `chmod 600` (see docs/errors.md#seal-key)",
        path.display()
    )]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds something else.
    #[error(
        "{} holds no Ed25519 {half} key in PEM format, as `openssl genpkey -algorithm ed25519` makes it (see \
         docs/errors.md#seal-key)",
        path.display()
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Which half was expected.
        half: &'static str,
    },
}

impl SigningKey {
    /// The key in `path`. If there is no such file, a new key is made and kept there, for its owner alone.
    ///
    /// # Errors
    ///
    /// See [`KeyError`].
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let unusable = |source| KeyError::File { path: path.to_owned(), source };
        match fs::read(path) {
            Ok(pem) => {
                let mode = fs::metadata(path).map_err(unusable)?.mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(KeyError::Readable { path: path.to_owned(), mode });
                }
                Self::of_pem(path, pem)
                    .ok_or_else(|| KeyError::Invalid { path: path.to_owned(), half: "private" })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(path).map_err(unusable),
            Err(error) => Err(unusable(error)),
        }
    }

    fn make(path: &Path) -> io::Result<Self> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| io::Error::other("no random numbers"))?;
        let pem = pem("PRIVATE KEY", &[&PKCS8[..], &seed].concat());
        let key = Self::of_pem(path, pem.into_bytes());
        let key = key.ok_or_else(|| io::Error::other("the key that was made is none"))?;
        key.restore()?;
        Ok(key)
    }

    fn of_pem(path: &Path, pem: Vec<u8>) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).ok()?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).ok()?;
        Some(Self { pair, path: path.to_owned(), pem })
    }

    /// Makes its file, if that is not there (any more).
    pub(super) fn restore(&self) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path);
        match file {
            Ok(mut file) => file.write_all(&self.pem).and_then(|()| file.sync_all()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(super::to_hash(self.pair.public_key().as_ref()))
    }

    pub(super) fn sign(&self, bytes: &[u8]) -> Signature {
        let mut signature = [0; 64];
        signature.iter_mut().zip(self.pair.sign(bytes).as_ref()).for_each(|(to, from)| *to = *from);
        signature
    }
}

impl PublicKey {
    /// The key in the file `path`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or holds no such key.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let pem = fs::read(path).map_err(|source| KeyError::File { path: path.to_owned(), source })?;
        Self::of_pem(&pem).ok_or_else(|| KeyError::Invalid { path: path.to_owned(), half: "public" })
    }

    fn of_pem(pem: &[u8]) -> Option<Self> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
        der.as_ref().strip_prefix(&SPKI)?.try_into().ok().map(Self)
    }

    /// Its file's text.
    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &[&SPKI[..], &self.0].concat())
    }

    /// A short name for it: the first bytes of its hash.
    pub fn name(&self) -> String {
        let hash = hash(&self.0);
        hex(hash.first_chunk::<8>().map_or(&[], |chunk| &chunk[..]))
    }

    pub(super) fn signed(&self, bytes: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(bytes, signature).is_ok()
    }
}

/// `-----BEGIN LABEL-----` and so on. Keys of this kind take one line.
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// What stands before the seed in a `PrivateKeyInfo`, and before the key in a `SubjectPublicKeyInfo` (RFC 8410, sections
/// 7 and 4).
const PKCS8: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
const SPKI: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
