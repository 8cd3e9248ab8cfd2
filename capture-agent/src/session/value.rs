//! PostgreSQL values, as text: binary formats decoded by type, text formats by the session's encoding.

/// A session's `client_encoding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, and what is not declared otherwise.
    #[default]
    Utf8,
}
