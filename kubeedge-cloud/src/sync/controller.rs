//! Bringing nodes to the truth: when they connect, when their records change under us, and from time to time.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use kubeedge_core::{
    names::{NodeName, ResourceVersion, SharedClock},
    resource::ResourceType,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    deliveries::DeliveryLog,
    inventory,
    ledger::{LedgerEntry, LedgerError},
    placement::Doubt,
    sessions::Sessions,
    truth::Truth,
};
use crate::{
    hub::{HubHandle, SessionNumber},
    object::Pause,
};

/// The kinds that decide what a node should have.
pub(crate) const DELIVERED: [ResourceType; 6] = [
    ResourceType::Node,
    ResourceType::Pod,
    ResourceType::ConfigMap,
    ResourceType::Secret,
    ResourceType::Device,
    ResourceType::DeviceModel,
];

/// After somebody has changed a record, until its node is compared: several changes make one comparison.
const SETTLE: Duration = Duration::from_secs(1);
/// Between two steps of a sweep, at least.
const STEP: Duration = Duration::from_millis(20);
/// Steps of a sweep that are made at a time.
const SWEEPERS: usize = 4;
/// Objects that the API is asked for at a time, for all nodes together.
const QUESTIONS: usize = 64;

/// Compares nodes with the truth.
///
/// A node is compared when it connects, and one of ours is asked first whether it has what its records say; a second after one of its records was changed or removed by somebody else, or
/// turned out to be ahead of what is known here; and once per `sweep`. So a record of a connected node that is wrong in
/// whatever way is found within `sweep`, and the node is sent what it lacks at once. A node that is away is compared when it
/// comes back.
///
/// That an object is gone is never concluded from its absence alone: a watch may be behind or start from an old list, and
/// what is taken from a node by mistake is a pod that is killed. The API is asked for each such object.
///
/// Upstream: `cloud/pkg/synccontroller`, which compares everything every 5 s.
pub(crate) struct SyncController {
    pub(crate) truth: Truth,
    pub(crate) log: DeliveryLog,
    pub(crate) hub: HubHandle,
    pub(crate) clock: SharedClock,
    /// All of these have to be listed first: a cloud that has just started would take for deleted what it does not know
    /// yet.
    pub(crate) kinds: Vec<ResourceType>,
    pub(crate) sweep: Duration,
}

/// Parts of one comparison.
#[derive(Clone)]
struct Comparison {
    truth: Truth,
    log: DeliveryLog,
    hub: HubHandle,
    clock: SharedClock,
    questions: Arc<Semaphore>,
}

/// What became of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Compared,
    /// What is known here is older than the records: to be compared again soon.
    Behind,
    /// The session has ended.
    Ended,
}

impl SyncController {
    /// Runs until `shutdown`. When a node that connects has been compared, `greet` is run for it.
    pub(crate) async fn run<F>(
        self,
        greet: impl Fn(NodeName) -> F + Clone + Send + 'static,
        shutdown: CancellationToken,
    ) where
        F: Future<Output = ()> + Send,
    {
        let questions = Arc::new(Semaphore::new(QUESTIONS));
        let (truth, log, hub, clock) = (self.truth, self.log, self.hub.clone(), self.clock);
        let comparison = Comparison { truth, log, hub, clock, questions };
        let mut sessions = Sessions::new(&self.hub);
        let mut greetings = JoinSet::new();
        let mut sweepers = JoinSet::new();
        let mut soon = Soon::default();
        let mut sweep = Sweep::new(self.sweep);
        // What connects meanwhile is seen below. Nodes that come and go while the API is away must not pile up here.
        if shutdown.run_until_cancelled(comparison.truth.listed(&self.kinds)).await.is_none() {
            return;
        }
        loop {
            tokio::select! {
                biased;
                news = sessions.next() => {
                    news.ended.iter().for_each(|node| comparison.log.disconnected(node));
                    for (node, number) in news.begun {
                        let (comparison, greet) = (comparison.clone(), greet.clone());
                        greetings.spawn(async move {
                            let outcome = comparison.greet(&node, number, greet).await;
                            (node, outcome)
                        });
                    }
                }
                touched = comparison.log.touched() => {
                    soon.extend(touched.into_iter().filter(|node| sessions.known().contains_key(node)));
                }
                () = sleep_until(soon.due()), if !soon.is_empty() && sweepers.len() < SWEEPERS => {
                    let nodes = soon.take().into_iter().filter_map(|node| {
                        let number = *sessions.known().get(&node)?;
                        Some((node, number))
                    });
                    sweepers.spawn(comparison.clone().look(nodes.collect()));
                }
                () = sleep_until(sweep.due()), if sweepers.len() < SWEEPERS => {
                    let nodes = sweep.step(sessions.known());
                    if !nodes.is_empty() {
                        sweepers.spawn(comparison.clone().look(nodes));
                    }
                }
                Some(Ok((node, outcome))) = greetings.join_next() => {
                    soon.extend((outcome == Outcome::Behind).then_some(node));
                }
                Some(Ok(behind)) = sweepers.join_next() => soon.extend(behind),
                () = shutdown.cancelled() => return,
            }
        }
    }
}

impl Comparison {
    async fn greet<F>(&self, node: &NodeName, number: SessionNumber, greet: impl Fn(NodeName) -> F) -> Outcome
    where
        F: Future<Output = ()> + Send,
    {
        let outcome = self.while_connected(node, number, async {
            let mut pauses = Pause::default();
            loop {
                match self.greet_ledger(node).await {
                    Ok(outcome) => return outcome,
                    Err(err) => {
                        tracing::warn!(%node, err = &err as &dyn std::error::Error, "records of a node not read");
                        sleep(pauses.next().unwrap_or(SETTLE)).await;
                    }
                }
            }
        });
        let outcome = outcome.await;
        if outcome != Outcome::Ended {
            greet(node.clone()).await;
        }
        outcome
    }

    /// Compares nodes that are connected already, one after the other, and returns those that have to be looked at again.
    async fn look(self, nodes: Vec<(NodeName, SessionNumber)>) -> Vec<NodeName> {
        let mut behind = Vec::new();
        for (node, number) in nodes {
            self.log.insist(&node);
            let outcome = self.while_connected(&node, number, async {
                self.compare_ledger(&node).await.unwrap_or_else(|err| {
                    tracing::debug!(%node, err = &err as &dyn std::error::Error, "records of a node not read");
                    Outcome::Behind
                })
            });
            if outcome.await == Outcome::Behind {
                behind.push(node);
            }
        }
        behind
    }

    async fn while_connected(
        &self,
        node: &NodeName,
        number: SessionNumber,
        work: impl Future<Output = Outcome>,
    ) -> Outcome {
        tokio::select! {
            biased;
            () = self.hub.ended(node, number) => Outcome::Ended,
            outcome = work => outcome,
        }
    }

    /// Compares with what the node itself says it has, if it can tell.
    async fn greet_ledger(&self, node: &NodeName) -> Result<Outcome, LedgerError> {
        let ledger = self.log.list(node).await?;
        let ledger = inventory::take(&self.hub, &self.log, node, ledger, self.clock.now()).await;
        Ok(self.compare(node, ledger).await)
    }

    async fn compare_ledger(&self, node: &NodeName) -> Result<Outcome, LedgerError> {
        let ledger = self.log.list(node).await?;
        Ok(self.compare(node, ledger).await)
    }

    async fn compare(&self, node: &NodeName, mut ledger: Vec<LedgerEntry>) -> Outcome {
        let behind = self.settle(node, &mut ledger).await;
        for entry in ledger.iter().filter(|entry| entry.path.name.is_none()) {
            // Somebody has made it useless: no node can be told of such an object.
            self.log.forget(node, entry.clone());
        }
        let count = self.truth.resync(node, &ledger, !behind);
        tracing::debug!(%node, records = ledger.len(), changes = count, behind, "node compared");
        if behind { Outcome::Behind } else { Outcome::Compared }
    }

    /// Asks the API about records that contradict what is known here. A record that is wrong counts as not acknowledged from
    /// then on; whether what is known here is the older, nobody is told anything that follows from it.
    async fn settle(&self, node: &NodeName, ledger: &mut [LedgerEntry]) -> bool {
        let doubts = self.truth.placement().doubts(ledger);
        let mut behind = false;
        for doubt in doubts {
            let (Doubt::Unknown(path, uid) | Doubt::Ahead(path, uid)) = &doubt;
            // Never closed.
            let Ok(_slot) = self.questions.acquire().await else { return true };
            let found = match self.truth.ask(path).await {
                Ok(found) => found.filter(|object| object.uid == *uid),
                Err(err) => {
                    tracing::debug!(%node, object = %path, %err, "not known whether a record is right");
                    return true;
                }
            };
            let Some(object) = found else { continue };
            let entry = ledger.iter_mut().find(|entry| entry.uid == *uid);
            let Some(entry) = entry else { continue };
            match doubt {
                Doubt::Ahead(..) if entry.version > object.version => {
                    let (version, recorded) = (object.version, entry.version.map(ResourceVersion::number));
                    tracing::warn!(%node, object = %path, ?version, recorded, "record is of a version that never was");
                    entry.version = None;
                }
                Doubt::Unknown(..) | Doubt::Ahead(..) => behind = true,
            }
        }
        behind
    }
}

/// Nodes that are compared shortly.
#[derive(Debug, Default)]
struct Soon {
    nodes: BTreeSet<NodeName>,
    due: Option<Instant>,
}

impl Soon {
    fn extend(&mut self, nodes: impl IntoIterator<Item = NodeName>) {
        self.nodes.extend(nodes);
        if !self.nodes.is_empty() {
            self.due.get_or_insert_with(|| Instant::now() + SETTLE);
        }
    }

    fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn due(&self) -> Instant {
        self.due.unwrap_or_else(Instant::now)
    }

    fn take(&mut self) -> BTreeSet<NodeName> {
        self.due = None;
        std::mem::take(&mut self.nodes)
    }
}

/// Goes through all nodes, spread over `every`, so that many nodes make no peak.
#[derive(Debug)]
struct Sweep {
    every: Duration,
    due: Instant,
    after: Option<NodeName>,
}

impl Sweep {
    fn new(every: Duration) -> Self {
        Self { every, due: Instant::now() + STEP, after: None }
    }

    fn due(&self) -> Instant {
        self.due
    }

    /// The nodes that are next.
    fn step(&mut self, nodes: &BTreeMap<NodeName, SessionNumber>) -> Vec<(NodeName, SessionNumber)> {
        let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX).max(1);
        let pause = (self.every / count).max(STEP);
        self.due = Instant::now() + pause;
        let share = (u128::from(count) * pause.as_nanos()).div_ceil(self.every.as_nanos().max(1));
        let share = usize::try_from(share).unwrap_or(usize::MAX).min(nodes.len());
        let from = self.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = nodes.range::<NodeName, _>((from, Bound::Unbounded));
        let taken: Vec<_> = rest.chain(nodes).take(share).map(|(node, number)| (node.clone(), *number)).collect();
        self.after = taken.last().map(|(node, _)| node.clone());
        taken
    }
}
