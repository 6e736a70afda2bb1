//! The validating webhook of Devices and DeviceModels: `/devices` and `/devicemodels`, AdmissionReview `v1`.
//!
//! It refuses what only a change of the object itself can set right: property names that occur twice, as upstream does,
//! names that cannot be one, a Device without a model. What a change of the other object may set right is let in with
//! warnings, which `kubectl` prints: objects that belong together are often written in any order. An object that was there
//! already and whose `spec` stays is let in whatever is wrong with it, so that its labels and finalizers can be changed.
//!
//! Register it with `failurePolicy: Ignore` for `CREATE` and `UPDATE` of `devices` and `devicemodels` in
//! `devices.kubeedge.io/v1beta1`.
//!
//! Upstream: `cloud/pkg/admissioncontroller` (v1.21 to v1.23), a program of its own, which also has webhooks of rules.

mod review;

use std::fmt;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use kube::Client;
use kubeedge_core::device::{DeviceModelSpec, read_model};

use self::review::{Reviewed, answer, model_of};
use crate::{
    hub::bootstrap,
    object::{ApiCalls, Kind},
};

/// Longest review: two objects of the longest that the API takes, and room.
pub const MAX_REVIEW: usize = 8 * 1024 * 1024;

/// What the webhook answers from.
#[derive(Clone)]
pub struct Admission {
    calls: ApiCalls,
}

impl Admission {
    /// Looks models up through `client`. One that cannot be looked up counts as not known: nothing is said about it.
    pub fn new(client: Client) -> Self {
        Self { calls: ApiCalls::new(client) }
    }

    /// The routes: a tower service for whatever serves HTTP. A body has at most [`MAX_REVIEW`] bytes.
    pub fn router(self) -> Router {
        Router::new().route("/devices", post(devices)).route("/devicemodels", post(models)).with_state(self)
    }

    async fn review(&self, kind: Reviewed, headers: &HeaderMap, body: Body) -> Response {
        let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if media_type.split(';').next().map(str::trim) != Some("application/json") {
            return (StatusCode::UNSUPPORTED_MEDIA_TYPE, "expect application/json").into_response();
        }
        let body = match bootstrap::read_body(body, MAX_REVIEW).await {
            Ok(body) => body,
            Err(refused) => return refused.into_response(),
        };
        let Ok(asked) = serde_json::from_slice(&body) else {
            return (StatusCode::BAD_REQUEST, "body is no AdmissionReview").into_response();
        };
        let model = match model_of(kind, &asked) {
            Some((namespace, name)) => self.model(&namespace, &name).await,
            None => Model::Unknown,
        };
        ([(header::CONTENT_TYPE, "application/json")], answer(kind, &asked, &model).to_string()).into_response()
    }

    async fn model(&self, namespace: &str, name: &str) -> Model {
        match self.calls.get((&Kind::DEVICE_MODEL, Some(namespace), name)).await {
            Ok(model) => read_model(&model["spec"]).map_or(Model::Unknown, |model| Model::There(Box::new(model))),
            Err(status) if status.is_not_found() => Model::Missing,
            Err(status) => {
                tracing::warn!(namespace, name, message = status.message, "model of a device not looked up");
                Model::Unknown
            }
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

/// What is known of the model that a Device names.
#[derive(Debug)]
enum Model {
    There(Box<DeviceModelSpec>),
    Missing,
    Unknown,
}

async fn devices(State(admission): State<Admission>, headers: HeaderMap, body: Body) -> Response {
    admission.review(Reviewed::Device, &headers, body).await
}

async fn models(State(admission): State<Admission>, headers: HeaderMap, body: Body) -> Response {
    admission.review(Reviewed::DeviceModel, &headers, body).await
}
