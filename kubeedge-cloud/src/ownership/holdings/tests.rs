#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn node() -> NodeName {
    NodeName::new("edge-1").unwrap()
}

fn instance(name: &str) -> InstanceName {
    InstanceName::new(name).unwrap()
}

fn held(holder: &str, revision: u64) -> Held {
    Held { holder: instance(holder), revision, transitions: 0, since: None }
}

fn holdings() -> Holdings<u32> {
    Holdings::new(instance("a"))
}

#[test]
fn a_session_is_ours_when_it_is_claimed_and_not_before() {
    let mut a = holdings();
    assert_eq!(a.standing(&node()), Standing::Other);
    a.seen(&node(), held("b", 3));
    assert!(a.connected(&node(), 1, false).claim);
    assert_eq!(a.standing(&node()), Standing::Candidate);
    assert_eq!(a.open_claim(&node()), Some((1, Some(held("b", 3)))));
    let verdict = a.claimed(&node(), 1, held("a", 5));
    assert_eq!((verdict.changed, verdict.close, a.standing(&node())), (true, None, Standing::Owner));
    assert_eq!(a.open_claim(&node()), None);
    a.disconnected(&node());
    assert_eq!(a.standing(&node()), Standing::Owner, "what it acknowledged last may still be written");
    a.seen(&node(), held("b", 9));
    assert_eq!(a.standing(&node()), Standing::Other);
}

#[test]
fn who_is_overtaken_closes_its_session_and_who_is_late_does_not() {
    let mut a = holdings();
    a.connected(&node(), 1, false);
    // The watch is late: this claim was before ours.
    a.claimed(&node(), 1, held("a", 5));
    assert_eq!(a.seen(&node(), held("b", 4)), Verdict::default());
    assert_eq!(a.standing(&node()), Standing::Owner);
    let lost = a.seen(&node(), held("b", 6));
    assert_eq!((lost.close, a.standing(&node())), (Some(1), Standing::Other));
    assert_eq!(a.open_claim(&node()), None, "a session that is over is not claimed again");
    // The node comes back before the old session is gone.
    assert!(a.connected(&node(), 2, false).claim);
    assert_eq!(a.open_claim(&node()).unwrap().0, 2);
    // Our answer is late, the watch was faster.
    a.seen(&node(), held("a", 7));
    a.seen(&node(), held("b", 8));
    assert_eq!(a.claimed(&node(), 2, held("a", 7)).close, Some(2));
}

#[test]
fn a_lease_that_is_removed_is_made_again() {
    let mut a = holdings();
    a.connected(&node(), 1, false);
    a.claimed(&node(), 1, held("a", 5));
    let verdict = a.gone(&node(), 6);
    assert!(verdict.claim && verdict.close.is_none());
    assert_eq!(a.standing(&node()), Standing::Candidate);
    a.claimed(&node(), 1, held("a", 7));
    assert_eq!(a.gone(&node(), 6), Verdict::default(), "that was the one before");
    assert_eq!(a.retain(&HashSet::from([node()])), []);
    assert_eq!(a.retain(&HashSet::new()).len(), 1);
    assert_eq!(a.standing(&node()), Standing::Candidate);
}

#[test]
fn nothing_is_written_for_a_node_that_is_ours_when_nobody_else_is_there() {
    let mut a = holdings();
    assert!(a.connected(&node(), 1, true).claim, "it has no Lease yet");
    a.claimed(&node(), 1, held("a", 5));
    assert!(!a.connected(&node(), 2, true).claim);
    assert_eq!(a.standing(&node()), Standing::Owner);
    assert!(a.connected(&node(), 3, false).claim, "somebody may have claimed it meanwhile");
    // That one was not claimed, yet it is over when somebody else comes.
    a.connected(&node(), 4, true);
    assert_eq!(a.seen(&node(), held("b", 6)).close, Some(4));
}

#[test]
fn what_is_gone_costs_nothing() {
    let mut a = holdings();
    a.connected(&node(), 1, false);
    a.disconnected(&node());
    a.seen(&node(), held("b", 5));
    a.gone(&node(), 6);
    assert!(a.nodes.is_empty());
}

/// Several instances, one Lease, and watches that lag as they please.
#[derive(Debug)]
struct World {
    instances: Vec<Holdings<u32>>,
    /// All versions of the Lease.
    leases: Vec<(usize, u64)>,
    /// How much of it each has seen.
    watched: Vec<usize>,
    sessions: Vec<Option<u32>>,
    last: u32,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl World {
    fn new() -> Self {
        Self {
            instances: NAMES.iter().map(|name| Holdings::new(instance(name))).collect(),
            leases: vec![],
            watched: vec![0; NAMES.len()],
            sessions: vec![None; NAMES.len()],
            last: 0,
        }
    }

    fn obey(&mut self, at: usize, verdict: Verdict<u32>) {
        if let Some(closed) = verdict.close
            && self.sessions[at] == Some(closed)
        {
            self.sessions[at] = None;
            self.instances[at].disconnected(&node());
        }
    }

    /// The node connects; its old sessions are half-open and notice nothing.
    fn connect(&mut self, at: usize) {
        self.last += 1;
        self.sessions[at] = Some(self.last);
        self.instances[at].connected(&node(), self.last, false);
    }

    fn claim(&mut self, at: usize) {
        let Some((session, base)) = self.instances[at].open_claim(&node()) else { return };
        let current = self.leases.last().copied();
        if base.map(|held| held.revision) != current.map(|(_, revision)| revision) {
            // Conflict: it is read and tried again later.
            if let Some((holder, revision)) = current {
                let verdict = self.instances[at].seen(&node(), held(NAMES[holder], revision));
                self.obey(at, verdict);
            }
            return;
        }
        let revision = current.map_or(1, |(_, revision)| revision + 1);
        self.leases.push((at, revision));
        let verdict = self.instances[at].claimed(&node(), session, held(NAMES[at], revision));
        self.obey(at, verdict);
    }

    fn watch(&mut self, at: usize) {
        if let Some((holder, revision)) = self.leases.get(self.watched[at]).copied() {
            self.watched[at] += 1;
            let verdict = self.instances[at].seen(&node(), held(NAMES[holder], revision));
            self.obey(at, verdict);
        }
    }
}

proptest! {
    /// Whoever connects where, and however late anybody learns of it: in the end there is one session, its instance owns
    /// the node and no other does, and the node was not thrown out of the last place that it connected to unless a
    /// claim for an older session came in between.
    #[test]
    fn in_the_end_one_instance_has_the_node(steps in prop::collection::vec((0..3_u8, 0..3_usize), 1..60)) {
        let mut world = World::new();
        for (what, at) in steps {
            match what {
                0 => world.connect(at),
                1 => world.claim(at),
                _ => world.watch(at),
            }
        }
        // The node connects anew for as long as it is thrown out, which is not more than once.
        world.connect(1);
        let mut thrown_out = 0;
        for _ in 0..100 {
            for at in 0..NAMES.len() {
                world.claim(at);
                world.watch(at);
            }
            if world.sessions.iter().all(Option::is_none) {
                thrown_out += 1;
                world.connect(thrown_out % NAMES.len());
            }
        }
        prop_assert!(thrown_out <= 1, "{thrown_out}");
        let standings: Vec<_> = world.instances.iter().map(|instance| instance.standing(&node())).collect();
        let sessions: Vec<_> = (0..NAMES.len()).filter(|at| world.sessions[*at].is_some()).collect();
        let (holder, _) = world.leases.last().copied().unwrap();
        prop_assert_eq!(sessions, vec![holder]);
        for (at, standing) in standings.into_iter().enumerate() {
            let expected = if at == holder { Standing::Owner } else { Standing::Other };
            prop_assert_eq!(standing, expected);
        }
    }
}
