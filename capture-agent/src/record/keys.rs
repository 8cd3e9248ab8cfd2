//! The keys of an encrypted record: Parquet modular encryption (AES-256 in GCM mode), one key for the footer and all columns,
//! because that is what every engine reads. Each file names its key, by its hash, for those who have several.
//!
//! See [Parquet's specification](https://github.com/apache/parquet-format/blob/master/Encryption.md).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaDataReader;

use crate::seal::{hash, hex};

/// A key: 32 bytes that nobody else knows.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordKey([u8; LENGTH]);

/// What the files of a record are encrypted with, if at all. The default writes plain files, and reads no others.
#[derive(Clone)]
pub struct Keys {
    writes: Option<Arc<FileEncryptionProperties>>,
    reads: Arc<FileDecryptionProperties>,
}

/// A file is encrypted with a key that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is encrypted with the key {key}, which the configuration does not name in [encryption] (see \
     docs/errors.md#record-key)"
)]
pub struct KeyMissing {
    /// What the file calls its key: see [`RecordKey::name`].
    key: String,
}

impl RecordKey {
    /// A key as it is kept in files: its bytes in base64, as `openssl rand -base64 32` prints them. None if it is none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let bytes = STANDARD.decode(text.trim_ascii()).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// What files call it: the first half of its SHA-256, in hexadecimal.
    pub fn name(&self) -> String {
        let mut name = hex(&hash(&self.0));
        name.truncate(NAME_LENGTH);
        name
    }
}

impl Keys {
    /// Encrypts with `current`; reads what it or one of the `older` has encrypted, and plain files.
    pub fn new(current: &RecordKey, older: &[RecordKey]) -> Self {
        let writes = FileEncryptionProperties::builder(current.0.to_vec())
            .with_footer_key_metadata(current.name().into_bytes())
            .build();
        let known = older.iter().chain([current]).map(|key| (key.name(), key.0.to_vec()));
        // It is built of one key, which has the right length: that does not fail.
        Self { writes: writes.ok(), ..Self::reading(known.collect()) }
    }

    fn reading(known: HashMap<String, Vec<u8>>) -> Self {
        let decryption = FileDecryptionProperties::with_key_retriever(Arc::new(Known(known))).build();
        let reads = decryption.unwrap_or_else(|error| unreachable!("nothing of it can fail: {error}"));
        Self { writes: None, reads }
    }

    /// Whether files are encrypted.
    pub fn encrypt(&self) -> bool {
        self.writes.is_some()
    }

    /// How files are encrypted, if they are.
    pub(super) fn writing(&self) -> Option<&Arc<FileEncryptionProperties>> {
        self.writes.as_ref()
    }

    /// A reader of the rows of files.
    pub(crate) fn reader_options(&self) -> ArrowReaderOptions {
        ArrowReaderOptions::new().with_file_decryption_properties(Arc::clone(&self.reads))
    }

    /// A reader of the footers of files.
    pub(super) fn footer_reader(&self) -> ParquetMetaDataReader {
        ParquetMetaDataReader::new().with_decryption_properties(Some(Arc::clone(&self.reads)))
    }
}

impl KeyMissing {
    /// Whether this is what is wrong.
    pub(super) fn of(error: &ParquetError) -> Option<Self> {
        let ParquetError::External(error) = error else { return None };
        error.downcast_ref::<Self>().cloned()
    }
}

/// Keys by their names.
struct Known(HashMap<String, Vec<u8>>);

impl KeyRetriever for Known {
    fn retrieve_key(&self, metadata: &[u8]) -> Result<Vec<u8>> {
        let name = String::from_utf8_lossy(metadata);
        self.0.get(name.as_ref()).cloned().ok_or_else(|| {
            // Others may name theirs by anything of any length.
            let key = name.escape_default().take(2 * NAME_LENGTH).collect();
            ParquetError::External(Box::new(KeyMissing { key }))
        })
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::reading(HashMap::new())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it holds would print the key.
        write!(f, "Keys {{ encrypt: {} }}", self.encrypt())
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKey({})", self.name())
    }
}

/// Bytes of a key: AES-256.
const LENGTH: usize = 32;

/// Hexadecimal digits of a key's name.
const NAME_LENGTH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_in_base64_and_shows_its_name_only() {
        let text = STANDARD.encode([7; 32]);
        let key = RecordKey::parse(format!("{text}\n").as_bytes()).unwrap();
        assert_eq!(key.name(), hex(&hash(&[7; 32]))[..16]);
        assert_eq!(format!("{key:?}"), format!("RecordKey({})", key.name()));
        let shown = format!("{:?}", Keys::new(&key, &[]));
        assert_eq!(shown, "Keys { encrypt: true }");
        for wrong in ["", "short", &text[..40], &STANDARD.encode([7; 16]), &"7".repeat(64)] {
            assert!(RecordKey::parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
