//! The node: its registration, its status and its lease.

mod host;
mod lease;
mod object;

use std::{sync::Arc, time::Duration};

use kubeedge_core::{
    answer::{Answer, ApiStatus},
    message::{Content, ContentError, Message},
    meta::{Collection, MetaHandle, MetaKey, MetaWrite, Precondition, Record},
    names::{InvalidName, ObjectName, SharedClock},
    resource::{ObjectPath, ResourceType},
    service::Causes,
    uplink::{UplinkError, UplinkHandle},
    words::{Group, Operation, Source},
};
use serde_json::Value;
use tokio::time::Instant;

use self::{
    host::{HostFacts, HostLoad},
    object::{NodeView, Seen},
};
use super::{config::EdgedConfig, process::blocking, runtime::PodRuntime};

/// First pause after a failed attempt; it doubles up to the longest.
///
/// Upstream: kubelet, `registerWithAPIServer`.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(7);
/// Spread of periods, so that the nodes of a site do not beat as one.
const JITTER: f64 = 0.04;

/// Why the cloud does not have what it was told about the node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    #[error("cloud was not reached")]
    Uplink(#[from] UplinkError),
    #[error("cloud refused: {0}")]
    Refused(ApiStatus),
    #[error("cloud answered something else")]
    Strange,
    #[error("message cannot be made")]
    Content(#[from] ContentError),
    #[error("message cannot be addressed")]
    Name(#[from] InvalidName),
}

/// Tells the cloud about the node while there is a link.
pub(crate) struct NodeAgent {
    config: EdgedConfig,
    store: MetaHandle,
    uplink: UplinkHandle,
    runtime: Arc<dyn PodRuntime>,
    clock: SharedClock,
}

impl NodeAgent {
    pub(crate) fn new(
        config: &EdgedConfig,
        store: MetaHandle,
        uplink: UplinkHandle,
        runtime: Arc<dyn PodRuntime>,
        clock: SharedClock,
    ) -> Self {
        Self { config: config.clone(), store, uplink, runtime, clock }
    }

    /// Starts over with every new link, and never ends.
    pub(crate) async fn run(self) {
        let facts = blocking(|| Ok(HostFacts::read())).await.unwrap_or_default();
        let mut state = self.uplink.state();
        loop {
            let now = *state.borrow_and_update();
            if now.is_connected() {
                tokio::select! {
                    _ = async { tokio::join!(self.keep_status(&facts), self.keep_lease()) } => {}
                    changed = state.changed() => if changed.is_err() { break },
                }
            } else if state.changed().await.is_err() {
                break;
            }
        }
        // Whoever made the link is gone: there is nobody to tell.
        std::future::pending::<()>().await;
    }

    fn path(&self, kind: ResourceType) -> Result<ObjectPath, NodeError> {
        Ok(ObjectPath { namespace: None, kind, name: Some(ObjectName::new(self.config.node.as_str())?) })
    }

    fn record_key(&self) -> MetaKey {
        MetaKey::new(Collection::from(&ResourceType::Node), "", self.config.node.as_str())
    }

    /// The node as the cloud gave it last.
    async fn known(&self) -> Option<Value> {
        match self.store.get(self.record_key()).await {
            Ok(record) => serde_json::from_slice(&record?.value).ok(),
            Err(error) => {
                tracing::warn!(error = %error, "node is not read from the store");
                None
            }
        }
    }

    async fn ask(&self, operation: Operation, path: ObjectPath, content: Content) -> Result<Answer, NodeError> {
        let message = Message::new(self.clock.now(), Source::Edged, Group::Meta, operation, path).content(content);
        let reply = self.uplink.request(message).await?;
        Ok(Answer::read(&reply.content))
    }

    /// Registers the node and keeps its status told, from the begin of a link to its end.
    async fn keep_status(&self, facts: &HostFacts) {
        let mut seen = Seen::default();
        let mut pause = FIRST_PAUSE;
        let mut told: Option<(Value, Instant)> = None;
        loop {
            let known = self.known().await;
            let view = self.view(facts, known.as_ref(), &mut seen).await;
            let essence = view.essence();
            let report = self.config.status_report;
            if told.as_ref().is_none_or(|(before, at)| *before != essence || at.elapsed() >= report) {
                if let Err(error) = self.tell(&view, known.is_some() || told.is_some()).await {
                    warn(&error, "node status is not told");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
                pause = FIRST_PAUSE;
                told = Some((essence, Instant::now()));
                self.relabel(&view).await;
            }
            tokio::time::sleep(jittered(self.config.status_update)).await;
        }
    }

    /// Tells the status, in one round trip if the guess whether the cloud knows the node is right.
    async fn tell(&self, view: &NodeView, known: bool) -> Result<(), NodeError> {
        let register = self.config.register_node;
        if register && !known && self.register(view).await? {
            return Ok(());
        }
        match self.patch(view).await {
            Err(NodeError::Refused(status)) if register && status.is_not_found() => {
                tracing::info!(node = %self.config.node, "the cloud does not know the node any more");
                self.register(view).await.map(drop)
            }
            done => done,
        }
    }

    async fn view(&self, facts: &HostFacts, known: Option<&Value>, seen: &mut Seen) -> NodeView {
        let root = self.config.root_dir.clone();
        let load = blocking(move || Ok(HostLoad::read(&root))).await.unwrap_or_default();
        let runtime = self.runtime.version().await.map_err(|error| error.to_string());
        NodeView::new(&self.config, facts, load, runtime, known, seen, self.clock.now())
    }

    /// Creates the node; false if it was there.
    async fn register(&self, view: &NodeView) -> Result<bool, NodeError> {
        let node = Content::json(&view.object())?;
        match self.ask(Operation::Insert, self.path(ResourceType::Node)?, node).await? {
            Answer::Object(object) => {
                tracing::info!(node = %self.config.node, "node is registered");
                let record = Record::new(self.record_key(), object.as_json().to_owned());
                // The cloud pushes the node as well; that is at least as new.
                _ = self.store.commit(vec![MetaWrite::Put(record, Precondition::Absent)]).await;
                Ok(true)
            }
            Answer::Done => Ok(true),
            Answer::Refused(status) if status.is_already_exists() => Ok(false),
            Answer::Refused(status) => Err(NodeError::Refused(status)),
            _ => Err(NodeError::Strange),
        }
    }

    async fn patch(&self, view: &NodeView) -> Result<(), NodeError> {
        let patch = Content::text(&view.patch().to_string());
        match self.ask(Operation::Patch, self.path(ResourceType::NodePatch)?, patch).await? {
            Answer::Refused(status) => Err(NodeError::Refused(status)),
            _ => Ok(()),
        }
    }

    /// Gives a node that was there before the labels that it should have. The cloud does not answer if it fails.
    async fn relabel(&self, view: &NodeView) {
        if view.has_labels() {
            return;
        }
        let update = async {
            let node = Content::json(&view.identity())?;
            let path = self.path(ResourceType::Node)?;
            let message =
                Message::new(self.clock.now(), Source::Edged, Group::Meta, Operation::Update, path).content(node);
            self.uplink.send(message).await?;
            Ok::<_, NodeError>(())
        };
        if let Err(error) = update.await {
            warn(&error, "node labels are not told");
        }
    }
}

fn warn(error: &NodeError, what: &'static str) {
    tracing::warn!(error = %Causes(error), "{what}");
}

fn jittered(period: Duration) -> Duration {
    period.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())
}
