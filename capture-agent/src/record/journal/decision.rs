//! Decisions, and what statements say of theirs, as bytes of the journal.

use std::sync::Arc;

use super::super::decision::{Decision, DecisionKind, Outcome};
use super::wire::{Cursor, Malformed, Read, put, put_text};
use crate::policy::Action;
use crate::session::{Judged, Micros, Verdict};

/// Appends a decision, but for its text, whose length and bytes are to follow.
pub(super) fn put_decision(out: &mut Vec<u8>, decision: &Decision) {
    out.extend_from_slice(&decision.at.0.to_le_bytes());
    out.push(place(&DecisionKind::ALL, decision.kind));
    out.push(decision.action.map_or(0, |action| 1 + place(&ACTIONS, action)));
    out.push(decision.verdict.map_or(0, |verdict| 1 + place(&Outcome::ALL, verdict)));
    for number in [decision.seq, decision.held_us] {
        out.push(u8::from(number.is_some()));
        put(out, number.unwrap_or_default());
    }
    put_text(out, decision.guardrail.as_deref());
    put_text(out, decision.reason.as_deref());
    put_text(out, decision.decided_by.as_deref());
    put_text(out, decision.message.as_deref());
}

/// Reads a decision and its text.
pub(super) fn decision(body: &mut Cursor<'_>) -> Read<Decision> {
    let at = Micros(i64::from_le_bytes(body.array()?));
    let mut decision = Decision::new(at_place(&DecisionKind::ALL, body.byte()?)?, at);
    decision.action = body.byte()?.checked_sub(1).map(|n| at_place(&ACTIONS, n)).transpose()?;
    decision.verdict = body.byte()?.checked_sub(1).map(|n| at_place(&Outcome::ALL, n)).transpose()?;
    for place in [&mut decision.seq, &mut decision.held_us] {
        *place = Some((body.bool()?, body.number()?)).filter(|(is, _)| *is).map(|(_, number)| number);
    }
    decision.guardrail = body.text()?.map(Arc::from);
    decision.reason = body.text()?.map(str::to_owned);
    decision.decided_by = body.text()?.map(Arc::from);
    decision.message = body.text()?.map(str::to_owned);
    decision.sql = body.text()?.map(Arc::from);
    Ok(decision)
}

/// Appends what was decided about a statement.
pub(super) fn put_judged(out: &mut Vec<u8>, judged: &Judged) {
    out.push(place(&VERDICTS, judged.verdict));
    put_text(out, judged.guardrail.as_deref());
    put_text(out, judged.decided_by.as_deref());
    put(out, judged.held_us);
}

/// Reads what was decided about a statement.
pub(super) fn judged(body: &mut Cursor<'_>) -> Read<Judged> {
    Ok(Judged {
        verdict: at_place(&VERDICTS, body.byte()?)?,
        guardrail: body.text()?.map(Arc::from),
        decided_by: body.text()?.map(Arc::from),
        held_us: body.number()?,
    })
}

fn place<T: Copy + PartialEq>(all: &[T], of: T) -> u8 {
    // Each list has all there are.
    all.iter().position(|one| *one == of).and_then(|at| u8::try_from(at).ok()).unwrap_or_default()
}

fn at_place<T: Copy>(all: &[T], at: u8) -> Read<T> {
    all.get(usize::from(at)).copied().ok_or(Malformed)
}

/// In the order of their numbers: new ones come at the end.
const ACTIONS: [Action; 5] =
    [Action::Observe, Action::Alert, Action::Approve, Action::Block, Action::Terminate];

const VERDICTS: [Verdict; 4] = [Verdict::Allowed, Verdict::Blocked, Verdict::Approved, Verdict::Denied];
