//! Names that do not belong into the source.

use super::Finding;
use super::source::Source;

/// Accessors are named for what they yield (Rust API guidelines, C-GETTER).
pub(super) fn no_getters(tree: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree {
        for (at, _) in source.code.match_indices("fn get_") {
            findings.push(Finding {
                path: source.path.clone(),
                line: source.line(at),
                advice: "a `get_` function: name it for what it yields".to_owned(),
            });
        }
    }
    findings
}

/// A path into somebody's home folder works on one machine only.
pub(super) fn no_home_paths(tree: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree {
        for home in HOMES {
            for (at, _) in source.text.match_indices(home) {
                let follows = source.text[at + home.len()..].chars().next();
                if follows.is_some_and(|c| c.is_ascii_alphanumeric() || c == '.') {
                    findings.push(Finding {
                        path: source.path.clone(),
                        line: source.line(at),
                        advice: format!(
                            "a path under `{home}`: derive it from the environment, or make it an option"
                        ),
                    });
                }
            }
        }
    }
    findings
}

// In parts, so that this file is no example of them.
const HOMES: [&str; 3] = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_getter_is_found() {
        assert_eq!(no_getters(&[Source::new("a.rs", "impl A {\n    fn get_b(&self) {}\n}")]).len(), 1);
        assert!(no_getters(&[Source::new("a.rs", "fn target_b() {} // fn get_b")]).is_empty());
    }

    #[test]
    fn a_home_folder_is_found_in_any_text_file() {
        let found = no_home_paths(&[Source::new("README.md", &format!("see {}me/x", HOMES[1]))]);
        assert_eq!(found.len(), 1);
        assert!(
            no_home_paths(&[Source::new("README.md", &format!("the folder {} itself", HOMES[0]))]).is_empty()
        );
    }
}
