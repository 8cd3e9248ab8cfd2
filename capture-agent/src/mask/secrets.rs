//! What is masked without any rule: passwords in statements that set them, and connection strings with passwords.

use std::sync::LazyLock;

use regex::Regex;

use super::literal::{Marks, is_string, value_of};
use super::rules::ALWAYS;
use crate::session::lexer::Lexer;
use crate::sql::tree::{Node, Value};

/// Whether a look at the text leaves any chance that it holds one.
pub(super) fn may_have(text: &str) -> bool {
    SUSPECT.is_match(text)
}

/// The secrets in a text whose parse tree is `tree`.
pub(super) fn marks(tree: &Node, text: &str, standard_conforming_strings: bool) -> Marks {
    let mut marks = Marks::default();
    let mut left = vec![tree];
    while let Some(node) = left.pop() {
        of_node(node, &mut marks);
        for (_, value) in node.fields() {
            match value {
                Value::Node(child) => left.push(child),
                Value::List(list) => left.extend(list.iter().filter_map(Value::as_node)),
                _ => {}
            }
        }
    }
    let lexer = Lexer::new(text, standard_conforming_strings);
    for token in lexer.clone().filter(|token| is_string(token.kind)) {
        let value = value_of(token.kind, text.get(token.range()).unwrap_or_default());
        if is_connection(&value) {
            marks.at.push((token.start, ALWAYS));
        } else if sets_password(&value) {
            // A statement within the statement: a body, or a text that is put together.
            marks.strings = Some(ALWAYS);
        }
    }
    marks
}

/// Whether a value is a connection string with a password in it.
pub(super) fn is_connection(value: &str) -> bool {
    value.len() >= LEAST_CONNECTION
        && (value.contains('=') || value.contains("://"))
        && CONNECTION.is_match(value)
}

fn of_node(node: &Node, marks: &mut Marks) {
    let place = |field: &str| usize::try_from(node.number(field)).unwrap_or_default();
    match node.name {
        "DefElem" => {
            let name = node.text("defname").unwrap_or_default().to_ascii_lowercase();
            if SECRET_NAMES.iter().any(|part| name.contains(part)) && node.node("arg").is_some_and(is_text) {
                marks.strings_from.push((place("location"), ALWAYS));
            }
        }
        "CreateUserMappingStmt" | "AlterUserMappingStmt" => {
            for option in node.list("options").iter().filter_map(Value::as_node) {
                let harmless =
                    matches!(option.text("defname"), Some("user" | "username" | "dbname" | "host" | "port"));
                if !harmless && option.node("arg").is_some_and(is_text) {
                    let place = usize::try_from(option.number("location")).unwrap_or_default();
                    marks.strings_from.push((place, ALWAYS));
                }
            }
        }
        "CreateSubscriptionStmt" | "AlterSubscriptionStmt" if node.text("conninfo").is_some() => {
            marks.strings_from.push((place("conninfo_location"), ALWAYS));
        }
        "FuncCall" => {
            let name = node.list("funcname").last().and_then(Value::as_string).unwrap_or_default();
            if !name.starts_with("dblink") {
                return;
            }
            let constants = node.list("args").iter().filter_map(Value::as_node);
            for constant in constants.filter(|arg| arg.name == "AConst") {
                let value = constant.node("val").and_then(|value| value.text("sval"));
                // A name, or a query, has neither.
                if value.is_some_and(|value| value.contains("password") || value.contains("://")) {
                    let place = usize::try_from(constant.number("location")).unwrap_or_default();
                    marks.at.push((place, ALWAYS));
                }
            }
        }
        _ => {}
    }
}

fn is_text(node: &Node) -> bool {
    node.name == "String"
}

/// Whether a text within a statement seems to set a password.
fn sets_password(value: &str) -> bool {
    value.len() >= LEAST_CONNECTION && SETS_PASSWORD.is_match(value)
}

/// Parts of the names of options that are secret, of servers, user mappings and foreign tables of any kind.
const SECRET_NAMES: [&str; 9] =
    ["passw", "pwd", "secret", "token", "passcode", "passphrase", "api_key", "access_key", "private_key"];
/// `password=x`
const LEAST_CONNECTION: usize = 10;

fn regex(pattern: &str) -> Regex {
    // Each is a constant that the tests look at.
    Regex::new(pattern).unwrap_or_else(|_| unreachable!())
}

static SUSPECT: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?i)passw|\bpwd\b|secret|token|passcode|passphrase|_key\b|subscription|dblink|\bmapping\b|://[^\s/@]*:[^\s@]*@",
    )
});
static CONNECTION: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"(?i)\b(?:ssl)?(?:password|passwd|pwd)\s*=\s*\S|://[^\s/@:]*:[^\s@]+@|[?&]password=[^&\s]")
});
static SETS_PASSWORD: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"(?is)\b(?:role|user|group|mapping|subscription|dblink\w*|server)\b.*\bpassword\b")
});
