//! Credentials from a file, which is read anew for each attempt that follows a failure: so they can be renewed.
//!
//! Lines of `NAME=value` with the names of the environment variables that the providers' own programs read, or the one
//! section of an AWS credentials file. What is not in the file comes from the environment.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a file of credentials cannot be used. No message has anything of its values.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("cannot read the credentials in {}: {source} (see docs/errors.md#upload-credentials)", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others may read it.
    #[error(
        "{} can be read by others than its owner: chmod 600 it (see docs/errors.md#upload-credentials)",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// A line is none.
    #[error("{} line {line}: {wrong} (see docs/errors.md#upload-credentials)", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        wrong: String,
    },
}

/// A name and its value, with the line that they stand in.
pub(super) type Pair = (usize, String, String);

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Vec<Pair>, CredentialsError> {
    let unreadable = |source| CredentialsError::Unreadable { path: path.to_owned(), source };
    if fs::metadata(path).map_err(unreadable)?.mode() & 0o077 != 0 {
        return Err(CredentialsError::Open { path: path.to_owned() });
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    parse(&text).map_err(|(line, wrong)| CredentialsError::Line { path: path.to_owned(), line, wrong })
}

fn parse(text: &str) -> Result<Vec<Pair>, (usize, String)> {
    let mut pairs = Vec::new();
    let mut sections = 0;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            sections += 1;
            if sections > 1 {
                return Err((
                    number,
                    "a second section; keep the one that is meant in a file of its own".into(),
                ));
            }
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or_else(|| (number, "expected NAME=value".to_owned()))?;
        let value = value.trim();
        let quoted = |quote| value.strip_prefix(quote).and_then(|value: &str| value.strip_suffix(quote));
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
        pairs.push((number, name.trim().to_ascii_lowercase(), value.to_owned()));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_of_the_environment_and_one_of_aws_say_the_same() {
        let expected = [("aws_access_key_id", "AKIA"), ("aws_secret_access_key", "a=b/c+")]
            .map(|(a, b)| (a.into(), b.into()));
        for text in [
            "# comment\nAWS_ACCESS_KEY_ID=AKIA\nexport AWS_SECRET_ACCESS_KEY='a=b/c+'\n",
            "[default]\naws_access_key_id = AKIA\n\naws_secret_access_key = a=b/c+\n",
        ] {
            let pairs: Vec<_> =
                parse(text).unwrap().into_iter().map(|(_, name, value)| (name, value)).collect();
            assert_eq!(pairs, expected);
        }
    }

    #[test]
    fn what_is_wrong_is_named_without_what_is_secret() {
        assert_eq!(parse("A=b\nhunter2\n").unwrap_err(), (2, "expected NAME=value".to_owned()));
        assert_eq!(parse("[a]\nA=hunter2\n[b]\n").unwrap_err().0, 3);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "hunter2").unwrap();
        let error = read(file.path()).unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(file.path()).unwrap_err().to_string().contains("chmod 600"));
    }
}
