//! Requests for objects.

use std::sync::Arc;

use http::{Method, StatusCode, header};
use serde_json::Value;

use super::{
    lifecycle::{Part, Target},
    registry::{Resource, Strategy},
    reply::Reply,
    request::{Form, Path, form},
    schema::TypeTable,
    service::ApiRequest,
    status::ApiError,
    store::{Key, Object, Store},
    table,
};

mod body;
mod delete;
mod list;
mod patch;
mod review;
mod subresource;
mod view;
mod watch;
mod write;

use view::View;

/// A request for objects of one resource.
#[derive(Debug)]
struct Call {
    store: Store,
    view: View,
    types: Arc<TypeTable>,
    namespace: Option<String>,
    name: Option<String>,
    request: ApiRequest,
}

/// Answers a request for objects.
pub(crate) async fn handle(store: &Store, path: &Path, request: ApiRequest) -> Result<Reply, ApiError> {
    let registry = store.state().registry();
    let resource = registry.find(&path.group, &path.plural).ok_or_else(ApiError::no_such_path)?;
    let served = resource.version(&path.version).ok_or_else(ApiError::no_such_path)?;
    if path.namespace.is_some() && !resource.namespaced {
        return Err(ApiError::no_such_path());
    }
    if resource.namespaced && path.namespace.is_none() && path.name.is_some() {
        return Err(ApiError::no_such_path());
    }
    let call = Call {
        view: View {
            target: Target { resource: resource.clone(), version: path.version.clone() },
            form: form(request.header(header::ACCEPT))?,
            include: table::include(&request.query),
            clock: store.clock().clone(),
        },
        store: store.clone(),
        types: registry.types().clone(),
        namespace: path.namespace.clone(),
        name: path.name.clone(),
        request,
    };
    if resource.strategy == Strategy::Review {
        return if call.request.method == Method::POST && call.name.is_none() {
            review::review(&call)
        } else {
            Err(not_allowed())
        };
    }
    match path.subresource.as_deref() {
        None => call.main().await,
        Some("status") if served.status => call.part(Part::Status).await,
        Some("finalize") if resource.strategy == Strategy::Namespace => call.part(Part::Finalize).await,
        Some("approval") if resource.strategy == Strategy::Signing => call.part(Part::Approval).await,
        Some("binding") if resource.strategy == Strategy::Pod => subresource::bind(call).await,
        Some("token") if resource.strategy == Strategy::ServiceAccount => subresource::token(&call),
        Some(_) => Err(ApiError::no_such_path()),
    }
}

impl Call {
    async fn main(self) -> Result<Reply, ApiError> {
        let method = self.request.method.clone();
        match (self.name.is_some(), method) {
            (true, Method::GET | Method::HEAD) => self.get(),
            (false, Method::GET) if self.request.query.flag("watch") => watch::watch(&self),
            (false, Method::GET | Method::HEAD) => list::list(&self),
            (false, Method::POST) => write::create(self).await,
            (true, Method::PUT) => write::update(self, Part::Main).await,
            (true, Method::PATCH) => patch::patch(self, Part::Main).await,
            (true, Method::DELETE) => delete::one(self).await,
            (false, Method::DELETE) if self.resource().verbs().contains(&"deletecollection") => {
                delete::collection(self).await
            }
            _ => Err(not_allowed()),
        }
    }

    async fn part(self, part: Part) -> Result<Reply, ApiError> {
        let method = self.request.method.clone();
        match method {
            Method::GET | Method::HEAD => self.get(),
            Method::PUT => write::update(self, part).await,
            Method::PATCH => patch::patch(self, part).await,
            _ => Err(not_allowed()),
        }
    }

    /// The body, which is an object of this resource.
    fn body(&self) -> Result<Value, ApiError> {
        body::object(&self.request, (!self.resource().is_custom()).then(|| self.target().schema()).as_deref())
    }

    fn resource(&self) -> &Arc<Resource> {
        &self.view.target.resource
    }

    fn target(&self) -> &Target {
        &self.view.target
    }

    fn key(&self) -> Key {
        Key::new(self.namespace.as_deref().unwrap_or_default(), self.name.as_deref().unwrap_or_default())
    }

    fn get(&self) -> Result<Reply, ApiError> {
        if let Some(asked) = self.request.query.number::<u64>("resourceVersion")? {
            let current = self.store.state().version();
            if asked > current {
                return Err(ApiError::version_too_large(asked, current));
            }
        }
        let key = self.key();
        let object = self.store.state().get(&self.resource().id, &key);
        let object = object.ok_or_else(|| ApiError::not_found(self.resource().subject(&key.name)))?;
        match self.view.form {
            Form::Table => Ok(self.table(&[object], None)),
            _ => Ok(Reply::ok(self.view.render(&object))),
        }
    }

    fn table(&self, objects: &[Arc<Object>], list: Option<Value>) -> Reply {
        let mut table = self.view.table(objects.iter().map(|object| object.value()));
        if let Some(metadata) = list {
            table["metadata"] = metadata;
        } else if let [object] = objects {
            table["metadata"]["resourceVersion"] = object.version.to_string().into();
        }
        Reply::json(StatusCode::OK, &table)
    }

    /// Answers with the object of a write.
    fn written(&self, code: StatusCode, value: Value, warnings: Vec<String>) -> Reply {
        let reply = if self.view.form == Form::Table {
            Reply::json(code, &self.view.table(std::iter::once(value)))
        } else {
            Reply::bytes(code, "application/json", self.view.bytes(value))
        };
        reply.with_warnings(warnings)
    }
}

fn not_allowed() -> ApiError {
    ApiError::method_not_allowed("the server does not allow this method on the requested resource")
}
