//! Watches.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use serde_json::{Value, json};
use tokio::{sync::watch as signal, time::timeout};

use super::{
    Api, State,
    path::{Selector, Target},
    store::Change,
};

/// Between two bookmarks of a quiet watch.
const BOOKMARK: Duration = Duration::from_secs(5);

struct Watch {
    api: Api,
    target: Target,
    selector: Selector,
    last: u64,
    bookmarks: bool,
    epoch: u64,
    moved: signal::Receiver<u64>,
    expired: bool,
}

/// What comes next.
enum Next {
    Line(Value),
    Nothing,
    End,
}

/// The body of a watch: a line for each event.
pub(super) fn body(
    api: &Api,
    target: Target,
    selector: Selector,
    from: u64,
    bookmarks: bool,
) -> UnsyncBoxBody<Bytes, Infallible> {
    let (epoch, moved) = {
        let state = api.lock();
        (state.epoch, state.moved.subscribe())
    };
    let watch = Watch { api: api.clone(), target, selector, last: from, bookmarks, epoch, moved, expired: false };
    let lines = stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((Ok(Frame::data(Bytes::from(format!("{line}\n")))), watch))
    });
    StreamBody::new(lines).boxed_unsync()
}

impl Watch {
    async fn next(&mut self) -> Option<Value> {
        loop {
            self.moved.mark_unchanged();
            match self.look() {
                Next::Line(line) => return Some(line),
                Next::End => return None,
                Next::Nothing => {}
            }
            let quiet = timeout(BOOKMARK, self.moved.changed()).await.is_err();
            if quiet && self.bookmarks {
                let version = self.last.to_string();
                return Some(json!({ "type": "BOOKMARK", "object": {
                    "kind": "Bookmark", "apiVersion": "v1", "metadata": { "resourceVersion": version },
                } }));
            }
        }
    }

    fn look(&mut self) -> Next {
        let state = self.api.lock();
        if self.expired || state.epoch != self.epoch {
            return Next::End;
        }
        if self.last < state.compacted {
            self.expired = true;
            return Next::Line(json!({ "type": "ERROR", "object": {
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired",
                "message": "too old resource version",
            } }));
        }
        let horizon = state.stalled.get(&self.target.plural).copied().unwrap_or(state.version);
        let from = first_after(&state, self.last);
        for change in &state.changes[from..] {
            if change.version > horizon {
                return Next::Nothing;
            }
            self.last = change.version;
            if let Some(line) = line(change, &self.target, &self.selector) {
                return Next::Line(line);
            }
        }
        Next::Nothing
    }
}

fn first_after(state: &State, version: u64) -> usize {
    state.changes.partition_point(|change| change.version <= version)
}

/// A change as a watch tells it. An object that is no longer selected is gone to whoever watches.
fn line(change: &Change, target: &Target, selector: &Selector) -> Option<Value> {
    let place = &change.place;
    if place.plural != target.plural || !(target.namespace.is_empty() || place.namespace == target.namespace) {
        return None;
    }
    let selected = |object: &Option<Value>| object.clone().filter(|object| selector.matches(object));
    let (kind, object) = match (selected(&change.before), selected(&change.after)) {
        (None, None) => return None,
        (None, Some(object)) => ("ADDED", object),
        (Some(_), Some(object)) => ("MODIFIED", object),
        (Some(mut object), None) => {
            object["metadata"]["resourceVersion"] = change.version.to_string().into();
            ("DELETED", object)
        }
    };
    Some(json!({ "type": kind, "object": object }))
}
