//! What an approver is asked, and what may be answered.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::Approval;
use crate::session::SessionId;

/// A statement that is held until somebody approves it. Times are nanoseconds of `CLOCK_MONOTONIC`, as those of holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The session that waits.
    pub session: SessionId,
    /// Who waits.
    pub who: Who,
    /// The guardrail that caught the statement.
    pub guardrail: Arc<str>,
    /// What the guardrail says to clients.
    pub message: Option<String>,
    /// The statement's text without what is masked in it; none if it is not known.
    pub sql: Option<Arc<str>>,
    /// The text as it was sent: what an approval of a text covers. Shown to nobody.
    pub exact: Option<Arc<str>>,
    /// Its parameters, none for NULL, without what is masked.
    pub params: Vec<Option<String>>,
    /// Since when it is held.
    pub since: u64,
    /// When nobody needs to decide any more: the guardrail's `on_failure` does.
    pub deadline: u64,
    /// What an approval may cover.
    pub approval: Approval,
    /// How many other sessions it may block.
    pub max_blocked: Option<u32>,
}

/// Whose session it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// The role.
    pub user: Option<Arc<str>>,
    /// The database.
    pub database: Option<Arc<str>>,
    /// The `application_name`.
    pub application_name: Option<Arc<str>>,
    /// The client's address; none for Unix sockets.
    pub client_addr: Option<String>,
    /// The backend's process id, as the host sees it.
    pub host_pid: u32,
}

/// A request's name: short enough to be typed, and unlike those of the requests before and after it, so that a slip
/// of the finger hardly names another one that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u32);

/// What an approver wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Whether the statement may run, and what else may.
    pub answer: Answer,
    /// Why.
    pub reason: Option<String>,
}

/// Whether the statement may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It may, and so may what this covers.
    Approve(Cover),
    /// It may not.
    Deny,
}

/// What an approval covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cover {
    /// The statement that is held.
    #[default]
    Statement,
    /// The same text in the same session, until the session ends; whatever the parameters are.
    Text,
    /// Everything that this guardrail catches in the session, for so long.
    Everything(Duration),
}

/// Who decides: somebody who could connect to the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approver {
    /// The user id, from the kernel.
    pub uid: u32,
    /// The user's name, if the host's own file of users has it.
    pub name: Option<String>,
}

/// A request that somebody has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Which.
    pub id: RequestId,
    /// What was asked.
    pub request: Request,
    /// Who decided.
    pub approver: Approver,
    /// What.
    pub choice: Choice,
    /// When.
    pub at: u64,
}

impl Request {
    /// What an approval may cover, in the order of its extent.
    pub fn covers(&self) -> Vec<Cover> {
        // What has no text has no same text.
        let text = (self.approval.text && self.sql.is_some()).then_some(Cover::Text);
        let time = self.approval.at_most.map(Cover::Everything);
        [Some(Cover::Statement), text, time].into_iter().flatten().collect()
    }
}

impl RequestId {
    /// The name of request number `n`.
    pub(super) fn of(n: u32) -> Self {
        // Multiplying by an odd number permutes the numbers below 2^20.
        Self(n.wrapping_mul(SPREAD) % IDS)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for shift in [15, 10, 5, 0] {
            let digit = DIGITS[(self.0 >> shift & 31) as usize];
            write!(f, "{}", char::from(digit))?;
        }
        Ok(())
    }
}

/// Reads what [`RequestId`] prints, and what people take for it.
impl FromStr for RequestId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 4 {
            return Err(());
        }
        let digit = |byte: u8| {
            let byte = match byte.to_ascii_lowercase() {
                b'o' => b'0',
                b'i' | b'l' => b'1',
                byte => byte,
            };
            DIGITS.iter().position(|digit| *digit == byte).ok_or(())
        };
        text.bytes().try_fold(0, |id, byte| Ok(id << 5 | digit(byte)? as u32)).map(Self)
    }
}

impl fmt::Display for Approver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (uid {})", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

impl fmt::Display for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Statement => f.write_str("statement"),
            Self::Text => f.write_str("text"),
            Self::Everything(time) => {
                let seconds = time.as_secs();
                match (seconds % 3_600, seconds % 60) {
                    (0, _) => write!(f, "{}h", seconds / 3_600),
                    (_, 0) => write!(f, "{}m", seconds / 60),
                    _ => write!(f, "{seconds}s"),
                }
            }
        }
    }
}

/// `statement`, `text`, or a time such as `90s`, `30m` or `2h`.
impl FromStr for Cover {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "statement" => return Ok(Self::Statement),
            "text" => return Ok(Self::Text),
            _ => {}
        }
        let wrong = || format!("{text:?} is none of statement, text, or a time such as 90s, 30m or 2h");
        let (number, factor) = [("s", 1), ("m", 60), ("h", 3_600)]
            .into_iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
            .ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let seconds = number.checked_mul(factor).filter(|seconds| (1..=LONGEST).contains(seconds));
        seconds.map(|seconds| Self::Everything(Duration::from_secs(seconds))).ok_or_else(wrong)
    }
}

/// Crockford's base 32: no letter that looks like a digit.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Names there are: those of two requests that wait at once differ.
const IDS: u32 = 1 << 20;

/// Odd, and its multiples differ in all digits.
const SPREAD: u32 = 0x9_E377;

/// A day, in seconds: no guardrail allows more.
const LONGEST: u64 = 24 * 3_600;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_is_read_as_it_was_printed(n: u32) {
            let id = RequestId::of(n);
            let text = id.to_string();
            prop_assert_eq!(text.len(), 4);
            prop_assert_eq!(text.parse(), Ok(id));
            prop_assert_eq!(text.to_uppercase().parse(), Ok(id));
        }

        #[test]
        fn no_text_makes_reading_panic(text: String) {
            let _ = text.parse::<RequestId>();
            let _ = text.parse::<Cover>();
        }

        #[test]
        fn a_cover_is_read_as_it_was_printed(seconds in 1..=LONGEST) {
            let cover = Cover::Everything(Duration::from_secs(seconds));
            prop_assert_eq!(cover.to_string().parse(), Ok(cover));
        }
    }

    #[test]
    fn ids_repeat_only_after_all_of_them_and_neighbours_are_far_apart() {
        let ids: HashSet<_> = (0..IDS).map(RequestId::of).collect();
        assert_eq!(ids.len(), IDS as usize);
        for n in 0..1_000 {
            let [one, next] = [n, n + 1].map(|n| RequestId::of(n).to_string());
            let different = one.bytes().zip(next.bytes()).filter(|(a, b)| a != b).count();
            assert!(different >= 2, "{one} and {next}");
        }
    }

    #[test]
    fn what_people_take_for_a_digit_is_read_as_it() {
        assert_eq!("OIL0".parse::<RequestId>(), "0110".parse());
        assert_eq!("abc".parse::<RequestId>(), Err(()));
        assert_eq!("abcu".parse::<RequestId>(), Err(()));
        for wrong in ["", "0m", "25h", "m", "30", "-1m", "99999999999999999999h"] {
            assert!(wrong.parse::<Cover>().is_err(), "{wrong}");
        }
    }
}
