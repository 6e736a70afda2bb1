//! Which sessions have begun and ended.

use std::{collections::BTreeMap, time::Duration};

use kubeedge_core::names::NodeName;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::hub::{HubHandle, SessionNumber};

/// Between two looks: a look takes time for each session there is, and in a storm sessions come by the thousands.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks at the hub when something has changed, at once or shortly after the last look. However late it looks, nothing is
/// missed: a session that was replaced has another number.
pub(crate) struct Sessions {
    hub: HubHandle,
    changes: watch::Receiver<u64>,
    known: BTreeMap<NodeName, SessionNumber>,
    next: Instant,
}

/// What is new.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) begun: Vec<(NodeName, SessionNumber)>,
    /// Nodes that have no session any more.
    pub(crate) ended: Vec<NodeName>,
}

impl Sessions {
    pub(crate) fn new(hub: HubHandle) -> Self {
        let mut changes = hub.changes();
        // Those that are there already are new.
        changes.mark_changed();
        Self { hub, changes, known: BTreeMap::new(), next: Instant::now() }
    }

    /// The sessions as of the last look.
    pub(crate) fn known(&self) -> &BTreeMap<NodeName, SessionNumber> {
        &self.known
    }

    /// Waits for news; `None` when there is no hub any more.
    ///
    /// # Cancel safety
    /// No news is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<News> {
        loop {
            sleep_until(self.next).await;
            // Marks it as seen; the future may be dropped only before that.
            self.changes.changed().await.ok()?;
            self.next = Instant::now() + PAUSE;
            let now = self.hub.connected();
            let begun = now.iter().filter(|(node, number)| self.known.get(*node) != Some(number));
            let begun: Vec<_> = begun.map(|(node, number)| (node.clone(), *number)).collect();
            let ended: Vec<_> = self.known.keys().filter(|node| !now.contains_key(*node)).cloned().collect();
            self.known = now;
            let news = News { begun, ended };
            if news != News::default() {
                return Some(news);
            }
        }
    }
}
