//! The states of open sessions, from one agent to the next.

use std::collections::HashMap;
use std::sync::Arc;

use capture_common::SessionKey;

use super::super::open::Open;
use super::super::vault::Vault;
use super::Sessions;
use crate::mask::{SAVED, SessionMasks};
use crate::record::Recorder;
use crate::session::{Limits, Session, Sink as _};

impl Sessions {
    /// Hands the state of every session that has changed to the recorder.
    pub(in crate::run) fn save(&mut self, recorder: &mut Recorder) {
        self.passing.saved();
        for key in self.ended.drain(..) {
            for part in [Part::Rest, Part::Prepared, Part::Skipped] {
                recorder.forget_state(state_key(key, part));
            }
        }
        for tgid in self.changed.drain(..) {
            let Some(open) = self.open.get_mut(&tgid) else { continue };
            open.changed = false;
            if open.tell_skip(recorder)
                && let Some(rule) = &open.skip_told
            {
                recorder.save_state(state_key(open.key, Part::Skipped), rule.as_bytes());
            }
            self.state.clear();
            self.state.extend_from_slice(&open.masks.save());
            open.session.save(&mut self.state);
            let name = state_key(open.key, Part::Rest);
            // Who it is may be read, also by an agent that has not the key: the session's row must not be lost with it.
            self.sealed.clear();
            self.sealed.extend_from_slice(&[0; 4]);
            open.session.save_outline(&mut self.sealed);
            let outline = u32::try_from(self.sealed.len() - 4).unwrap_or(u32::MAX);
            if let Some(place) = self.sealed.first_chunk_mut() {
                *place = outline.to_le_bytes();
            }
            self.vault.seal(&name, &self.state, &mut self.sealed);
            recorder.save_state(name, &self.sealed);
            let prepared = open.session.prepared_version();
            if prepared != open.prepared {
                self.state.clear();
                open.session.save_prepared(&mut self.state);
                let name = state_key(open.key, Part::Prepared);
                self.sealed.clear();
                self.vault.seal(&name, &self.state, &mut self.sealed);
                recorder.save_state(name, &self.sealed);
                open.prepared = prepared;
            }
            open.saved = true;
        }
        // One session's large state must not be held forever.
        self.state.shrink_to(MOST_SPARE);
        self.sealed.shrink_to(MOST_SPARE);
    }

    /// Takes over the sessions of an earlier agent. Those that this one cannot read are written as they stood.
    pub(in crate::run) fn restore(&mut self, states: &[([u8; 16], Vec<u8>)], recorder: &mut Recorder) {
        let prepared: HashMap<_, _> = states
            .iter()
            .filter_map(|(name, state)| {
                Some((parse_key(*name, Part::Prepared)?, self.vault.unseal(name, state)?))
            })
            .collect();
        for (name, state) in states {
            let Some(key) = parse_key(*name, Part::Rest) else { continue };
            let prepared = prepared.get(&key).map(Vec::as_slice).unwrap_or_default();
            match restored(&self.vault, name, state, prepared, self.limits) {
                Ok((session, masks)) => {
                    let prepared = session.prepared_version();
                    let mut open =
                        Open { saved: true, prepared, masks, ..Open::new(key, session, &self.rules) };
                    open.skip_told = states
                        .iter()
                        .find(|(of, _)| *of == state_key(key, Part::Skipped))
                        .and_then(|(_, rule)| str::from_utf8(rule).ok())
                        .map(Arc::from);
                    open.rule(&self.rules, &mut self.orders);
                    if self.watching {
                        open.arm(&self.rules, &mut self.orders);
                    }
                    self.open.insert(key.tgid, open);
                }
                Err(error) => {
                    tracing::warn!(pid = key.tgid, %error, "a session cannot be taken over (see docs/errors.md#state-key)");
                    if let Some((info, end)) =
                        outline(state).and_then(|(bytes, _)| Session::read_outline(bytes).ok())
                    {
                        recorder.end(&info, &end);
                    }
                    self.ended.push(key);
                }
            }
        }
    }
}

/// A saved session, from what was sealed of it.
fn restored(
    vault: &Vault,
    name: &[u8; 16],
    state: &[u8],
    prepared: &[u8],
    limits: Limits,
) -> Result<(Session, SessionMasks), String> {
    let sealed = outline(state).map(|(_, sealed)| sealed).ok_or("its state is damaged")?;
    let state = vault.unseal(name, sealed).ok_or("the key of its state is gone")?;
    let (masks, state) = state.split_first_chunk::<SAVED>().ok_or("its state is damaged")?;
    let session = Session::restore(state, prepared, limits).map_err(|error| error.to_string())?;
    Ok((session, SessionMasks::restore(*masks)))
}

/// What of a saved state anybody may read, and what is sealed.
fn outline(state: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = state.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// What of a session a saved state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Rest,
    Prepared,
    /// The rule because of which it is left out of the record, as the record says.
    Skipped,
}

/// Names a saved state: the session, in 12 bytes, and the part.
fn state_key(key: SessionKey, part: Part) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&key.born.to_le_bytes());
    bytes[8..12].copy_from_slice(&key.tgid.to_le_bytes());
    bytes[12] = part as u8;
    bytes
}

/// The session, if the state is this part of one.
fn parse_key(bytes: [u8; 16], part: Part) -> Option<SessionKey> {
    let (born, rest) = bytes.split_first_chunk()?;
    let (tgid, _) = rest.split_first_chunk()?;
    let key = SessionKey { born: u64::from_le_bytes(*born), tgid: u32::from_le_bytes(*tgid), reserved: 0 };
    (state_key(key, part) == bytes).then_some(key)
}

/// Capacity that is kept between two rounds of saving.
const MOST_SPARE: usize = 1 << 20;
