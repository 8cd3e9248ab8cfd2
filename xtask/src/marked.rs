//! Parts of a page that a task writes, between two comments.

/// `page` with `text` in the place that is marked with `name`; none if there is no such place.
pub(crate) fn replaced(page: &str, name: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(&format!("<!-- {name}:"))?;
    let (comment, rest) = rest.split_once("-->\n")?;
    let (_, after) = rest.split_once(&format!("<!-- /{name} -->"))?;
    Some(format!("{before}<!-- {name}:{comment}-->\n{text}<!-- /{name} -->{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stood_between_the_comments_is_replaced() {
        let page = "a\n<!-- x: by a task -->\nold\n<!-- /x -->\nb\n";
        assert_eq!(
            replaced(page, "x", "new\n").as_deref(),
            Some("a\n<!-- x: by a task -->\nnew\n<!-- /x -->\nb\n")
        );
        assert_eq!(replaced(page, "y", "new\n"), None);
        assert_eq!(replaced("<!-- x: never ends -->\n", "x", ""), None);
    }
}
