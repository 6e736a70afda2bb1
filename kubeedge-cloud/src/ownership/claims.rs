//! Claims that wait to be made.

use std::collections::{HashSet, VecDeque};

use kubeedge_core::names::NodeName;

/// Nodes to be claimed, each once, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Claims {
    order: VecDeque<NodeName>,
    waiting: HashSet<NodeName>,
}

impl Claims {
    pub(super) fn push(&mut self, node: &NodeName) {
        if self.waiting.insert(node.clone()) {
            self.order.push_back(node.clone());
        }
    }

    pub(super) fn pop(&mut self) -> Option<NodeName> {
        let node = self.order.pop_front()?;
        self.waiting.remove(&node);
        Some(node)
    }
}
