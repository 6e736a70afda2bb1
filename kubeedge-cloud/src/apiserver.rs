//! The embedded Kubernetes API: a real one, for one machine.
//!
//! An HTTP service over SQLite that kubectl and kube clients cannot tell from the real one for the resources it serves:
//! pods, nodes, config maps, secrets and their kin, leases, custom resources with their schemas. It takes the place of
//! a cluster in the quickstart, in tests, and at a site that stands alone. Beyond the API there is what keeps
//! its objects consistent: owners and their dependents, namespaces, definitions, the end of events. There is no
//! scheduler (a pod without a node stays pending), no access control beyond the administrator's token, no conversion
//! webhook, and rules in CEL (`x-kubernetes-validations`) are kept but not evaluated.
//!
//! - [`EmbeddedApi`]: the handle; [`EmbeddedApi::client`] for use in process, [`EmbeddedApi::serve`] for HTTPS.
//! - [`ApiService`]: the API as a tower service.
//! - [`ServingTls`] and [`kubeconfig`]: what a client needs to connect.
//!
//! What is answered is stored: a write returns after its commit, and watches see committed changes only, in order. A
//! watch takes its events from a bounded history; a client that falls behind is sent away with `410 Gone` and lists
//! again, as with any Kubernetes API.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use k8s_openapi::api::core::v1::Namespace;
//! use kube::{Api, api::ListParams};
//! use kubeedge_cloud::apiserver::EmbeddedApi;
//!
//! let api = EmbeddedApi::builder().in_memory().build().await?;
//! let namespaces: Api<Namespace> = Api::all(api.client("default"));
//! assert_eq!(namespaces.list(&ListParams::default()).await?.items.len(), 4);
//! # Ok(())
//! # }
//! ```

use std::{io, path::PathBuf, sync::Arc};

use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

mod discovery;
mod handlers;
mod kubeconfig;
mod lifecycle;
mod openapi;
mod patch;
mod protobuf;
mod registry;
mod reply;
mod request;
mod schema;
mod selector;
mod serve;
mod service;
mod status;
mod store;
mod table;
mod tls;
mod token;
mod validate;

pub use kubeconfig::{kubeconfig, write_kubeconfig};
pub use reply::ResponseBody;
pub use service::{ApiService, BODY_LIMIT};
pub use store::StoreError;
pub use tls::{ServingTls, TlsError};

use lifecycle::Target;
use store::{Clock, Key, Store};

/// Namespaces that exist from the first start.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// A handle to an embedded API. Clones share it; the database is closed when the last one is gone.
#[derive(Clone, Debug)]
pub struct EmbeddedApi {
    store: Store,
    admin_token: Arc<str>,
}

/// Settings of an [`EmbeddedApi`].
#[derive(Clone)]
pub struct EmbeddedApiBuilder {
    path: Option<PathBuf>,
    clock: Clock,
    admin_token: Option<String>,
}

impl std::fmt::Debug for EmbeddedApiBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedApiBuilder").field("path", &self.path).finish_non_exhaustive()
    }
}

impl EmbeddedApi {
    /// Settings to begin with: in memory, the system's clock, a token of its own.
    pub fn builder() -> EmbeddedApiBuilder {
        EmbeddedApiBuilder { path: None, clock: Arc::new(jiff::Timestamp::now), admin_token: None }
    }

    /// The API as a service for use in process: whoever has it may do everything.
    pub fn service(&self) -> ApiService {
        ApiService::new(self.store.clone())
    }

    /// A client in process. Must be called within a tokio runtime, on which the client's buffer runs.
    pub fn client(&self, default_namespace: &str) -> kube::Client {
        kube::Client::new(self.service(), default_namespace)
    }

    /// The token that lets a client in over HTTPS. It is made at first start and kept in the database.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// Serves HTTPS (HTTP/1.1 and HTTP/2) on `listener` until `shutdown` is cancelled.
    ///
    /// Requests need the administrator's token as bearer token; `/healthz`, `/livez` and `/readyz` do not. A connection
    /// that does not bring the token within 30 s is closed. After `shutdown`, watches end and open requests have 0.8 s
    /// to do so.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listener and all connections at once.
    pub async fn serve(&self, listener: TcpListener, tls: ServingTls, shutdown: CancellationToken) -> io::Result<()> {
        serve::serve(self.service(), self.admin_token.clone(), listener, &tls, shutdown).await
    }
}

impl EmbeddedApiBuilder {
    /// Keeps everything in the SQLite database at `path`, which is made if it is not there; its folder must exist.
    ///
    /// One process at a time can use it; a second one waits 5 s and then fails with [`StoreError::InUse`].
    pub fn data_source(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Keeps nothing beyond the life of the handle (the default).
    pub fn in_memory(mut self) -> Self {
        self.path = None;
        self
    }

    /// Takes the time from `clock`: for creation times, ages and the ends of tokens. Timeouts are tokio's.
    pub fn clock(mut self, clock: impl Fn() -> jiff::Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Uses this token for the administrator instead of the one in the database.
    pub fn admin_token(mut self, token: String) -> Self {
        self.admin_token = Some(token);
        self
    }

    /// Opens the database, loads it, and makes what must be there: the first namespaces.
    pub async fn build(self) -> Result<EmbeddedApi, StoreError> {
        let store = Store::open(self.path, self.clock).await?;
        let admin_token = self.admin_token.unwrap_or_else(|| store.secrets().admin_token.clone());
        let api = EmbeddedApi { store, admin_token: admin_token.into() };
        api.first_namespaces().await?;
        Ok(api)
    }
}

impl EmbeddedApi {
    async fn first_namespaces(&self) -> Result<(), StoreError> {
        let made = self.store.write(false, |transaction| {
            let Some(resource) = transaction.registry().find("", "namespaces").cloned() else { return Ok(()) };
            let target = Target { resource, version: "v1".to_owned() };
            for name in NAMESPACES {
                if transaction.get(&target.resource, &Key::new("", name)).is_none() {
                    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
                    lifecycle::create(transaction, &target, "", namespace)?;
                }
            }
            Ok(())
        });
        made.await.map_err(|error| StoreError::Namespaces(error.to_string()))
    }
}
