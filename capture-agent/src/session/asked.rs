//! What the server has received and not looked at yet: what a verdict is about.

use std::sync::Arc;

use super::{Judged, Session};
use crate::frames::Mode;

/// A message of the client's that has something run or prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where it stands in the client's stream: its first byte and one past its last.
    pub range: (u64, u64),
    /// What it asks for.
    pub what: What,
}

/// What a message asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// To run a query string: its bytes.
    Query(Box<[u8]>),
    /// To prepare a statement.
    Parse {
        /// Its text's bytes.
        text: Box<[u8]>,
        /// How many parameters' types the message ends with.
        types: usize,
    },
    /// To run a prepared statement.
    Execute {
        /// Its text; none if it was prepared where nobody saw it.
        text: Option<Arc<str>>,
        /// Its parameters as text, none for NULL; none if they are not wholly known.
        params: Option<Vec<Option<String>>>,
    },
    /// To call a function.
    Function {
        /// Its number in `pg_proc`.
        oid: u32,
        /// Its arguments as text, none for NULL.
        params: Vec<Option<String>>,
    },
    /// Something that was not wholly seen, or cannot be read.
    Unseen,
}

impl Session {
    /// What the messages ask for that were complete with bytes behind `since` in the client's stream, in their order.
    /// What has been answered is left out, and so is what the server passes over.
    pub fn asked_since(&self, since: u64) -> Vec<Asked> {
        if self.frontend.decoder.mode() != Mode::Messages {
            return vec![Asked { range: (since, since), what: What::Unseen }];
        }
        self.conversation.asked_since(since, &self.info)
    }

    /// The text of the prepared statement that `name` stands for once what stands before `offset` of the client's stream is
    /// done; none if that is not known, as of one that was prepared before anybody watched.
    pub fn prepared_text(&self, name: &str, offset: u64) -> Option<Arc<str>> {
        self.conversation.prepared_text(name, offset, &self.info)
    }

    /// Where the client's next message begins, by the kernel side's count; the one that is incomplete counts as none. None
    /// if that is not known.
    pub fn next_message(&self) -> Option<u64> {
        let decoder = &self.frontend.decoder;
        (decoder.mode() == Mode::Messages).then(|| decoder.next_frame().checked_sub(self.base[0])).flatten()
    }

    /// Whether a request that stands before `end` in the client's stream waits for its reply.
    pub fn waits_before(&self, end: u64) -> bool {
        self.conversation.waits_before(end)
    }

    /// Whether everything was seen that the client had sent until the kernel side counted `end`.
    pub fn has_received(&self, end: u64) -> bool {
        self.frontend.ledger.next() >= self.place_of(end)
    }

    /// The place in the client's stream of what the kernel side counts as `offset`.
    pub fn place_of(&self, offset: u64) -> u64 {
        self.place(super::Direction::Frontend, offset)
    }

    /// What was decided about the message that begins at `offset` of the client's stream.
    pub fn note_verdict(&mut self, offset: u64, judged: Arc<Judged>) {
        self.conversation.judge(offset, judged);
    }
}
