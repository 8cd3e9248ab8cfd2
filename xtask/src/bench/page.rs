//! The pages that tell the figures.

use super::figures::{Figures, KEPT};
use super::{chart, report};
use crate::{marked, shell};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::PathBuf;

/// The pages with a place for figures, relative to the project's folder, and the names of the places.
pub(crate) const PLACES: [(&str, &str); 2] = [("README.md", "cost"), ("docs/performance.md", "figures")];

/// What belongs into a place.
pub(crate) fn render(name: &str, figures: &Figures) -> String {
    if name == "cost" {
        return report::summary(figures).markdown();
    }
    let mut text = format!("### Aims\n\n{}", report::targets(figures).markdown());
    text += &format!("\n### Everything\n\n{}", report::cases(figures).markdown());
    text += &format!("\n### The kernel side's programs\n\n{}", report::programs(figures).markdown());
    if let Some(idle) = &figures.idle {
        text += &format!("\n### Sessions that do nothing\n\n{}\n", report::idle(idle));
    }
    if !figures.growth.is_empty() {
        text += "\n### What a transaction costs along each scale\n";
    }
    for (name, points) in &figures.growth {
        text += &format!("\n{}", report::growth(name, points).markdown());
    }
    text
}

/// Keeps the figures, and brings the pages and the figure up to date.
pub(super) fn write(figures: &Figures) -> Result<()> {
    figures.write(&shell::root().join(KEPT))?;
    for (page, name) in PLACES {
        let path = shell::root().join(page);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = marked::replaced(&text, name, &render(name, figures))
            .with_context(|| format!("{page} has no place `<!-- {name}: … -->` for the figures"))?;
        put(path, &text)?;
    }
    if figures.growth.is_empty() {
        return Ok(());
    }
    put(shell::root().join(DRAWN), &chart::draw(&figures.growth)?)
}

fn put(path: PathBuf, text: &str) -> Result<()> {
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

const DRAWN: &str = "docs/performance.svg";
