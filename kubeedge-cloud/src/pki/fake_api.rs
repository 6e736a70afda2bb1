//! A Kubernetes API of a few lines for tests: objects by path, create, get and merge patch, and failures on demand.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use kube::client::Body;
use serde_json::{Value, json};

#[derive(Clone)]
pub(crate) struct FakeApi {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    /// Requests that are to be answered 500 from now on.
    failures: Arc<Mutex<usize>>,
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        Self { objects: Arc::default(), failures: Arc::default() }
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (status, value) = api.answer(&head.method, head.uri.path(), &body);
                let bytes = Bytes::from(serde_json::to_vec(&value).unwrap());
                Ok::<_, Infallible>(Response::builder().status(status).body(Full::new(bytes)).unwrap())
            }
        });
        kube::Client::new(service, "default")
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().unwrap().get(path).cloned()
    }

    pub(crate) fn put(&self, path: &str, value: Value) {
        self.objects.lock().unwrap().insert(path.into(), value);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.objects.lock().unwrap().remove(path);
    }

    pub(crate) fn fail_next(&self, requests: usize) {
        *self.failures.lock().unwrap() = requests;
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", path);
        }
        let mut objects = self.objects.lock().unwrap();
        match *method {
            Method::GET => match objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => status(StatusCode::NOT_FOUND, "NotFound", path),
            },
            Method::POST => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                if objects.contains_key(&path) {
                    return status(StatusCode::CONFLICT, "AlreadyExists", &path);
                }
                objects.insert(path, object.clone());
                (StatusCode::CREATED, object)
            }
            Method::PATCH => match objects.get_mut(path) {
                Some(object) => {
                    json_patch::merge(object, &serde_json::from_slice(body).unwrap());
                    (StatusCode::OK, object.clone())
                }
                None => status(StatusCode::NOT_FOUND, "NotFound", path),
            },
            _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", path),
        }
    }
}

fn status(code: StatusCode, reason: &str, path: &str) -> (StatusCode, Value) {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": path, "reason": reason, "code": code.as_u16(),
    });
    (code, body)
}
