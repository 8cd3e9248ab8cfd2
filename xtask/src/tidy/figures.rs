//! The pages tell the figures that were measured.

use super::Finding;
use super::source::Source;
use crate::bench::{KEPT, PLACES, parse, render};
use crate::marked;

/// What stands in the places for figures is what the kept ones give.
pub(super) fn pages_are_of_the_measurements(tree: &[Source]) -> Vec<Finding> {
    let text = |path: &str| tree.iter().find(|source| source.path == path).map(|source| source.text.as_str());
    let finding = |path: &str, advice: String| Finding { path: path.to_owned(), line: 1, advice };
    // A tree without them has no figures, as in the tests of other rules.
    let Some(kept) = text(KEPT) else { return Vec::new() };
    let figures = match parse(kept) {
        Ok(figures) => figures,
        Err(error) => return vec![finding(KEPT, format!("{error:#}"))],
    };
    let mut findings = Vec::new();
    for (page, name) in PLACES {
        let now = text(page).unwrap_or_default();
        match marked::replaced(now, name, &render(name, &figures)) {
            Some(expected) if expected == now => {}
            Some(_) => findings.push(finding(
                page,
                format!("its figures are not those of {KEPT}: `cargo xtask bench --write` writes both"),
            )),
            None => {
                findings.push(finding(page, format!("it has no place `<!-- {name}: … -->` for the figures")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_that_were_changed_by_hand_are_found() {
        let kept = r#"{"cases":{},"programs":{},"idle":null,"growth":{}}"#;
        let figures = parse(kept).unwrap();
        let tree = |between: &dyn Fn(&str) -> String| {
            let mut tree = vec![Source::new(KEPT, kept)];
            for (page, name) in PLACES {
                let text = format!("<!-- {name}: by a task -->\n{}<!-- /{name} -->\n", between(name));
                tree.push(Source::new(page, &text));
            }
            tree
        };
        assert!(pages_are_of_the_measurements(&tree(&|name| render(name, &figures))).is_empty());
        assert_eq!(pages_are_of_the_measurements(&tree(&|_| "fast\n".to_owned())).len(), PLACES.len());
        assert_eq!(pages_are_of_the_measurements(&[Source::new(KEPT, kept)]).len(), PLACES.len());
    }
}
