//! What a segment has said before and need not say again: sessions, texts and columns, each in a numbered slot.
//!
//! An entry is kept alive as long as it is known, so that the same pointer means the same text. A slot that is needed
//! for another entry is simply defined anew, and the reader does the same; when entries take too much memory, both
//! forget all of them.

use std::sync::Arc;

use crate::session::{Column, SessionInfo};

/// What was said in the current segment.
#[derive(Debug)]
pub(super) struct Dictionary {
    sessions: Vec<Option<SessionInfo>>,
    texts: Vec<Option<Arc<str>>>,
    columns: Vec<Option<Arc<[Column]>>>,
    /// Bytes of texts and columns, about.
    held: usize,
}

/// A slot, and whether its entry must be written first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Said before.
    Known(usize),
    /// To be said now.
    New(usize),
}

impl Dictionary {
    pub(super) fn new() -> Self {
        Self {
            sessions: vec![None; SESSIONS],
            texts: vec![None; TEXTS],
            columns: vec![None; COLUMNS],
            held: 0,
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.sessions.fill(None);
        self.forget_texts();
    }

    /// Forgets texts and columns.
    pub(super) fn forget_texts(&mut self) {
        self.texts.fill(None);
        self.columns.fill(None);
        self.held = 0;
    }

    /// Whether texts and columns take more memory than they may.
    pub(super) fn is_full(&self) -> bool {
        self.held > MEMORY
    }

    /// The slot of a session as it is now.
    #[inline]
    pub(super) fn session(&mut self, session: &SessionInfo) -> Slot {
        // The last bytes of a UUIDv7 are random.
        let [.., high, low] = *session.origin.id.0.as_bytes();
        let slot = usize::from(u16::from_be_bytes([high, low])) % SESSIONS;
        let known = &mut self.sessions[slot];
        if known.as_ref().is_some_and(|known| is_same_session(known, session)) {
            return Slot::Known(slot);
        }
        *known = Some(session.clone());
        Slot::New(slot)
    }

    /// The slot of a text; none if it is too large to be kept.
    #[inline]
    pub(super) fn text(&mut self, text: &Arc<str>) -> Option<Slot> {
        let slot = place(text.as_ptr().addr()) % TEXTS;
        let known = &mut self.texts[slot];
        if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, text)) {
            return Some(Slot::Known(slot));
        }
        if text.len() > LARGEST_TEXT {
            return None;
        }
        self.held += text.len() + ENTRY;
        *known = Some(Arc::clone(text));
        Some(Slot::New(slot))
    }

    /// The slot of columns.
    #[inline]
    pub(super) fn columns(&mut self, columns: &[Column]) -> Slot {
        let slot = place(columns.as_ptr().addr()) % COLUMNS;
        let known = &mut self.columns[slot];
        if known.as_deref().is_some_and(|known| are_same_columns(known, columns)) {
            return Slot::Known(slot);
        }
        self.held += columns.iter().map(|column| column.name.len() + ENTRY).sum::<usize>();
        *known = Some(columns.into());
        Slot::New(slot)
    }
}

/// Whether nothing has changed. A session's origin never does, but for what is compared here.
fn is_same_session(known: &SessionInfo, session: &SessionInfo) -> bool {
    known.origin.id == session.origin.id
        && same(&known.user, &session.user)
        && same(&known.database, &session.database)
        && same(&known.application_name, &session.application_name)
        && same(&known.auth_method, &session.auth_method)
        && same(&known.server_version, &session.server_version)
        && known.client_encoding == session.client_encoding
        && known.standard_conforming_strings == session.standard_conforming_strings
        && known.tls == session.tls
        && known.gss_encrypted == session.gss_encrypted
        && same(&known.tls_version, &session.tls_version)
        && same(&known.tls_cipher, &session.tls_cipher)
        && known.origin.partial == session.origin.partial
        && (Arc::ptr_eq(&known.origin.server, &session.origin.server)
            || known.origin.server == session.origin.server)
}

fn same(known: &Option<Arc<str>>, text: &Option<Arc<str>>) -> bool {
    match (known, text) {
        (Some(known), Some(text)) => Arc::ptr_eq(known, text),
        (known, text) => known.is_none() && text.is_none(),
    }
}

/// Compares names by their pointers: another pointer is another definition, at worst written twice.
fn are_same_columns(known: &[Column], columns: &[Column]) -> bool {
    known.len() == columns.len()
        && known.iter().zip(columns).all(|(known, column)| {
            Arc::ptr_eq(&known.name, &column.name)
                && (known.type_oid, known.table_oid, known.attnum, known.format)
                    == (column.type_oid, column.table_oid, column.attnum, column.format)
        })
}

/// Spreads addresses, whose low bits are alike, over slots.
fn place(address: usize) -> usize {
    (address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) as usize >> 40
}

/// Sessions that are told apart without being written again.
pub(super) const SESSIONS: usize = 1_024;

/// Texts: some prepared statements of each of many sessions.
pub(super) const TEXTS: usize = 4_096;

/// Columns of results.
pub(super) const COLUMNS: usize = 1_024;

/// A text beyond this is written each time: reading it costs more than writing it.
pub(super) const LARGEST_TEXT: usize = 64 << 10;

/// Memory that an entry takes besides its text, about.
const ENTRY: usize = 64;

/// Memory that texts and columns may take.
const MEMORY: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::super::super::fixture::{MORNING, columns, session};
    use super::*;

    #[test]
    fn the_same_text_is_said_once_and_an_equal_one_is_another() {
        let mut dictionary = Dictionary::new();
        let text: Arc<str> = "select 1".into();
        let Some(Slot::New(slot)) = dictionary.text(&text) else { panic!("known before it was said") };
        assert_eq!(dictionary.text(&Arc::clone(&text)), Some(Slot::Known(slot)));
        assert!(matches!(dictionary.text(&"select 1".into()), Some(Slot::New(_))));
        assert_eq!(dictionary.text(&"x".repeat(LARGEST_TEXT + 1).into()), None);
    }

    #[test]
    fn a_session_is_said_again_when_it_changed() {
        let mut dictionary = Dictionary::new();
        let mut session = session(1, MORNING);
        assert!(matches!(dictionary.session(&session), Slot::New(_)));
        assert!(matches!(dictionary.session(&session.clone()), Slot::Known(_)));
        session.application_name = Some("another".into());
        assert!(matches!(dictionary.session(&session), Slot::New(_)));
        session.tls = true;
        assert!(matches!(dictionary.session(&session), Slot::New(_)));
        session.origin.server = Arc::new(Default::default());
        assert!(matches!(dictionary.session(&session), Slot::New(_)));
    }

    #[test]
    fn columns_are_the_same_as_long_as_their_names_are() {
        let mut dictionary = Dictionary::new();
        let mut columns = columns(&["a", "b"]).to_vec();
        assert!(matches!(dictionary.columns(&columns), Slot::New(_)));
        assert!(matches!(dictionary.columns(&columns), Slot::Known(_)));
        columns[1].format = 1;
        assert!(matches!(dictionary.columns(&columns), Slot::New(_)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut dictionary = Dictionary::new();
        let mut said = 0;
        while !dictionary.is_full() {
            dictionary.text(&"x".repeat(1 << 10).into());
            said += 1;
            assert!(said < 10_000);
        }
        dictionary.forget_texts();
        assert!(!dictionary.is_full());
    }
}
