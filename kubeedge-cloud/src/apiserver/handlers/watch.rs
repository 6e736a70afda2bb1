//! Watches: changes of a selection, as they are committed.

use std::{cell::Cell, collections::VecDeque, sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Call, list, view::View};
use crate::apiserver::{
    reply::Reply,
    request::Form,
    selector::{FieldSelector, LabelSelector},
    status::ApiError,
    store::{Change, ChangeKind, Object, Since, State},
};

/// How often a bookmark is sent to those who allow it.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch lives that does not say so itself.
const USUAL: Duration = Duration::from_secs(30 * 60);
/// How long any watch lives.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// Changes that are taken from the history in one go; between two goes others get a turn.
const GO: usize = 256;

/// Opens a watch. It takes its changes from the resource's history, so a slow client costs no memory: when it falls
/// behind what the history holds, it is told so and closed.
pub(super) fn watch(call: &Call) -> Result<Reply, ApiError> {
    let query = &call.request.query;
    let (labels, fields) = list::selectors(call)?;
    let from = query.number::<u64>("resourceVersion")?.unwrap_or(0);
    let initial = query.flag("sendInitialEvents");
    if initial && query.text("resourceVersionMatch") != Some("NotOlderThan") {
        return Err(ApiError::bad_request("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
    }
    let timeout = query.number::<u64>("timeoutSeconds")?.filter(|s| *s > 0);
    let timeout = timeout.map_or(USUAL, |seconds| Duration::from_secs(seconds).min(LONGEST));
    let state = call.store.state().clone();
    let changed = state.subscribe(&call.resource().id).ok_or_else(ApiError::no_such_path)?;
    let now = Instant::now();
    let mut bookmarks = interval_at(now + BOOKMARK_EVERY, BOOKMARK_EVERY);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watcher = Watcher {
        lens: Lens::new(call, labels, fields),
        cursor: from,
        ready: VecDeque::new(),
        changed,
        bookmarks: query.flag("allowWatchBookmarks").then_some(bookmarks),
        end: now + timeout,
        stopping: call.request.stopping.clone(),
        state,
        over: false,
    };
    // Without a version, or with 0, the watch begins with what is there.
    if from == 0 || initial {
        if !initial && query.text("sendInitialEvents").is_some() {
            watcher.cursor = watcher.state.version();
        } else {
            watcher.send_present(initial);
        }
    } else if from > watcher.state.version() {
        // The client has seen a future that this database has not: it must list again.
        watcher.fail(&ApiError::expired(from, watcher.state.version()));
    }
    Ok(Reply::watch(stream::unfold(watcher, Watcher::next)))
}

struct Watcher {
    lens: Lens,
    state: State,
    /// Everything up to this version has been looked at.
    cursor: u64,
    ready: VecDeque<Item>,
    changed: watch::Receiver<()>,
    bookmarks: Option<Interval>,
    end: Instant,
    stopping: CancellationToken,
    over: bool,
}

/// What is to be sent next. Lines are made when they are sent, so that a slow client holds references only.
enum Item {
    Present(Arc<Object>),
    Change(Arc<Change>),
    Line(Bytes),
}

impl Watcher {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            let item = if self.stopping.is_cancelled() { None } else { self.ready.pop_front() };
            let frame = match item {
                Some(Item::Line(line)) => Some(line),
                Some(Item::Present(object)) => Some(self.lens.event("ADDED", &object.json)),
                Some(Item::Change(change)) => self.lens.frame(&change),
                None if self.over || self.stopping.is_cancelled() => return None,
                None => {
                    self.refill().await;
                    None
                }
            };
            if let Some(frame) = frame {
                return Some((frame, self));
            }
        }
    }

    /// Looks for more to send, and waits if there is nothing.
    async fn refill(&mut self) {
        // Marked as seen before the history is read, so that no change in between is missed.
        self.changed.borrow_and_update();
        match self.state.changes(&self.lens.resource, self.cursor, GO) {
            Since::Changes { changes, version } => {
                self.ready.extend(changes.into_iter().map(Item::Change));
                self.cursor = self.cursor.max(version);
                if Instant::now() >= self.end {
                    self.finish();
                } else if self.ready.is_empty() {
                    self.wait().await;
                } else {
                    tokio::task::yield_now().await;
                }
            }
            Since::TooOld { oldest } => self.fail(&ApiError::expired(self.cursor, oldest)),
            Since::Closed => self.over = true,
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) {
        let bookmark = async {
            match &mut self.bookmarks {
                Some(interval) => interval.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => self.over = true,
            () = self.state.closed().cancelled() => self.over = true,
            changed = self.changed.changed() => self.over = changed.is_err(),
            () = sleep_until(self.end) => self.finish(),
            _ = bookmark => self.bookmark(false),
        }
    }

    /// Shows what is there, as added.
    fn send_present(&mut self, initial: bool) {
        let listing = self.state.list(&self.lens.resource, self.lens.namespace.as_deref(), &self.lens.fields);
        self.cursor = listing.version;
        let selected = listing.objects.into_iter().filter(|object| self.lens.selects(object));
        self.ready.extend(selected.map(Item::Present));
        if initial && self.bookmarks.is_some() {
            self.bookmark(true);
        }
    }

    /// Ends in its time. The next watch can begin where this one ended.
    fn finish(&mut self) {
        if self.bookmarks.is_some() {
            self.bookmark(false);
        }
        self.over = true;
    }

    fn bookmark(&mut self, initial_end: bool) {
        let mut metadata = json!({"resourceVersion": self.cursor.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let line = self.lens.bookmark(&metadata);
        self.ready.push_back(Item::Line(line));
    }

    fn fail(&mut self, error: &ApiError) {
        self.ready.push_back(Item::Line(line("ERROR", error.status().to_string().as_bytes())));
        self.over = true;
    }
}

/// What of the changes is shown, and how.
struct Lens {
    resource: Arc<str>,
    namespace: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
    view: View,
    /// Only the first table says what its columns are.
    headed: Cell<bool>,
}

impl Lens {
    fn new(call: &Call, labels: LabelSelector, fields: FieldSelector) -> Self {
        Self {
            resource: call.resource().id.clone(),
            namespace: call.namespace.clone(),
            labels,
            fields,
            view: call.view.clone(),
            headed: Cell::new(false),
        }
    }

    fn selects(&self, object: &Object) -> bool {
        self.namespace.as_deref().is_none_or(|ns| ns == &*object.key.namespace)
            && list::selects(&self.labels, &self.fields, object)
    }

    /// A change as this watch sees it: an object may enter and leave the selection.
    fn frame(&self, change: &Change) -> Option<Bytes> {
        let now = change.kind != ChangeKind::Deleted && self.selects(&change.object);
        let before = change.before.as_ref().filter(|before| self.selects(before));
        match (before, now) {
            (None, false) => None,
            (None, true) => Some(self.event("ADDED", &change.object.json)),
            (Some(_), true) => Some(self.event("MODIFIED", &change.object.json)),
            (Some(_), false) if change.kind == ChangeKind::Deleted => Some(self.event("DELETED", &change.object.json)),
            (Some(before), false) => Some(self.event("DELETED", &before.at_version(change.version()))),
        }
    }

    fn event(&self, kind: &str, json: &[u8]) -> Bytes {
        if self.view.is_plain() {
            return line(kind, json);
        }
        let value: Value = serde_json::from_slice(json).unwrap_or_default();
        if self.view.form == Form::Table { line(kind, &self.table(value)) } else { line(kind, &self.view.bytes(value)) }
    }

    fn table(&self, value: Value) -> Vec<u8> {
        let version = value.pointer("/metadata/resourceVersion").cloned();
        let mut table = self.view.table(std::iter::once(value));
        table["metadata"] = json!({"resourceVersion": version});
        if self.headed.replace(true) {
            table["columnDefinitions"] = Value::Null;
        }
        serde_json::to_vec(&table).unwrap_or_default()
    }

    fn bookmark(&self, metadata: &Value) -> Bytes {
        let object = match self.view.form {
            Form::Table => {
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                    "columnDefinitions": null, "rows": []})
            }
            Form::Partial => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            _ => {
                let target = &self.view.target;
                json!({"kind": target.resource.kind, "apiVersion": target.api_version(), "metadata": metadata})
            }
        };
        line("BOOKMARK", object.to_string().as_bytes())
    }
}

fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + 40);
    out.put(&b"{\"type\":\""[..]);
    out.put(kind.as_bytes());
    out.put(&b"\",\"object\":"[..]);
    out.put(object);
    out.put(&b"}\n"[..]);
    out.freeze()
}
