//! The rooms of the agent: which of them may do IO, and who may use whom.

use super::Finding;
use super::source::Source;

/// Rooms that are driven by their caller alone hold no clock, file, socket or environment.
pub(super) fn sans_io(tree: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (source, room) in rooms(tree).filter(|(_, room)| SANS_IO.contains(room)) {
        let code = source.code_without_tests();
        let of_std =
            heads(code, "std").into_iter().filter(|(_, module)| IO_OF_STD.contains(&module.as_str()));
        let others =
            IO.into_iter().flat_map(|word| Source::words(code, word).map(move |at| (at, word.to_owned())));
        for (at, forbidden) in of_std.chain(others) {
            findings.push(Finding {
                path: source.path.clone(),
                line: source.line(at),
                advice: format!(
                    "`{forbidden}` in `{room}`, which is sans-IO: take the value as an argument, or return what the \
                     caller shall do"
                ),
            });
        }
    }
    findings
}

/// A room uses only rooms above it, as ARCHITECTURE.md lists them; `run`, which wires them, may use all.
pub(super) fn order(tree: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (source, room) in rooms(tree) {
        let Some(own) = position(room) else {
            if !EXEMPT.contains(&room) {
                findings.push(Finding {
                    path: source.path.clone(),
                    line: 1,
                    advice: format!("`{room}` is no room of ARCHITECTURE.md: give it a place in the order, in xtask/src/tidy/rooms.rs too"),
                });
            }
            continue;
        };
        for (at, used) in heads(source.code_without_tests(), "crate") {
            if position(&used).is_some_and(|other| other > own) || EXEMPT.contains(&used.as_str()) {
                findings.push(Finding {
                    path: source.path.clone(),
                    line: source.line(at),
                    advice: format!(
                        "`{room}` uses `{used}`, which comes after it: move what both need up, or pass it in from run.rs"
                    ),
                });
            }
        }
    }
    findings
}

/// The agent's files, each with the room it belongs to.
fn rooms(tree: &[Source]) -> impl Iterator<Item = (&Source, &str)> {
    tree.iter().filter_map(|source| {
        let inside = source.path.strip_prefix("capture-agent/src/")?;
        let room = inside.split('/').next()?;
        let room = room.strip_suffix(".rs").unwrap_or(room);
        let test_file = inside.ends_with("tests.rs") || inside.contains("/tests/");
        (source.path.ends_with(".rs") && !test_file && !matches!(room, "lib" | "main"))
            .then_some((source, room))
    })
}

/// The names that follow `root` in paths such as `root::name` or `root::{name, …}`, with the position of each.
fn heads(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut used = Vec::new();
    for at in Source::words(code, root) {
        let begin = at + root.len();
        let Some(path) = code.get(begin..).and_then(|rest| rest.strip_prefix("::")) else { continue };
        let begin = begin + 2;
        let mut depth = 0;
        let mut expects_name = true;
        let mut name: Option<(usize, String)> = None;
        for (offset, c) in path.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            let in_name = c.is_alphanumeric() || c == '_';
            if in_name && expects_name && depth <= 1 {
                name.get_or_insert_with(|| (begin + offset, String::new())).1.push(c);
                continue;
            }
            if let Some(found) = name.take() {
                used.push(found);
                expects_name = false;
            }
            if depth == 0 {
                break;
            }
            if c == ',' && depth == 1 {
                expects_name = true;
            }
        }
        used.extend(name);
    }
    used
}

fn position(room: &str) -> Option<usize> {
    ORDER.iter().position(|name| *name == room)
}

/// In the order in which data flows.
const ORDER: [&str; 19] = [
    "telemetry",
    "probes",
    "streams",
    "frames",
    "session",
    "sql",
    "policy",
    "mask",
    "seal",
    "record",
    "upload",
    "events",
    "shim",
    "approvals",
    "enforce",
    "read",
    "keep",
    "config",
    "cli",
];

const EXEMPT: [&str; 1] = ["run"];

const SANS_IO: [&str; 6] = ["streams", "frames", "session", "sql", "policy", "mask"];

/// Not `net`, whose addresses are data, and not `thread`, whose stacks have a size.
const IO_OF_STD: [&str; 4] = ["fs", "os", "env", "process"];

const IO: [&str; 9] = [
    "tokio",
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "libc",
    "aya",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Vec<Source> {
        vec![Source::new(path, text)]
    }

    #[test]
    fn a_clock_in_a_sans_io_room_is_found() {
        let found =
            sans_io(&tree("capture-agent/src/frames/sync.rs", "// Instant\nuse std::time::Instant;\n"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 2);
        assert!(found[0].advice.contains("sans-IO"));
    }

    #[test]
    fn a_file_in_a_group_of_imports_is_found() {
        let found = sans_io(&tree(
            "capture-agent/src/sql/mod.rs",
            "use std::{\n    collections::HashMap,\n    fs::{self, File},\n};",
        ));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 3);
    }

    #[test]
    fn io_in_an_io_room_or_a_unit_test_is_fine() {
        assert!(sans_io(&tree("capture-agent/src/record/file.rs", "use std::fs;")).is_empty());
        assert!(
            sans_io(&tree(
                "capture-agent/src/sql/mod.rs",
                "fn a() {}\n#[cfg(test)]\nmod tests { use std::fs; }"
            ))
            .is_empty()
        );
        assert!(sans_io(&tree("capture-agent/src/sql/tests.rs", "use std::fs;")).is_empty());
    }

    #[test]
    fn a_room_that_uses_a_later_one_is_found() {
        let found = order(&tree("capture-agent/src/frames/mod.rs", "use crate::session::Exchange;"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].advice.contains("`frames` uses `session`"));
    }

    #[test]
    fn a_later_room_in_a_group_is_found_and_its_items_are_not_taken_for_rooms() {
        let text = "use crate::{\n    frames::{read, sql},\n    record,\n};\nfn f() { crate::cli::show() }";
        let found = order(&tree("capture-agent/src/session/mod.rs", text));
        let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [3, 5], "{found:?}");
    }

    #[test]
    fn run_may_use_all_and_none_may_use_run() {
        assert!(order(&tree("capture-agent/src/run.rs", "use crate::{cli, read};")).is_empty());
        assert_eq!(order(&tree("capture-agent/src/cli/mod.rs", "crate::run::start()")).len(), 1);
    }

    #[test]
    fn an_unknown_room_is_found() {
        assert_eq!(order(&tree("capture-agent/src/util.rs", "")).len(), 1);
    }
}
