//! Which sessions have begun and ended.

use std::collections::BTreeMap;

use kubeedge_core::names::NodeName;

use crate::hub::{HubHandle, SessionFeed, SessionNumber};

/// The sessions that there are, and how they change.
pub(crate) struct Sessions {
    feed: SessionFeed,
    known: BTreeMap<NodeName, SessionNumber>,
}

/// What is new.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) begun: Vec<(NodeName, SessionNumber)>,
    /// Nodes that have no session any more.
    pub(crate) ended: Vec<NodeName>,
}

impl Sessions {
    /// Those that are there already are new.
    pub(crate) fn new(hub: &HubHandle) -> Self {
        Self { feed: hub.follow(), known: BTreeMap::new() }
    }

    /// The sessions as of the last look.
    pub(crate) fn known(&self) -> &BTreeMap<NodeName, SessionNumber> {
        &self.known
    }

    /// Waits for news.
    ///
    /// # Cancel safety
    /// No news is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> News {
        loop {
            let mut news = News::default();
            for (node, session) in self.feed.next().await {
                match session {
                    Some(number) if self.known.insert(node.clone(), number) != Some(number) => {
                        news.begun.push((node, number));
                    }
                    None if self.known.remove(&node).is_some() => news.ended.push(node),
                    _ => {}
                }
            }
            if news != News::default() {
                return news;
            }
        }
    }
}
