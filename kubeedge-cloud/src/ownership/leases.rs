//! Keeping the Leases.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Error,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::{WatchStreamExt as _, watcher},
};
use kubeedge_core::names::{NodeName, SharedClock};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    claims::Claims,
    holdings::{Holdings, Verdict},
    instance::InstanceName,
    instances::Instances,
    lease::{self, Held, Reading},
};
use crate::{
    hub::{CloseReason, HubHandle},
    object::Pause,
    sync::{Owners, Sessions, Standing},
};

/// Claims at a time.
const CLAIMS: usize = 64;
/// Times that a claim is repeated at once, as somebody else was faster.
const RACES: usize = 5;
/// For the API to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// When the Lease of an instance is renewed, and what its silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// Between two renewals. Default: 10 s.
    pub renew: Duration,
    /// An instance that has not renewed for so long counts as dead, and one that does not see its own renewals for so long
    /// writes no records. Default: 40 s.
    pub lives: Duration,
    /// After so long the Lease of a dead instance is removed. Default: 10 min.
    pub forgotten: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { renew: Duration::from_secs(10), lives: Duration::from_secs(40), forgotten: Duration::from_secs(600) }
    }
}

/// Which nodes are ours, by Leases in the namespace `kubeedge`; see the [module](super). Cheap to clone.
#[derive(Clone)]
pub struct NodeLeases(Arc<Shared>);

struct Shared {
    me: InstanceName,
    api: Api<Lease>,
    hub: HubHandle,
    clock: SharedClock,
    times: LeaseTimes,
    state: Mutex<State>,
    /// Whether the Leases were listed.
    listed: watch::Sender<bool>,
    changed: Notify,
    claim: Notify,
    renew: Notify,
}

struct State {
    holdings: Holdings,
    instances: Instances,
    view: View,
    claims: Claims,
    changed: BTreeSet<NodeName>,
}

/// How current our view of the Leases is. All of them come by the same watch, in the order of their versions: who sees its
/// own renewal has seen all claims before it.
#[derive(Debug, Default)]
struct View {
    /// Whether the claims of others can be missing.
    fresh: bool,
    /// Version of our own Lease as the watch last showed it, and when.
    seen: Option<(u64, Instant)>,
    /// The first version of our own Lease that was written after the view became stale.
    awaited: Option<u64>,
    /// Tells renewals that began before the view became stale from those after.
    stales: u64,
}

impl NodeLeases {
    /// The Leases behind `client`, for the sessions of `hub`. Nothing is ours unless [`run`](Self::run) runs. The namespace
    /// has to exist, and `me` must be the name of no other.
    pub fn new(client: Client, me: InstanceName, hub: HubHandle, clock: SharedClock, times: LeaseTimes) -> Self {
        let state = State {
            holdings: Holdings::new(me.clone()),
            instances: Instances::default(),
            view: View::default(),
            claims: Claims::default(),
            changed: BTreeSet::new(),
        };
        Self(Arc::new(Shared {
            api: Api::namespaced(client, lease::NAMESPACE),
            me,
            hub,
            clock,
            times,
            state: Mutex::new(state),
            listed: watch::Sender::new(false),
            changed: Notify::new(),
            claim: Notify::new(),
            renew: Notify::new(),
        }))
    }

    /// The name of this instance.
    pub fn instance(&self) -> &InstanceName {
        &self.0.me
    }

    /// Claims the nodes that connect, and closes the sessions of those that connect elsewhere, until `shutdown`; then gives
    /// back the Lease of this instance. Failures are logged, and tried again.
    ///
    /// # Cancel safety
    /// What was claimed stays claimed.
    pub async fn run(&self, shutdown: CancellationToken) {
        let work = async { tokio::join!(self.follow(), self.renew(), self.connections(), self.claim(), self.tidy()) };
        let _stopped = shutdown.run_until_cancelled(Box::pin(work)).await;
        let name = lease::instance_lease_name(&self.0.me);
        // If that fails, the others see soon that it is not renewed.
        let _left = in_time(self.0.api.delete(&name, &DeleteParams::default())).await;
    }

    async fn follow(&self) {
        let selector = watcher::Config::default().labels(lease::LABEL);
        let mut events = std::pin::pin!(watcher(self.0.api.clone(), selector).backoff(Pause::default()));
        let (mut nodes, mut instances) = (HashSet::new(), HashSet::new());
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => {
                    nodes.clear();
                    instances.clear();
                }
                Ok(watcher::Event::InitApply(found)) => match self.seen(&found) {
                    Some(Reading::Node(node, _)) => drop(nodes.insert(node)),
                    Some(Reading::Instance(instance, _)) => drop(instances.insert(instance)),
                    None => {}
                },
                Ok(watcher::Event::Apply(changed)) => drop(self.seen(&changed)),
                Ok(watcher::Event::Delete(last)) => self.gone(&last),
                Ok(watcher::Event::InitDone) => {
                    let gone = {
                        let mut state = self.state();
                        state.instances.retain(&std::mem::take(&mut instances));
                        state.holdings.retain(&std::mem::take(&mut nodes))
                    };
                    for (node, verdict) in gone {
                        self.obey(&node, verdict);
                    }
                    self.0.listed.send_replace(true);
                }
                Err(err) => {
                    tracing::warn!(err = &err as &dyn std::error::Error, "watch of the node leases interrupted");
                    self.stale();
                }
            }
        }
    }

    fn seen(&self, lease: &Lease) -> Option<Reading> {
        let reading = lease::read(lease)?;
        match &reading {
            Reading::Node(node, held) => {
                let verdict = self.state().holdings.seen(node, held.clone());
                self.obey(node, verdict);
            }
            Reading::Instance(instance, revision) if *instance == self.0.me => {
                let mut state = self.state();
                state.view.seen = Some((*revision, Instant::now()));
                self.refresh(&mut state);
            }
            Reading::Instance(instance, revision) => {
                self.state().instances.seen(instance.clone(), *revision, Instant::now());
            }
        }
        Some(reading)
    }

    fn gone(&self, last: &Lease) {
        match lease::read(last) {
            Some(Reading::Node(node, held)) => {
                let verdict = self.state().holdings.gone(&node, held.revision);
                self.obey(&node, verdict);
            }
            // Somebody has removed it.
            Some(Reading::Instance(instance, _)) if instance == self.0.me => self.0.renew.notify_one(),
            Some(Reading::Instance(instance, _)) => self.state().instances.gone(&instance),
            None => {}
        }
    }

    /// Does what follows.
    fn obey(&self, node: &NodeName, verdict: Verdict) {
        if verdict.changed || verdict.claim {
            let mut state = self.state();
            if verdict.changed {
                state.changed.insert(node.clone());
                self.0.changed.notify_one();
            }
            if verdict.claim {
                state.claims.push(node);
                self.0.claim.notify_one();
            }
        }
        if let Some(session) = verdict.close {
            tracing::info!(%node, %session, "node has connected to another instance");
            self.0.hub.close_session(node, session, CloseReason::Replaced);
        }
    }

    /// Claims of others may be missed from now on.
    fn stale(&self) {
        {
            let mut state = self.state();
            state.view.stales += 1;
            state.view.awaited = None;
            if std::mem::replace(&mut state.view.fresh, false) {
                tracing::warn!("view of the node leases is not current, records wait");
            }
        }
        // What the watch says of this renewal shows that it goes on.
        self.0.renew.notify_one();
    }

    fn refresh(&self, state: &mut State) {
        let State { view, holdings, changed, .. } = state;
        let caught_up = view.awaited.zip(view.seen).is_some_and(|(awaited, (seen, _))| seen >= awaited);
        if caught_up && !std::mem::replace(&mut view.fresh, true) {
            tracing::info!("view of the node leases is current");
            changed.extend(holdings.ours().cloned());
            self.0.changed.notify_one();
        }
    }

    async fn renew(&self) {
        let mut pauses = Pause::default();
        loop {
            let stales = self.state().view.stales;
            let next = match self.renew_once().await {
                Ok(revision) => {
                    pauses = Pause::default();
                    let mut state = self.state();
                    if state.view.stales == stales && !state.view.fresh {
                        state.view.awaited.get_or_insert(revision);
                        self.refresh(&mut state);
                    }
                    self.0.times.renew
                }
                Err(err) => {
                    tracing::warn!(err = &err as &dyn std::error::Error, "lease of this instance not renewed");
                    pauses.next().unwrap_or(self.0.times.renew).min(self.0.times.renew)
                }
            };
            let silent = {
                let state = self.state();
                state.view.fresh && state.view.seen.is_none_or(|(_, at)| at.elapsed() >= self.0.times.lives)
            };
            if silent {
                self.stale();
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep(next) => {}
                () = self.0.renew.notified() => {}
            }
        }
    }

    async fn renew_once(&self) -> Result<u64, Error> {
        let seconds = i32::try_from(self.0.times.lives.as_secs().max(1)).unwrap_or(i32::MAX);
        let lease = lease::of_instance(&self.0.me, seconds, self.0.clock.now());
        let name = lease::instance_lease_name(&self.0.me);
        // Nobody else writes it, so it need not be compared, which a replacement would have to be.
        let patch = Patch::Merge(&lease);
        let written = match in_time(self.0.api.patch(&name, &PatchParams::default(), &patch)).await {
            Err(Error::Api(status)) if status.is_not_found() => {
                in_time(self.0.api.create(&PostParams::default(), &lease)).await
            }
            written => written,
        }?;
        Ok(written.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default())
    }

    async fn connections(&self) {
        let mut sessions = Sessions::new(&self.0.hub);
        loop {
            let news = sessions.next().await;
            for node in &news.ended {
                let verdict = self.state().holdings.disconnected(node);
                self.obey(node, verdict);
            }
            for (node, session) in &news.begun {
                let verdict = {
                    let mut state = self.state();
                    let others = state.instances.living(self.0.times.lives, Instant::now()).next().is_some();
                    let alone = state.view.fresh && !others;
                    state.holdings.connected(node, *session, alone)
                };
                self.obey(node, verdict);
            }
        }
    }

    async fn claim(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.listed.subscribe().wait_for(|listed| *listed).await;
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < CLAIMS
                && let Some(node) = self.pop()
            {
                running.push(self.claim_node(node));
            }
            tokio::select! {
                biased;
                Some(again) = running.next(), if !running.is_empty() => {
                    if let Some(node) = again {
                        self.state().claims.push(&node);
                    }
                }
                () = self.0.claim.notified() => {}
            }
        }
    }

    fn pop(&self) -> Option<NodeName> {
        self.state().claims.pop()
    }

    /// Returns the node if it has to be claimed again.
    async fn claim_node(&self, node: NodeName) -> Option<NodeName> {
        let mut pauses = Pause::default();
        loop {
            match self.try_claim(&node).await {
                Ok(true) => return None,
                Ok(false) => return Some(node),
                Err(err) => {
                    tracing::debug!(%node, err = &err as &dyn std::error::Error, "node not claimed, it will be tried again");
                    tokio::time::sleep(pauses.next().unwrap_or(PATIENCE)).await;
                }
            }
        }
    }

    /// Whether there is nothing more to claim.
    async fn try_claim(&self, node: &NodeName) -> Result<bool, Error> {
        let shared = &*self.0;
        for _ in 0..RACES {
            let Some((session, before)) = self.state().holdings.open_claim(node) else { return Ok(true) };
            let claim = lease::claim(node, &shared.me, before.as_ref(), shared.clock.now());
            let name = lease::node_lease_name(node);
            let written = match &before {
                None => in_time(shared.api.create(&PostParams::default(), &claim)).await,
                Some(_) => in_time(shared.api.replace(&name, &PostParams::default(), &claim)).await,
            };
            match written {
                Ok(written) => {
                    if let Some(Reading::Node(_, held)) = lease::read(&written) {
                        tracing::debug!(%node, %session, transitions = held.transitions, "node claimed");
                        let verdict = self.state().holdings.claimed(node, session, held);
                        self.obey(node, verdict);
                    }
                    return Ok(self.state().holdings.open_claim(node).is_none());
                }
                Err(Error::Api(status)) if status.code == 409 || status.is_not_found() => {
                    // Our view is behind.
                    if let Some(current) = in_time(shared.api.get_opt(&name)).await? {
                        if !matches!(self.seen(&current), Some(Reading::Node(..))) {
                            in_time(shared.api.delete(&name, &DeleteParams::default())).await.map(drop)?;
                        }
                    } else {
                        let known = before.map_or(0, |held| held.revision);
                        let verdict = self.state().holdings.gone(node, known);
                        self.obey(node, verdict);
                    }
                }
                Err(err) => return Err(err),
            }
        }
        Ok(false)
    }

    /// Removes the Leases of instances that are long dead.
    async fn tidy(&self) {
        let times = self.0.times;
        let mut next = Instant::now() + times.lives;
        loop {
            sleep_until(next).await;
            next = Instant::now() + times.lives;
            let vanished = if self.is_senior() {
                self.state().instances.vanished(times.forgotten, Instant::now())
            } else {
                Vec::new()
            };
            for (instance, revision) in vanished {
                tracing::info!(%instance, "instance has vanished");
                // Unless it comes back this very moment.
                if let Err(err) = self.delete(&lease::instance_lease_name(&instance), revision).await {
                    tracing::debug!(%instance, err = &err as &dyn std::error::Error, "lease of an instance not removed");
                }
            }
        }
    }

    /// Of those that live, the one with the first name clears away what nobody has.
    fn is_senior(&self) -> bool {
        let state = self.state();
        state.instances.living(self.0.times.lives, Instant::now()).all(|other| self.0.me < *other)
    }

    async fn delete(&self, name: &str, revision: u64) -> Result<(), Error> {
        let only = Preconditions { resource_version: Some(revision.to_string()), ..Preconditions::default() };
        let options = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
        match in_time(self.0.api.delete(name, &options)).await {
            Err(Error::Api(status)) if status.is_not_found() => Ok(()),
            deleted => deleted.map(drop),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Owners for NodeLeases {
    fn standing(&self, node: &NodeName) -> Standing {
        let state = self.state();
        match state.holdings.standing(node) {
            Standing::Owner if !state.view.fresh => Standing::Candidate,
            standing => standing,
        }
    }

    async fn changed(&self) -> Vec<NodeName> {
        loop {
            let changed = std::mem::take(&mut self.state().changed);
            if !changed.is_empty() {
                return changed.into_iter().collect();
            }
            self.0.changed.notified().await;
        }
    }

    fn nodes(&self) -> Vec<NodeName> {
        self.state().holdings.leased().cloned().collect()
    }

    fn clears(&self, node: &NodeName) -> bool {
        let holder = self.state().holdings.held(node).map(|held| held.holder.clone());
        match holder {
            Some(holder) if holder == self.0.me => true,
            Some(holder) if self.state().instances.lives(&holder, self.0.times.lives, Instant::now()) => false,
            _ => self.is_senior(),
        }
    }

    async fn release(&self, node: &NodeName) -> bool {
        let held = {
            let state = self.state();
            if state.holdings.is_connected(node) { None } else { state.holdings.held(node).cloned() }
        };
        let Some(Held { revision, .. }) = held else { return true };
        match self.delete(&lease::node_lease_name(node), revision).await {
            Ok(()) => true,
            Err(err) => {
                tracing::debug!(%node, err = &err as &dyn std::error::Error, "lease of a deleted node not removed");
                false
            }
        }
    }
}

/// As far as the API can tell, a call that takes too long has failed.
async fn in_time<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(PATIENCE, call).await.unwrap_or_else(|elapsed| Err(Error::Service(elapsed.into())))
}

impl fmt::Debug for NodeLeases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeLeases").field("instance", &self.0.me).finish_non_exhaustive()
    }
}
