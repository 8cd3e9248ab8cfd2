//! Who elsewhere is told of what is recorded.

use anyhow::anyhow;

use crate::config::{Config, Events};
use crate::events::{Feed, Settings};
use crate::record::Tap;

/// What tells them; none if nobody is to be told.
///
/// # Errors
///
/// What is configured makes no sense; it was checked before.
pub(super) fn tap(config: &Config) -> anyhow::Result<Option<Box<dyn Tap>>> {
    if config.events.is_empty() {
        return Ok(None);
    }
    let receivers: Result<Vec<_>, String> = config.events.iter().map(Events::receiver).collect();
    Ok(Some(Box::new(Feed::new(Settings {
        data_dir: config.data_dir.clone(),
        node: config.node.clone(),
        sync: config.journal_sync(),
        receivers: receivers.map_err(|error| anyhow!(error))?,
    }))))
}
