//! PostgreSQL values, as text: binary formats decoded by type, text formats by the session's encoding.

mod encoding;

pub use encoding::Encoding;
