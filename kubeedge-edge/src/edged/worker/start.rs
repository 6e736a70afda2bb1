//! Starting a container: what it needs, in order, and what it waits for.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::Container;
use kubeedge_core::{names::UnixMillis, service::Causes};

use super::{FetchError, Reference, WorkError, Worker};
use crate::edged::{
    decide::{Waiting, later, spec_hash},
    env::{FieldContext, environment, expand},
    process::blocking,
    references::Loaded,
    runtime::{ContainerConfig, PullPolicy, SandboxStatus},
    volumes::Volumes,
};

/// How long the cloud may take to answer for a reference.
const FETCH_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a container waits for the cloud's word about a reference that it can do without.
const OPTIONAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest reason that is told, in bytes: names in it may be of any length.
const LONGEST_MESSAGE: usize = 1024;

const CONFIG_ERROR: &str = "CreateContainerConfigError";

impl Worker {
    /// Reads from the store what the pod refers to.
    pub(super) async fn load(&mut self) -> Result<Loaded, WorkError> {
        let namespace = self.entry.key.namespace.as_str();
        Ok(self.shared.resolver.load(namespace, self.entry.uid.as_str(), self.entry.references.keys()).await?)
    }

    pub(super) fn fields<'a>(&'a self, pod_ip: &'a str) -> FieldContext<'a> {
        FieldContext {
            node: self.shared.config.node.as_str(),
            host_ip: self.shared.host_ip.as_deref().unwrap_or_default(),
            pod_ip,
        }
    }

    pub(super) fn pod_ip(&self, sandbox: Option<&SandboxStatus>) -> String {
        let own = sandbox.and_then(|sandbox| sandbox.ip.clone());
        own.or_else(|| self.shared.host_ip.clone()).unwrap_or_default()
    }

    /// Asks the cloud for a reference, unless that is under way or there is no link.
    pub(super) fn fetch(&mut self, reference: Reference) -> bool {
        if !self.shared.link.borrow().is_connected() {
            return false;
        }
        if self.fetching.insert(reference.clone()) {
            let resolver = self.shared.resolver.clone();
            let entry = std::sync::Arc::clone(&self.entry);
            let fetch = async move {
                let done = match tokio::time::timeout(FETCH_TIMEOUT, resolver.fetch(&entry.pod, &reference)).await {
                    Ok(done) => done,
                    Err(_) => Err(FetchError::Uplink(kubeedge_core::uplink::UplinkError::TimedOut)),
                };
                (reference, done)
            };
            self.fetches.push(fetch.boxed());
        }
        true
    }

    /// Starts a container; `Some` if it has to wait.
    pub(super) async fn start(
        &mut self,
        sandbox: &SandboxStatus,
        name: &str,
        attempt: u32,
        crashed_at: Option<UnixMillis>,
    ) -> Result<Option<Waiting>, WorkError> {
        let entry = std::sync::Arc::clone(&self.entry);
        let spec = entry.pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
        let Some(container) = spec.into_iter().find(|container| container.name == name) else { return Ok(None) };
        let now = self.shared.clock.now();
        let wait = |reason: &str, mut message: String, delay: Duration| {
            message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
            Ok(Some(Waiting { reason: reason.to_owned(), message, until: later(now, delay) }))
        };
        let retry = self.shared.config.retry;

        let loaded = self.load().await?;
        if let Some((message, delay)) = self.missing(&loaded) {
            let reason = if message.is_empty() { "ContainerCreating" } else { CONFIG_ERROR };
            return wait(reason, message, delay);
        }
        let pod_ip = self.pod_ip(Some(sandbox));
        let provided = self.shared.runtime.provided_env(&sandbox.id, name);
        let dir = entry.dir(&self.shared.config);
        let resolved = Volumes::resolve(&entry.pod, &loaded.sources, self.fields(&pod_ip), dir).and_then(|volumes| {
            let env = environment(&entry.pod, container, &loaded.sources, self.fields(&pod_ip), &provided)?;
            Ok((volumes, env))
        });
        let (volumes, env) = match resolved {
            Ok(resolved) => resolved,
            Err(error) => return wait(CONFIG_ERROR, error.to_string(), retry),
        };
        let (of, with) = (container.clone(), env.clone());
        let mounts = match blocking(move || volumes.write().and_then(|()| volumes.mounts(&of, &with))).await {
            Ok(mounts) => mounts,
            Err(error) => return wait(CONFIG_ERROR, error.to_string(), retry),
        };
        let image = container.image.as_deref().unwrap_or_default();
        let mut wanted = self.wanted.clone();
        let uid = entry.uid.clone();
        let image = tokio::select! {
            image = self.shared.runtime.ensure_image(image, pull_policy(container)) => image,
            // Nobody waits for the image of a pod that is to end.
            _ = wanted.wait_for(|wanted| wanted.entry.as_ref().is_none_or(|e| e.uid != uid || e.is_deleted())) => {
                return wait("ContainerCreating", String::new(), retry);
            }
        };
        let image = match image {
            Ok(image) => image,
            Err(error) => return wait("ErrImagePull", Causes(&error).to_string(), retry),
        };
        let config = container_config(container, attempt, image, env, mounts, &provided);
        let id = match self.shared.runtime.create_container(&sandbox.id, config).await {
            Ok(id) => id,
            Err(error) => return wait("CreateContainerError", Causes(&error).to_string(), retry),
        };
        if let Some(crashed_at) = crashed_at {
            self.memory.back_off.note(name, crashed_at, now);
        }
        // One that fails to start has ended, and is restarted like one that crashed.
        match self.shared.runtime.start_container(&id).await {
            Ok(()) => tracing::info!(pod = %entry.key, container = name, attempt, "container started"),
            Err(error) => {
                tracing::warn!(pod = %entry.key, container = name, attempt, error = %error, "container not started");
            }
        }
        Ok(None)
    }

    /// What keeps a container from being configured, and how long to wait for it. An empty text means that the cloud
    /// is asked for something that the container can do without.
    fn missing(&mut self, loaded: &Loaded) -> Option<(String, Duration)> {
        let (mut required, mut optional) = (None, None);
        for reference in &loaded.wanted {
            let dispensable = self.entry.references.get(reference) == Some(&true);
            let first = self.asked.insert(reference.clone());
            if dispensable && !first && !self.fetching.contains(reference) {
                continue;
            }
            let asked = self.fetch(reference.clone());
            if loaded.sources.contains_key(reference) {
                // It is due for renewal, and good enough until then.
            } else if !dispensable {
                let message = format!("{} not found", reference.describe());
                required.get_or_insert((message, self.shared.config.retry));
            } else if asked && first {
                optional = Some((String::new(), OPTIONAL_TIMEOUT));
            }
        }
        required.or(optional)
    }
}

fn container_config(
    container: &Container,
    attempt: u32,
    image: crate::edged::runtime::ImageRef,
    env: Vec<(String, String)>,
    mounts: Vec<crate::edged::runtime::Mount>,
    provided: &BTreeMap<String, String>,
) -> ContainerConfig {
    let value =
        |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value).or_else(|| provided.get(name));
    let words = |words: &Option<Vec<String>>| words.iter().flatten().map(|word| expand(word, value)).collect();
    ContainerConfig {
        name: container.name.clone(),
        attempt,
        image,
        spec_hash: spec_hash(container),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts,
        log_path: PathBuf::from(&container.name).join(format!("{attempt}.log")),
        env,
    }
}

fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        _ => PullPolicy::IfNotPresent,
    }
}
