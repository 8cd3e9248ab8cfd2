//! Whether an Execute must wait: not if all that the session has prepared may run whatever its parameters are.
//!
//! What a guardrail says of a statement it says when that is prepared, unless it looks at the parameters or asks an approver. So a
//! session that is watched from its beginning, and of which nothing escaped, is held for new texts only. In doubt each
//! Execute is held: there is no way back from [`Prepared::Open`].
//!
//! ```text
//!   Nothing ── a Parse that may run ──► Decided ──┐
//!      │                                          │ parameters or an approver decide, a name that SQL has
//!      └──────────────────────────────────────────┴─ given, something unseen, other rules ──► Open
//! ```

use crate::policy::{Decision, Verdict};
use crate::session::What;
use crate::sql::Analysis;

/// What is known of a session's prepared statements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prepared {
    /// An Execute may need a verdict of its own.
    #[default]
    Open,
    /// The session was watched from its beginning, and has prepared nothing.
    Nothing,
    /// Every statement may run, with whatever parameters.
    Decided,
}

impl Prepared {
    /// A message was decided about.
    pub(super) fn note(&mut self, what: &What, analysis: &Analysis, decision: &Decision) {
        let open = match what {
            What::Query(_) => analysis.unknown.is_some() || unsettles(analysis),
            What::Parse { .. } => {
                decision.later || decision.verdict == Verdict::Approve || unsettles(analysis)
            }
            What::Execute { text, .. } => text.is_none(),
            What::Function { .. } => false,
            What::Unseen => true,
        };
        if open {
            *self = Self::Open;
        } else if *self == Self::Nothing && matches!(what, What::Parse { .. }) {
            // If it must not run, it is not prepared either.
            *self = Self::Decided;
        }
    }

    /// What the session is judged by has changed.
    pub fn judge_anew(&mut self) {
        if *self == Self::Decided {
            *self = Self::Open;
        }
    }
}

/// Whether a statement may give a name to another, or run one by its name: such a text was decided about as a part of another. Or
/// whether it may change what the session is judged by, which is known only once the server has said so.
fn unsettles(analysis: &Analysis) -> bool {
    analysis.kinds.iter().any(|kind| KINDS.contains(&kind.as_str()))
        || analysis.settings.iter().any(|name| name == "application_name" || name == "all")
        || analysis.functions.iter().any(|name| name.ends_with("set_config"))
}

const KINDS: [&str; 6] = ["prepare", "execute", "declare_cursor", "do", "call", "discard"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Examiner, Opinions, Reading, Unknown};

    fn analysis(sql: &str) -> Analysis {
        let examined = Examiner::default().examine(sql.as_bytes(), Reading::default(), Opinions::One);
        Analysis::clone(&examined.analysis)
    }

    fn parse() -> What {
        What::Parse { text: b"".as_slice().into(), types: 0 }
    }

    fn decided(verdict: Verdict, later: bool) -> Decision {
        Decision { verdict, guardrail: None, reason: None, observed: Vec::new(), later }
    }

    #[test]
    fn what_may_run_whatever_its_parameters_need_not_wait() {
        let mut prepared = Prepared::Nothing;
        prepared.note(
            &What::Query(b"".as_slice().into()),
            &analysis("select 1"),
            &decided(Verdict::Allow, false),
        );
        assert_eq!(prepared, Prepared::Nothing, "nothing is prepared");
        for verdict in [Verdict::Allow, Verdict::Block] {
            prepared.note(&parse(), &analysis("select $1"), &decided(verdict, false));
            assert_eq!(prepared, Prepared::Decided);
        }
    }

    #[test]
    fn in_doubt_it_waits_and_ever_after() {
        let doubts = [
            (parse(), "select $1", decided(Verdict::Allow, true)),
            (parse(), "select $1", decided(Verdict::Approve, false)),
            (parse(), "prepare s as select 1", decided(Verdict::Allow, false)),
            (What::Query(b"".as_slice().into()), "prepare s as select 1", decided(Verdict::Allow, false)),
            (What::Query(b"".as_slice().into()), "do $$ begin end $$", decided(Verdict::Allow, false)),
            (
                What::Query(b"".as_slice().into()),
                "set application_name = 'x'",
                decided(Verdict::Allow, false),
            ),
            (What::Query(b"".as_slice().into()), "reset all", decided(Verdict::Allow, false)),
            (parse(), "discard all", decided(Verdict::Allow, false)),
            (parse(), "select set_config('application_name', $1, false)", decided(Verdict::Allow, false)),
            (What::Query(b"".as_slice().into()), "not sql", decided(Verdict::Allow, false)),
            (What::Execute { text: None, params: None }, "", decided(Verdict::Allow, false)),
            (What::Unseen, "", decided(Verdict::Allow, false)),
        ];
        for (what, sql, decision) in doubts {
            for mut prepared in [Prepared::Nothing, Prepared::Decided, Prepared::Open] {
                prepared.note(&what, &analysis(sql), &decision);
                assert_eq!(prepared, Prepared::Open, "{what:?} {sql}");
                prepared.note(&parse(), &analysis("select $1"), &decided(Verdict::Allow, false));
                assert_eq!(prepared, Prepared::Open, "{what:?} {sql}");
            }
        }
        let unseen = Analysis::of_unknown(Unknown::Unseen);
        let mut prepared = Prepared::Decided;
        prepared.note(&What::Query(b"".as_slice().into()), &unseen, &decided(Verdict::Allow, false));
        assert_eq!(prepared, Prepared::Open);
    }

    #[test]
    fn other_rules_judge_what_is_prepared_anew() {
        for (mut before, after) in [
            (Prepared::Decided, Prepared::Open),
            (Prepared::Nothing, Prepared::Nothing),
            (Prepared::Open, Prepared::Open),
        ] {
            before.judge_anew();
            assert_eq!(before, after);
        }
    }
}
