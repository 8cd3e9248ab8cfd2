//! Two bounded memories: of recent texts, and of statement shapes.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Analysis;

/// Texts seen twice of late, by content if they are short and by identity if they are long.
///
/// A set-associative table: each text has two places. A text that is hit moves to the first one, and only the
/// second one is given to newcomers, so a stream of texts that never come back does not wash out those that do.
pub(crate) struct RecentTexts<T> {
    sets: Box<[Set<T>]>,
    /// Bytes of the texts in the table that are longer than [`SHORT`].
    long_bytes: usize,
    hasher: RandomState,
}

/// Where a text's places are, and what tells it from most others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(u64);

struct Set<T> {
    first: Option<Entry<T>>,
    second: Option<Entry<T>>,
    /// The last text that was noted but not kept: it is kept when it comes again.
    waiting: Option<u64>,
}

struct Entry<T> {
    key: Key,
    text: Arc<str>,
    known: Arc<T>,
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { first: None, second: None, waiting: None }
    }
}

/// Number of sets; a power of two.
const SETS: usize = 1024;
/// The longest text that is found by its content. Hashing it takes less than a microsecond.
const SHORT: usize = 8 << 10;
/// The most bytes that longer texts in the table may have.
const LONG_BYTES: usize = 8 << 20;

impl<T> Default for RecentTexts<T> {
    fn default() -> Self {
        let sets = std::iter::repeat_with(Set::default).take(SETS).collect();
        Self { sets, long_bytes: 0, hasher: RandomState::default() }
    }
}

impl<T> RecentTexts<T> {
    /// The key of a text in a session with these `standard_conforming_strings`.
    pub(crate) fn key(&self, text: &Arc<str>, standard_conforming_strings: bool) -> Key {
        let hash = if text.len() <= SHORT {
            self.hasher.hash_one(text.as_bytes())
        } else {
            self.hasher.hash_one((Arc::as_ptr(text).cast::<u8>() as usize, text.len()))
        };
        // The lowest bit tells the two lexical settings apart.
        Key(hash & !1 | u64::from(standard_conforming_strings))
    }

    /// What is known of the text.
    pub(crate) fn find(&mut self, key: Key, text: &Arc<str>) -> Option<&Arc<T>> {
        let set = self.sets.get_mut(place(key))?;
        if !set.first.as_ref().is_some_and(|entry| entry.is(key, text)) {
            if !set.second.as_ref().is_some_and(|entry| entry.is(key, text)) {
                return None;
            }
            std::mem::swap(&mut set.first, &mut set.second);
        }
        set.first.as_ref().map(|entry| &entry.known)
    }

    /// Keeps the text if it was noted before.
    pub(crate) fn note(&mut self, key: Key, text: &Arc<str>, known: &Arc<T>) {
        let Some(set) = self.sets.get_mut(place(key)) else {
            return;
        };
        if set.waiting != Some(key.0) {
            set.waiting = Some(key.0);
            return;
        }
        let entry = Entry { key, text: Arc::clone(text), known: Arc::clone(known) };
        if self.long_bytes + entry.long_bytes() > LONG_BYTES {
            self.sets.fill_with(Set::default);
            self.long_bytes = 0;
        }
        let Some(set) = self.sets.get_mut(place(key)) else {
            return;
        };
        set.waiting = None;
        let place = if set.first.is_none() { &mut set.first } else { &mut set.second };
        self.long_bytes += entry.long_bytes();
        if let Some(before) = place.replace(entry) {
            self.long_bytes -= before.long_bytes();
        }
    }
}

fn place(key: Key) -> usize {
    (key.0 >> 1) as usize % SETS
}

impl<T> Entry<T> {
    fn is(&self, key: Key, text: &Arc<str>) -> bool {
        self.key == key && (Arc::ptr_eq(&self.text, text) || self.text == *text)
    }

    fn long_bytes(&self) -> usize {
        if self.text.len() > SHORT { self.text.len() } else { 0 }
    }
}

impl<T> fmt::Debug for RecentTexts<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecentTexts").field("long_bytes", &self.long_bytes).finish_non_exhaustive()
    }
}

/// Analyses by shape, in two generations: when the younger one is full it becomes the older one, whose entries
/// are forgotten unless they were asked for meanwhile.
pub(super) struct Shapes {
    young: Generation,
    old: Generation,
    /// Bounds of one generation.
    entries: usize,
    bytes: usize,
}

#[derive(Default)]
struct Generation {
    map: HashMap<Box<[u8]>, Arc<Analysis>, RandomState>,
    bytes: usize,
}

impl Shapes {
    pub(super) fn new(entries: usize, bytes: usize) -> Self {
        let (young, old) = (Generation::default(), Generation::default());
        Self { young, old, entries: entries / 2, bytes: bytes / 2 }
    }

    pub(super) fn find(&mut self, shape: &[u8]) -> Option<Arc<Analysis>> {
        if let Some(analysis) = self.young.map.get(shape) {
            return Some(Arc::clone(analysis));
        }
        let (shape, analysis) = self.old.map.remove_entry(shape)?;
        self.old.bytes -= size(&shape, &analysis);
        self.keep(shape, Arc::clone(&analysis));
        Some(analysis)
    }

    pub(super) fn insert(&mut self, shape: &[u8], analysis: Arc<Analysis>) {
        if size(shape, &analysis) <= self.bytes {
            self.keep(shape.into(), analysis);
        }
    }

    fn keep(&mut self, shape: Box<[u8]>, analysis: Arc<Analysis>) {
        let size = size(&shape, &analysis);
        if self.young.map.len() >= self.entries || self.young.bytes + size > self.bytes {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += size;
        self.young.map.insert(shape, analysis);
    }
}

impl fmt::Debug for Shapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.young.map.len() + self.old.map.len();
        let bytes = self.young.bytes + self.old.bytes;
        f.debug_struct("Shapes").field("entries", &entries).field("bytes", &bytes).finish_non_exhaustive()
    }
}

/// About how many bytes an entry takes.
fn size(shape: &[u8], analysis: &Analysis) -> usize {
    let Analysis { kinds, tables_read, tables_written, functions, settings, executes, .. } = analysis;
    let lists = [kinds, tables_read, tables_written, functions, settings, executes];
    let texts: usize = lists.into_iter().flatten().map(|text| text.capacity() + size_of::<String>()).sum();
    shape.len() + texts + 2 * size_of::<Analysis>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn analysis(kind: &str) -> Arc<Analysis> {
        Arc::new(Analysis { kinds: vec![kind.to_owned()], ..Analysis::default() })
    }

    fn text(text: &str) -> Arc<str> {
        text.into()
    }

    #[test]
    fn text_is_kept_when_it_comes_again() {
        let mut recent = RecentTexts::default();
        let key = recent.key(&text("a"), true);
        recent.note(key, &text("a"), &analysis("a"));
        assert!(recent.find(key, &text("a")).is_none());
        recent.note(key, &text("a"), &analysis("a"));
        assert_eq!(recent.find(key, &text("a")), Some(&analysis("a")));
        assert!(recent.find(recent.key(&text("a"), false), &text("a")).is_none());
    }

    #[test]
    fn stream_of_other_texts_does_not_wash_out_a_used_one() {
        let mut recent = RecentTexts::default();
        let used = text("used");
        let key = recent.key(&used, true);
        recent.note(key, &used, &analysis("used"));
        recent.note(key, &used, &analysis("used"));
        for number in 0..100_000 {
            let other = text(&number.to_string());
            let other_key = recent.key(&other, true);
            recent.note(other_key, &other, &analysis("other"));
            recent.note(other_key, &other, &analysis("other"));
        }
        assert_eq!(recent.find(key, &used), Some(&analysis("used")));
    }

    #[test]
    fn long_texts_are_found_by_identity_and_bounded() {
        let mut recent = RecentTexts::default();
        let texts: Vec<_> = (0..100).map(|_| text(&"x".repeat(1 << 20))).collect();
        for text in &texts {
            let key = recent.key(text, true);
            recent.note(key, text, &analysis("x"));
            recent.note(key, text, &analysis("x"));
            assert!(recent.long_bytes <= LONG_BYTES);
            assert!(recent.find(key, text).is_some());
        }
    }

    #[test]
    fn shapes_are_bounded_and_used_ones_stay() {
        let mut shapes = Shapes::new(100, 1 << 20);
        shapes.insert(b"used", analysis("used"));
        for number in 0..10_000u32 {
            shapes.insert(&number.to_be_bytes(), analysis("other"));
            assert!(shapes.find(b"used").is_some());
            assert!(shapes.young.map.len() + shapes.old.map.len() <= 101);
        }
        let mut shapes = Shapes::new(100, 10_000);
        for number in 0..1_000u32 {
            shapes.insert(&[number as u8; 1000], analysis("long"));
            assert!(shapes.young.bytes + shapes.old.bytes <= 10_000);
        }
        shapes.insert(&[0; 10_000], analysis("too long"));
        assert!(shapes.find(&[0; 10_000]).is_none());
    }
}
