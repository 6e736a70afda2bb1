//! The API as a `tower` service.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{
    discovery, handlers, openapi,
    reply::{Reply, ResponseBody},
    request::{Query, Route, form},
    status::ApiError,
    store::Store,
};

/// Bodies larger than this are refused, as in Kubernetes.
pub const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// Ends the watches of a request when the server that took it stops. A server puts it into the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Stopping(pub(crate) CancellationToken);

/// The Kubernetes API as a service: every request is answered, without asking who sent it. As there are no users, headers
/// that ask for the rights of another one (`Impersonate-User`, `Impersonate-Group`) are not looked at.
///
/// Answers and errors are those of Kubernetes; the service itself never fails and is always ready.
#[derive(Clone, Debug)]
pub struct ApiService {
    store: Store,
}

/// A request that was read in whole.
#[derive(Debug)]
pub(crate) struct ApiRequest {
    pub(crate) method: Method,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) stopping: CancellationToken,
}

impl ApiRequest {
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The media type of the body, without parameters.
    pub(crate) fn content_type(&self) -> &str {
        let value = self.header(header::CONTENT_TYPE).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim()
    }

    /// Who makes the change: the parameter, or the program's name.
    pub(crate) fn field_manager(&self) -> String {
        let named = self.query.text("fieldManager");
        let agent = || self.header(header::USER_AGENT).and_then(|agent| agent.split('/').next());
        named.or_else(agent).filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned()
    }
}

impl ApiService {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }
}

impl<B> Service<Request<B>> for ApiService
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let store = self.store.clone();
        Box::pin(async move {
            let reply = answer(&store, request).await.unwrap_or_else(Reply::from);
            Ok(reply.into_response())
        })
    }
}

async fn answer<B>(store: &Store, request: Request<B>) -> Result<Reply, ApiError>
where
    B: Body + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let Some(route) = Route::parse(parts.uri.path()) else { return Err(ApiError::no_such_path()) };
    let request = ApiRequest {
        method: parts.method,
        query: Query::parse(parts.uri.query().unwrap_or_default()),
        headers: parts.headers,
        body: collect(body).await?,
        stopping: parts.extensions.get::<Stopping>().map(|s| s.0.clone()).unwrap_or_default(),
    };
    if let Route::Objects(path) = route {
        return handlers::handle(store, &path, request).await;
    }
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed("the server does not allow this method on the requested resource"));
    }
    let accept = request.header(header::ACCEPT);
    let registry = store.state().registry();
    match route {
        Route::Root => Ok(discovery::paths(&registry)),
        Route::Version => Ok(discovery::version()),
        Route::Health => Ok(Reply::bytes(http::StatusCode::OK, "text/plain; charset=utf-8", "ok")),
        Route::CoreVersions => Ok(discovery::core_versions(&registry, form(accept)?)),
        Route::Groups => Ok(discovery::groups(&registry, form(accept)?)),
        Route::Group(name) => discovery::group(&registry, &name),
        Route::Resources { group, version } => discovery::resources(&registry, &group, &version),
        Route::OpenApiV2 => Ok(openapi::v2(&registry)),
        Route::OpenApiV3 => Ok(openapi::v3_root(&registry)),
        Route::OpenApiV3Group { group, version } => openapi::v3(&registry, &group, &version),
        Route::Objects(_) => Err(ApiError::no_such_path()),
    }
}

async fn collect<B>(body: B) -> Result<Bytes, ApiError>
where
    B: Body + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large(BODY_LIMIT)),
        Err(error) => Err(ApiError::bad_request(format!("the body could not be read: {error}"))),
    }
}
