//! A tap on the way of one instance to the API: it can be cut, disturbed, and listened to.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody, combinators::UnsyncBoxBody};
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{Api, Client};
use kubeedge_cloud::{apiserver::EmbeddedApi, crds::parse_object_sync_name};
use kubeedge_core::service::BoxError;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::{ServiceExt as _, service_fn};

/// For a claim to be seen by the one that loses by it.
const NOTICE: Duration = Duration::from_secs(1);

type Body = UnsyncBoxBody<Bytes, BoxError>;

#[derive(Clone)]
pub(crate) struct Tap(Arc<Shared>);

struct Shared {
    /// The name of the instance in Leases.
    instance: String,
    raw: Client,
    away: watch::Sender<bool>,
    /// Grows whenever open watches are to end.
    cuts: watch::Sender<u64>,
    writes: Mutex<Vec<String>>,
    foreign: Mutex<Vec<String>>,
    /// Old answers, by path, that are given once.
    stale: Mutex<HashMap<String, Bytes>>,
    /// Watches of these paths have to list anew, once.
    expired: Mutex<Vec<String>>,
    /// Writes to these paths are refused, with this status.
    refused: Mutex<HashMap<String, u16>>,
    refusals: AtomicUsize,
}

impl Tap {
    /// A tap for the instance, and the client that goes through it.
    pub(crate) fn new(api: &EmbeddedApi, instance: &str) -> (Self, Client) {
        let tap = Self(Arc::new(Shared {
            instance: instance.to_owned(),
            raw: api.client("default"),
            away: watch::Sender::new(false),
            cuts: watch::Sender::new(0),
            writes: Mutex::default(),
            foreign: Mutex::default(),
            stale: Mutex::default(),
            expired: Mutex::default(),
            refused: Mutex::default(),
            refusals: AtomicUsize::new(0),
        }));
        let (service, handle) = (api.service(), tap.clone());
        let service = service_fn(move |request: Request<kube::client::Body>| {
            let (service, tap) = (service.clone(), handle.clone());
            async move {
                if *tap.0.away.borrow() {
                    return Err(BoxError::from("the API is away"));
                }
                if let Some(answer) = tap.answer(request.method().clone(), request.uri().clone()).await {
                    return Ok(answer);
                }
                let response = service.oneshot(request).await.map_err(|never| match never {})?;
                Ok(response.map(|body| tap.cut_short(body)))
            }
        });
        (tap, Client::new(service, "default"))
    }

    /// Cuts the API off, with all that is open, or lets it through again.
    pub(crate) fn away(&self, away: bool) {
        self.0.away.send_replace(away);
        if away {
            self.0.cuts.send_modify(|cuts| *cuts += 1);
        }
    }

    /// Remembers what a list of `path` looks like now.
    pub(crate) async fn list_of(&self, path: &str) -> Bytes {
        let request = Request::get(path).body(Vec::new()).unwrap();
        let text = self.0.raw.request_text(request).await.unwrap();
        text.into()
    }

    /// All watches end; that of `path` has to list anew, and gets that list, which may be an old one.
    pub(crate) fn go_back(&self, path: &str, list: Bytes) {
        self.0.stale.lock().unwrap().insert(path.to_owned(), list);
        self.0.expired.lock().unwrap().push(path.to_owned());
        self.0.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// The first list of `path` is this one.
    pub(crate) fn start_with(&self, path: &str, list: Bytes) {
        self.0.stale.lock().unwrap().insert(path.to_owned(), list);
    }

    /// All watches end, and that of `path` has to list anew: what happened in between is never told.
    pub(crate) fn miss(&self, path: &str) {
        self.0.expired.lock().unwrap().push(path.to_owned());
        self.0.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Whether the old list and the end of the watch have been used.
    pub(crate) fn is_through(&self) -> bool {
        self.0.stale.lock().unwrap().is_empty() && self.0.expired.lock().unwrap().is_empty()
    }

    pub(crate) fn refuse(&self, part: &str, status: Option<u16>) {
        let mut refused = self.0.refused.lock().unwrap();
        match status {
            Some(status) => drop(refused.insert(part.to_owned(), status)),
            None => drop(refused.remove(part)),
        }
    }

    /// How many writes were refused.
    pub(crate) fn refusals(&self) -> usize {
        self.0.refusals.load(Ordering::SeqCst)
    }

    /// All writes of records: `METHOD path`.
    pub(crate) fn record_writes(&self) -> Vec<String> {
        self.0.writes.lock().unwrap().clone()
    }

    /// Writes of records of nodes that had been another instance's for a while.
    pub(crate) fn foreign_writes(&self) -> Vec<String> {
        self.0.foreign.lock().unwrap().clone()
    }

    async fn answer(&self, method: Method, uri: Uri) -> Option<Response<Body>> {
        let path = uri.path();
        let watching = uri.query().is_some_and(|query| query.contains("watch=true"));
        if method == Method::GET {
            let mut expired = self.0.expired.lock().unwrap();
            if watching && let Some(at) = expired.iter().position(|expired| expired == path) {
                expired.remove(at);
                let gone = json!({ "type": "ERROR", "object": failure(410, "Expired") });
                return Some(Response::new(whole(format!("{gone}\n").into())));
            }
            drop(expired);
            if !watching && let Some(list) = self.0.stale.lock().unwrap().remove(path) {
                return Some(Response::new(whole(list)));
            }
            return None;
        }
        let refused =
            self.0.refused.lock().unwrap().iter().find(|(part, _)| path.contains(&**part)).map(|(_, code)| *code);
        if let Some(code) = refused {
            self.0.refusals.fetch_add(1, Ordering::SeqCst);
            return Some(status(code, "Forbidden"));
        }
        if path.contains("/objectsyncs") || path.contains("/clusterobjectsyncs") {
            let line = format!("{method} {path}");
            self.0.writes.lock().unwrap().push(line.clone());
            // A new record has its name in the body; the status that follows has it in the path.
            let name = path.trim_end_matches("/status").rsplit('/').next().unwrap();
            if let Some((node, _)) = parse_object_sync_name(name)
                && self.is_foreign(node.as_str()).await
            {
                self.0.foreign.lock().unwrap().push(line);
            }
        }
        None
    }

    async fn is_foreign(&self, node: &str) -> bool {
        let leases: Api<Lease> = Api::namespaced(self.0.raw.clone(), "kubeedge");
        let Some(spec) = leases.get_opt(&format!("node-{node}")).await.unwrap().and_then(|lease| lease.spec) else {
            return false;
        };
        let since = spec.renew_time.unwrap().0;
        let known = Timestamp::now().duration_since(since) > NOTICE.try_into().unwrap();
        spec.holder_identity.as_deref() != Some(&*self.0.instance) && known
    }

    fn cut_short<B>(&self, body: B) -> Body
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut cuts = self.0.cuts.subscribe();
        cuts.mark_unchanged();
        let cut = async move { cuts.changed().await.ok() };
        let frames = BodyStream::new(body).map(|frame| frame.map_err(Into::into)).take_until(cut);
        StreamBody::new(frames.boxed()).boxed_unsync()
    }
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn failure(code: u16, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason,
    })
}

fn status(code: u16, reason: &str) -> Response<Body> {
    let mut response = Response::new(whole(failure(code, reason).to_string().into()));
    *response.status_mut() = code.try_into().unwrap();
    response
}
