//! The table of kernels says what their tests said.

use super::Finding;
use super::source::Source;
use crate::kernels::{results, table};

/// The README's table is what the kept results give.
pub(super) fn table_is_of_the_results(tree: &[Source]) -> Vec<Finding> {
    let text = |path: &str| tree.iter().find(|source| source.path == path).map(|source| source.text.as_str());
    let finding = |path: &str, advice: String| vec![Finding { path: path.to_owned(), line: 1, advice }];
    // A tree without either has no table, as in the tests of other rules.
    let (Some(page), Some(kept)) = (text(table::PAGE), text(results::KEPT)) else { return Vec::new() };
    let all = match results::parse(kept) {
        Ok(all) => all,
        Err(error) => return finding(results::KEPT, format!("{error:#}")),
    };
    match table::replaced(page, &table::render(&all)) {
        Some(expected) if expected == page => Vec::new(),
        Some(_) => finding(
            table::PAGE,
            format!(
                "its table of kernels is not what {} gives: `cargo xtask kernels --write` writes both",
                results::KEPT
            ),
        ),
        None => finding(table::PAGE, "it has no place for the table of kernels".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_was_changed_by_hand_is_found() {
        let kept = "[]\n";
        let page = |table: &str| table::replaced(table::EMPTY, table).unwrap();
        let tree = |table: &str| [Source::new(table::PAGE, &page(table)), Source::new(results::KEPT, kept)];
        assert!(table_is_of_the_results(&tree(&table::render(&[]))).is_empty());
        assert_eq!(table_is_of_the_results(&tree("all kernels\n")).len(), 1);
        assert_eq!(
            table_is_of_the_results(&[Source::new(table::PAGE, ""), Source::new(results::KEPT, kept)]).len(),
            1
        );
    }
}
