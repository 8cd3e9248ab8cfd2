//! What approvers and the agent say to each other: one JSON object per line, each question answered with one line.
//!
//! ```text
//! {"list":{}}                                              {"requests":[{"id":"k7f2",…},…]}
//! {"approve":{"id":"k7f2","cover":"text","reason":"…"}}    {"done":{"id":"k7f2"}}
//! {"deny":{"id":"k7f2","reason":"…"}}                      {"refused":{"why":"decided","message":"…"}}
//! ```
//!
//! A question is believed no further than its lengths: it is at most [`MOST_QUESTION`] bytes, and its reason at most
//! [`MOST_REASON`].

use serde::{Deserialize, Serialize};

use super::book::{Refusal, Waiting};
use super::request::{Answer, Choice, Cover, RequestId};

/// What an approver says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Question {
    /// Which statements wait?
    List {},
    /// This one may run.
    Approve(Approve),
    /// This one may not.
    Deny(Deny),
}

/// An approval, as it is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// Which request.
    pub id: String,
    /// [`Cover`], as a text; the statement only if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cover: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A denial, as it is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deny {
    /// Which request.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The statements that wait, the longest first.
    Requests(Vec<Listed>),
    /// It is decided.
    Done {
        /// The request.
        id: String,
    },
    /// It is not.
    Refused {
        /// Why, for programs.
        why: Why,
        /// Why, for people.
        message: String,
    },
}

/// Why a question is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It is no question, or a part of it has no meaning.
    Malformed,
    /// No such request waits.
    Unknown,
    /// Somebody has decided already.
    Decided,
    /// The statement waits no more.
    TooLate,
    /// The guardrail does not allow it.
    NotAllowed,
    /// The agent does not answer.
    Busy,
}

/// A request that waits, as it is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// What to call it.
    pub id: String,
    /// The session, as in every table of the record.
    pub session_id: String,
    /// The role.
    pub user: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// The `application_name`.
    pub application_name: Option<String>,
    /// The client's address; none for Unix sockets.
    pub client_addr: Option<String>,
    /// The backend's process id, as the host sees it.
    pub host_pid: u32,
    /// The guardrail that caught the statement.
    pub guardrail: String,
    /// What that guardrail says.
    pub message: Option<String>,
    /// The statement's text, as far as it is shown; none if it is not known.
    pub sql: Option<String>,
    /// Whether the text or parameters are longer than what is shown.
    pub truncated: bool,
    /// Its parameters, the first of them; none for NULL.
    pub params: Vec<Option<String>>,
    /// For how long it has waited, in milliseconds.
    pub waited_ms: u64,
    /// For how long it can still be decided, in milliseconds.
    pub left_ms: u64,
    /// What an approval may cover.
    pub covers: Vec<String>,
    /// How many sessions of its server wait for locks since: at most so many wait for this one's.
    pub blocked: Option<u32>,
    /// How many may, before the guardrail's `on_failure` decides.
    pub max_blocked: Option<u32>,
}

impl Question {
    /// Reads a line.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        if line.len() > MOST_QUESTION {
            return Err(format!("a question has at most {MOST_QUESTION} bytes"));
        }
        serde_json::from_slice(line).map_err(|error| format!("this is no question: {error}"))
    }

    /// What it wants decided; none if it only asks what waits.
    ///
    /// # Errors
    ///
    /// A part of it has no meaning.
    pub fn decision(self) -> Result<Option<(RequestId, Choice)>, String> {
        let (id, answer, reason) = match self {
            Self::List {} => return Ok(None),
            Self::Approve(Approve { id, cover, reason }) => {
                let cover = cover.map_or(Ok(Cover::Statement), |cover| cover.parse())?;
                (id, Answer::Approve(cover), reason)
            }
            Self::Deny(Deny { id, reason }) => (id, Answer::Deny, Some(reason)),
        };
        if reason.as_ref().is_some_and(|reason| reason.len() > MOST_REASON) {
            return Err(format!("a reason has at most {MOST_REASON} bytes"));
        }
        if answer == Answer::Deny && reason.as_ref().is_none_or(|reason| reason.trim().is_empty()) {
            return Err("a denial needs a reason: the record keeps it".to_owned());
        }
        let id =
            id.parse().map_err(|()| format!("{id:?} is no name of a request: four letters and digits"))?;
        Ok(Some((id, Choice { answer, reason })))
    }
}

impl Reply {
    /// The line, with its end.
    pub fn line(&self) -> Vec<u8> {
        // No type here refuses to be serialized.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// A refusal.
    pub(super) fn refused(why: Why, message: impl Into<String>) -> Self {
        Self::Refused { why, message: message.into() }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let why = match refusal {
            Refusal::Unknown(_) => Why::Unknown,
            Refusal::Decided { .. } => Why::Decided,
            Refusal::Withdrawn(_) | Refusal::Overdue(_) => Why::TooLate,
            Refusal::TooMuch { .. } => Why::NotAllowed,
        };
        Self::refused(why, refusal.to_string())
    }
}

impl Listed {
    /// How a request that waits is listed at this time, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) fn of(id: RequestId, waiting: &Waiting, now: u64) -> Self {
        let Waiting { request, blocked } = waiting;
        let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
        let mut truncated = request.params.len() > MOST_PARAMS;
        let mut cut = |text: &str, most: usize| {
            truncated |= text.len() > most;
            text.get(..text.floor_char_boundary(most)).unwrap_or_default().to_owned()
        };
        let sql = request.sql.as_deref().map(|sql| cut(sql, MOST_SQL));
        let params = request.params.iter().take(MOST_PARAMS);
        let params = params.map(|param| param.as_deref().map(|param| cut(param, MOST_PARAM))).collect();
        Self {
            id: id.to_string(),
            session_id: request.session.0.hyphenated().to_string(),
            user: text(&request.who.user),
            database: text(&request.who.database),
            application_name: text(&request.who.application_name),
            client_addr: request.who.client_addr.clone(),
            host_pid: request.who.host_pid,
            guardrail: request.guardrail.to_string(),
            message: request.message.clone(),
            sql,
            truncated,
            params,
            waited_ms: now.saturating_sub(request.since) / 1_000_000,
            left_ms: request.deadline.saturating_sub(now) / 1_000_000,
            covers: request.covers().iter().map(Cover::to_string).collect(),
            blocked: *blocked,
            max_blocked: request.max_blocked,
        }
    }
}

/// Bytes of a question.
pub(super) const MOST_QUESTION: usize = 8 << 10;

/// Bytes of a reason: it stands in the record, and with a denial in the client's error.
pub(super) const MOST_REASON: usize = 1_000;

/// Bytes of a text that are listed; the record has it whole.
pub(super) const MOST_SQL: usize = 16 << 10;

/// Parameters that are listed, and bytes of each.
const MOST_PARAMS: usize = 32;
const MOST_PARAM: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_asked_is_read_or_refused(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(question) = Question::parse(&line) {
                let _ = question.decision();
            }
        }

        #[test]
        fn what_looks_like_a_question_is_read_or_refused(
            verb in "list|approve|deny|x", key in "id|cover|reason|x", value in "\\PC{0,30}", more in "\\PC{0,8}",
        ) {
            let line = format!(r#"{{"{verb}":{{"id":"k7f2","{key}":{value:?}}}}}{more}"#);
            if let Ok(question) = Question::parse(line.as_bytes()) {
                let _ = question.decision();
            }
        }
    }

    #[test]
    fn questions_say_what_they_want() {
        let decision = |line: &str| Question::parse(line.as_bytes()).and_then(Question::decision);
        assert_eq!(decision(r#"{"list":{}}"#), Ok(None));
        let (id, choice) = decision(r#"{"approve":{"id":"K7F2","cover":"30m"}}"#).unwrap().unwrap();
        assert_eq!((id.to_string().as_str(), choice.reason), ("k7f2", None));
        assert_eq!(choice.answer, Answer::Approve(Cover::Everything(std::time::Duration::from_secs(1_800))));
        let (_, choice) = decision(r#"{"deny":{"id":"k7f2","reason":"no"}}"#).unwrap().unwrap();
        assert_eq!(choice, Choice { answer: Answer::Deny, reason: Some("no".to_owned()) });
        let long = format!(r#"{{"deny":{{"id":"k7f2","reason":"{}"}}}}"#, "x".repeat(MOST_REASON + 1));
        for (line, why) in [
            ("{}", "no question"),
            (r#"{"list":{}} x"#, "no question"),
            (r#"{"list":{"all":true}}"#, "unknown field"),
            (r#"{"approve":{"id":"k7f2","uid":0}}"#, "unknown field"),
            (r#"{"approve":{"id":"k7f2","cover":"everything"}}"#, "none of statement"),
            (r#"{"approve":{"id":"k7"}}"#, "no name of a request"),
            (r#"{"deny":{"id":"k7f2"}}"#, "missing field"),
            (r#"{"deny":{"id":"k7f2","reason":" "}}"#, "needs a reason"),
            (&long, "at most 1000 bytes"),
        ] {
            let refused = decision(line).unwrap_err();
            assert!(refused.contains(why), "{line}: {refused}");
        }
        assert!(Question::parse(&[b' '; MOST_QUESTION + 1]).unwrap_err().contains("at most"));
    }
}
