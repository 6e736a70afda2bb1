//! Which nodes are ours. Pure: no clock, no task.

use std::collections::{HashMap, HashSet};

use kubeedge_core::names::NodeName;

use super::{instance::InstanceName, lease::Held};
use crate::{hub::SessionNumber, sync::Standing};

/// What is known of the nodes that have a session here or a Lease anywhere.
///
/// A session that begins is claimed once, after which the Lease has a version. A later version that names somebody else
/// means that the node has connected there since. What comes late, as a watch does, has an earlier version and means
/// nothing.
///
/// `S` tells sessions apart.
#[derive(Debug)]
pub(super) struct Holdings<S = SessionNumber> {
    me: InstanceName,
    nodes: HashMap<NodeName, Holding<S>>,
}

#[derive(Debug)]
struct Holding<S> {
    lease: Option<Held>,
    /// Version up to which the Lease is known, as it may be gone.
    known: u64,
    session: Option<Claim<S>>,
}

impl<S> Default for Holding<S> {
    fn default() -> Self {
        Self { lease: None, known: 0, session: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim<S> {
    session: S,
    state: ClaimState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClaimState {
    /// Still to be made.
    Open,
    Made,
    /// Somebody else came after us: the session is to end.
    Lost,
}

/// What follows from something that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict<S = SessionNumber> {
    /// The standing of the node may be another one.
    pub(super) changed: bool,
    /// This session has to end.
    pub(super) close: Option<S>,
    /// The node is to be claimed.
    pub(super) claim: bool,
}

impl<S> Default for Verdict<S> {
    fn default() -> Self {
        Self { changed: false, close: None, claim: false }
    }
}

impl<S: Copy + PartialEq> Holdings<S> {
    pub(super) fn new(me: InstanceName) -> Self {
        Self { me, nodes: HashMap::new() }
    }

    /// `node` has connected here. If `alone` and the node is ours already, there is nothing to write: nobody else is there
    /// that could claim it.
    pub(super) fn connected(&mut self, node: &NodeName, session: S, alone: bool) -> Verdict<S> {
        let me = &self.me;
        let holding = self.nodes.entry(node.clone()).or_default();
        let ours = holding.lease.as_ref().is_some_and(|held| held.holder == *me);
        let state = if ours && alone { ClaimState::Made } else { ClaimState::Open };
        holding.session = Some(Claim { session, state });
        Verdict { changed: true, close: None, claim: state == ClaimState::Open }
    }

    /// The session of `node` has ended. The Lease stays as it is: it is ours until somebody takes it.
    pub(super) fn disconnected(&mut self, node: &NodeName) -> Verdict<S> {
        if let Some(holding) = self.nodes.get_mut(node) {
            holding.session = None;
            self.trim(node);
        }
        Verdict { changed: true, ..Verdict::default() }
    }

    /// The Lease of `node` was seen.
    pub(super) fn seen(&mut self, node: &NodeName, held: Held) -> Verdict<S> {
        let me = &self.me;
        let holding = self.nodes.entry(node.clone()).or_default();
        if held.revision <= holding.known {
            return Verdict::default();
        }
        holding.known = held.revision;
        let ours = held.holder == *me;
        let changed = holding.lease.replace(held).is_none_or(|before| (before.holder == *me) != ours);
        let close = if ours { None } else { holding.lose() };
        Verdict { changed, close, claim: false }
    }

    /// The Lease of `node` is gone; `revision` is the version of its end, or the last one that is known.
    pub(super) fn gone(&mut self, node: &NodeName, revision: u64) -> Verdict<S> {
        let Some(holding) = self.nodes.get_mut(node) else { return Verdict::default() };
        if revision < holding.known {
            return Verdict::default();
        }
        holding.known = revision;
        holding.lease = None;
        let mut claim = false;
        if let Some(own) = &mut holding.session
            && own.state == ClaimState::Made
        {
            // Not by anybody who has the node.
            own.state = ClaimState::Open;
            claim = true;
        }
        self.trim(node);
        Verdict { changed: true, close: None, claim }
    }

    /// Only these nodes have Leases as of a list.
    pub(super) fn retain(&mut self, there: &HashSet<NodeName>) -> Vec<(NodeName, Verdict<S>)> {
        let held = self.nodes.iter().filter(|(_, holding)| holding.lease.is_some());
        let gone: Vec<_> = held.filter(|(node, _)| !there.contains(*node)).map(|(node, _)| node.clone()).collect();
        gone.into_iter()
            .map(|node| {
                let known = self.nodes.get(&node).map_or(0, |holding| holding.known);
                let verdict = self.gone(&node, known);
                (node, verdict)
            })
            .collect()
    }

    /// The session of `node` that is to be claimed, and what is known of its Lease.
    pub(super) fn open_claim(&self, node: &NodeName) -> Option<(S, Option<Held>)> {
        let holding = self.nodes.get(node)?;
        let own = holding.session.filter(|own| own.state == ClaimState::Open)?;
        Some((own.session, holding.lease.clone()))
    }

    /// The claim for `session` was written, and the Lease is as in `held`.
    pub(super) fn claimed(&mut self, node: &NodeName, session: S, held: Held) -> Verdict<S> {
        let revision = held.revision;
        let mut verdict = self.seen(node, held);
        verdict.changed = true;
        let me = &self.me;
        let Some(holding) = self.nodes.get_mut(node) else { return verdict };
        if let Some(own) = &mut holding.session
            && own.session == session
            && own.state == ClaimState::Open
        {
            own.state = ClaimState::Made;
            // The watch may have been faster than the answer.
            let overtaken = holding.known > revision && holding.lease.as_ref().is_some_and(|lease| lease.holder != *me);
            if overtaken {
                verdict.close = holding.lose();
            }
        }
        verdict
    }

    /// Whether `node` is ours, if the view of the Leases is up to date.
    pub(super) fn standing(&self, node: &NodeName) -> Standing {
        let Some(holding) = self.nodes.get(node) else { return Standing::Other };
        let ours = holding.lease.as_ref().is_some_and(|held| held.holder == self.me);
        match holding.session.map(|own| own.state) {
            Some(ClaimState::Lost) => Standing::Other,
            _ if ours => Standing::Owner,
            Some(_) => Standing::Candidate,
            None => Standing::Other,
        }
    }

    /// Who has `node`, and by which version of its Lease.
    pub(super) fn held(&self, node: &NodeName) -> Option<&Held> {
        self.nodes.get(node)?.lease.as_ref()
    }

    /// Whether `node` has a session here.
    pub(super) fn is_connected(&self, node: &NodeName) -> bool {
        self.nodes.get(node).is_some_and(|holding| holding.session.is_some())
    }

    /// All nodes with a Lease.
    pub(super) fn leased(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes.iter().filter(|(_, holding)| holding.lease.is_some()).map(|(node, _)| node)
    }

    /// All nodes that are ours or may become so.
    pub(super) fn ours(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes.keys().filter(|node| self.standing(node) != Standing::Other)
    }

    fn trim(&mut self, node: &NodeName) {
        if self.nodes.get(node).is_some_and(|holding| holding.lease.is_none() && holding.session.is_none()) {
            self.nodes.remove(node);
        }
    }
}

impl<S: Copy> Holding<S> {
    /// The node was claimed elsewhere: what was claimed here before is over.
    fn lose(&mut self) -> Option<S> {
        let own = self.session.as_mut().filter(|own| own.state == ClaimState::Made)?;
        own.state = ClaimState::Lost;
        Some(own.session)
    }
}

#[cfg(test)]
#[path = "holdings/tests.rs"]
mod tests;
