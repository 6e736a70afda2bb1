//! Requests: when they arrive, what becomes of them, and when the answer is back.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use kube::client::Body;
use kubeedge_core::service::BoxError;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::Service;

use super::{
    Api, State,
    path::{Selector, Target},
    watch,
};

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A request on its way.
pub(super) struct Pending {
    due: Duration,
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    body: Value,
    reply: oneshot::Sender<Result<Outcome, &'static str>>,
}

/// An answer on its way.
pub(super) struct Reply {
    outcome: Result<Outcome, &'static str>,
    to: oneshot::Sender<Result<Outcome, &'static str>>,
}

enum Outcome {
    Json(u16, Value),
    Watch { target: Target, selector: Selector, from: u64, bookmarks: bool },
}

/// The API as `kube` calls it.
pub(super) struct Door(pub(super) Api);

impl Service<Request<Body>> for Door {
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let api = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
            let (reply, answered) = oneshot::channel();
            let query = parts.uri.query().unwrap_or_default();
            let query = query.split('&').filter_map(|pair| pair.split_once('='));
            let query = query.map(|(key, value)| (key.to_owned(), decoded(value))).collect();
            api.lock().arrive(parts.method, parts.uri.path().to_owned(), query, body, reply);
            match answered.await {
                Ok(Ok(Outcome::Json(code, body))) => {
                    let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
                    let answer = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
                    Ok(answer.body(body)?)
                }
                Ok(Ok(Outcome::Watch { target, selector, from, bookmarks })) => {
                    Ok(Response::new(watch::body(&api, target, selector, from, bookmarks)))
                }
                Ok(Err(why)) => Err(why.into()),
                Err(_) => Err("the connection to the API broke".into()),
            }
        })
    }
}

/// Undoes the encoding of a query.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digits = [rest.clone().next(), rest.clone().nth(1)];
        let code = match (byte, digits) {
            (b'%', [Some(high), Some(low)]) => {
                std::str::from_utf8(&[high, low]).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok())
            }
            (b'+', _) => Some(b' '),
            _ => None,
        };
        if byte == b'%' && code.is_some() {
            rest.nth(1);
        }
        bytes.push(code.unwrap_or(byte));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl State {
    fn arrive(
        &mut self,
        method: Method,
        path: String,
        query: Vec<(String, String)>,
        body: Value,
        reply: oneshot::Sender<Result<Outcome, &'static str>>,
    ) {
        let due = self.now + self.delay();
        // One connection: what was sent first arrives first.
        let due = self.requests.back().map_or(due, |last| due.max(last.due));
        self.requests.push_back(Pending { due, method, path, query, body, reply });
    }

    fn delay(&mut self) -> Duration {
        self.trouble.latency.mul_f64(self.rng.f64())
    }

    /// Carries out what is due, and answers what is due.
    pub(super) fn serve(&mut self) {
        while self.requests.front().is_some_and(|first| first.due <= self.now) {
            let Some(request) = self.requests.pop_front() else { break };
            let dice = self.rng.u8(..100);
            let trouble = self.trouble;
            let outcome = if trouble.down {
                Err("connection refused")
            } else if dice < trouble.refuses {
                Ok(failure(503, "ServiceUnavailable", "etcd has no leader"))
            } else {
                let outcome = self.carry_out(&request);
                let lost = dice < trouble.refuses + trouble.loses_answers;
                if lost { Err("connection reset before the answer") } else { Ok(outcome) }
            };
            let due = self.now + self.delay();
            let due = self.replies.back().map_or(due, |(last, _)| due.max(*last));
            self.replies.push_back((due, Reply { outcome, to: request.reply }));
        }
        while self.replies.front().is_some_and(|(due, _)| *due <= self.now) {
            let Some((_, reply)) = self.replies.pop_front() else { break };
            // Whoever asked may have gone.
            drop(reply.to.send(reply.outcome));
        }
    }

    fn carry_out(&mut self, request: &Pending) -> Outcome {
        let Some(target) = Target::parse(&request.path) else { return missing(&request.path) };
        let body = &request.body;
        let Some(name) = target.name.clone() else {
            return match request.method {
                Method::GET => self.list(target, &request.query),
                Method::POST => self.post(&target, body),
                _ => failure(405, "MethodNotAllowed", "not on collections"),
            };
        };
        let place = target.place(&name);
        let Some(stored) = self.objects.get(&place).cloned() else { return missing(&place.to_string()) };
        if let Some(conflict) = conflict(&stored, body) {
            return conflict;
        }
        let object = match request.method {
            Method::GET => stored,
            Method::PATCH => {
                let object = Self::patched(&stored, body, target.status, &place.plural);
                self.update(&place, object)
            }
            Method::PUT => {
                let mut object = body.clone();
                if target.status {
                    object = stored.clone();
                    object["status"] = body["status"].clone();
                } else {
                    object["status"] = stored["status"].clone();
                }
                object["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
                object["metadata"]["uid"] = stored["metadata"]["uid"].clone();
                self.update(&place, object)
            }
            Method::DELETE => self.delete(&place).unwrap_or_default(),
            _ => return failure(405, "MethodNotAllowed", "not on objects"),
        };
        Outcome::Json(200, object)
    }

    fn list(&self, target: Target, query: &[(String, String)]) -> Outcome {
        let get = |key: &str| query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let selector = Selector::parse(get("labelSelector").unwrap_or_default());
        if get("watch").is_some_and(|watch| watch == "true" || watch == "1") {
            let from = get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(self.version);
            let bookmarks = get("allowWatchBookmarks") == Some("true");
            return Outcome::Watch { target, selector, from, bookmarks };
        }
        let all = self.objects.iter().filter(|(place, _)| {
            place.plural == target.plural && (target.namespace.is_empty() || place.namespace == target.namespace)
        });
        let items: Vec<&Value> = all.map(|(_, object)| object).filter(|object| selector.matches(object)).collect();
        let metadata = json!({ "resourceVersion": self.version.to_string() });
        Outcome::Json(200, json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items }))
    }

    fn post(&mut self, target: &Target, body: &Value) -> Outcome {
        let Some(name) = body["metadata"]["name"].as_str() else {
            return failure(422, "Invalid", "metadata.name is required");
        };
        let place = target.place(name);
        if self.objects.contains_key(&place) {
            return failure(409, "AlreadyExists", &format!("{place} already exists"));
        }
        let mut object = body.clone();
        if !place.namespace.is_empty() {
            object["metadata"]["namespace"] = place.namespace.as_str().into();
        }
        Outcome::Json(201, self.insert(&place, object))
    }
}

/// Preconditions, of writes and of deletions.
fn conflict(stored: &Value, body: &Value) -> Option<Outcome> {
    let told = [&body["metadata"]["uid"], &body["preconditions"]["uid"]];
    if told.iter().any(|uid| uid.is_string() && **uid != stored["metadata"]["uid"]) {
        return Some(failure(409, "Conflict", "Precondition failed: UID in precondition differs"));
    }
    let version = &body["metadata"]["resourceVersion"];
    if version.is_string() && *version != stored["metadata"]["resourceVersion"] {
        return Some(failure(409, "Conflict", "the object has been modified"));
    }
    None
}

fn missing(what: &str) -> Outcome {
    failure(404, "NotFound", &format!("{what} not found"))
}

fn failure(code: u16, reason: &str, message: &str) -> Outcome {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code,
    });
    Outcome::Json(code, status)
}
