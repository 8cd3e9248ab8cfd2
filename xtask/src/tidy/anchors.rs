//! Errors point to their explanation, and the explanation exists.

use super::Finding;
use super::source::Source;

/// Every place in `docs/errors.md` that code links to is a heading or an anchor of that page.
pub(super) fn exist(tree: &[Source]) -> Vec<Finding> {
    let known: Vec<String> = tree.iter().filter(|source| source.path == PAGE).flat_map(anchors).collect();
    let mut findings = Vec::new();
    for source in tree.iter().filter(|source| source.path.ends_with(".rs")) {
        for (at, _) in source.text.match_indices(LINK) {
            let name: String = source.text[at + LINK.len()..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
                .collect();
            // A link that is put together at run time is checked where its parts are named.
            if !name.is_empty() && !known.contains(&name) {
                findings.push(Finding {
                    path: source.path.clone(),
                    line: source.line(at),
                    advice: format!("{PAGE} has no `{name}`: write what happened, why, and what to do"),
                });
            }
        }
    }
    findings
}

/// What can be linked to: headings, as GitHub names them, and explicit anchors.
fn anchors(page: &Source) -> Vec<String> {
    let headings = page.text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        title
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || matches!(c, '-' | '_') => Some(c),
                _ => None,
            })
            .collect()
    });
    let explicit = ["id=\"", "name=\""].into_iter().flat_map(|key| {
        page.text.match_indices(key).filter_map(move |(at, _)| page.text[at + key.len()..].split('"').next())
    });
    headings.chain(explicit.map(str::to_owned)).collect()
}

const PAGE: &str = "docs/errors.md";
// In two parts, so that this file is no example of it.
const LINK: &str = concat!("docs/errors", ".md#");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_nowhere_is_found() {
        let link = |name: &str| format!("const A: &str = \"see {LINK}{name}\";");
        let tree = [
            Source::new(PAGE, "# Errors\n\n## No BTF (kernel)\n\n<a id=\"disk-full\"></a>\n"),
            Source::new("a.rs", &link("no-btf-kernel")),
            Source::new("b.rs", &link("disk-full")),
            Source::new("c.rs", &link("no-such-thing")),
        ];
        let found = exist(&tree);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path, "c.rs");
    }

    #[test]
    fn a_missing_page_leaves_no_link_valid() {
        assert_eq!(exist(&[Source::new("a.rs", &format!("// {LINK}x"))]).len(), 1);
    }
}
