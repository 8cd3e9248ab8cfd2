//! How long a file may be.

use super::Finding;
use super::source::Source;

/// A file has one subject; past this length it has two.
pub(super) fn files_are_short(tree: &[Source]) -> Vec<Finding> {
    let code = tree.iter().filter(|source| CODE.iter().any(|suffix| source.path.ends_with(suffix)));
    code.filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > MAX_LINES).then(|| Finding {
            path: source.path.clone(),
            line: MAX_LINES + 1,
            advice: format!("{lines} lines, {MAX_LINES} at most: split it by subject"),
        })
    })
    .collect()
}

const MAX_LINES: usize = 500;
const CODE: [&str; 5] = [".rs", ".py", ".js", ".mjs", ".sh"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_that_is_too_long_is_found() {
        let tree = [
            Source::new("a.rs", &"\n".repeat(501)),
            Source::new("b.rs", &"\n".repeat(500)),
            Source::new("Cargo.lock", &"\n".repeat(5_000)),
        ];
        let found = files_are_short(&tree);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "a.rs");
    }
}
