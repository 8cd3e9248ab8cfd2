//! How much of a session is kept.

/// What one session may keep, and what of its results is recorded. Past each limit counts stay exact and the
/// record says that something was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows of one statement that go to `results`.
    pub rows: u64,
    /// Bytes of one statement's rows that go to `results`.
    pub bytes: u64,
    /// Bytes of message bodies kept at a time, until their statements are recorded: query strings, parameters.
    pub kept: usize,
    /// Bytes of text kept for prepared statements. What exceeds it is executed as an unknown text.
    pub prepared: usize,
    /// Prepared statements kept, and portals kept.
    pub names: usize,
    /// Requests that may wait for their replies.
    pub requests: usize,
}

impl Default for Limits {
    /// `rows` and `bytes` are the defaults of the recording rules. A parameter of 64 MiB fits in `kept` with its
    /// message around it. A server answers what it has received before it receives more, 8 KiB at a time, so
    /// that only a few thousand requests can ever wait while both streams are in step.
    fn default() -> Self {
        Self {
            rows: 10_000,
            bytes: 16 << 20,
            kept: (64 << 20) + (64 << 10),
            prepared: 16 << 20,
            names: 8_192,
            requests: 16_384,
        }
    }
}
