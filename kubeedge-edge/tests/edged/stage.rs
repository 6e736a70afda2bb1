//! A node to act on: a store, a cloud that does as told, a runtime, and what can be seen of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kubeedge_core::{
    answer::{Answer, ApiStatus},
    message::{Content, Message},
    meta::{Collection, MetaHandle, MetaKey, MetaService, Record, Revision},
    names::{NodeName, SharedClock, SystemClock, Uid},
    outbox,
    resource::ResourceType,
    session::{Outbound, Receipt, Until},
    testing::MemoryStore,
    uplink::{LinkState, UplinkError, UplinkHandle},
    words::{Operation, Source},
};
use kubeedge_edge::edged::{Edged, EdgedConfig, PodRuntime, PodSnapshot, ProcessRuntime};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Nothing here takes so long.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// What a cloud answers; `None` for nothing at all.
pub(crate) type Script = Arc<dyn Fn(&Message) -> Option<Answer> + Send + Sync>;

/// The cloud's end: all messages that came, and the link.
#[derive(Clone)]
pub(crate) struct Cloud {
    pub(crate) uplink: UplinkHandle,
    pub(crate) link: Arc<watch::Sender<LinkState>>,
    pub(crate) came: watch::Receiver<Vec<Message>>,
}

impl Cloud {
    pub(crate) fn new(script: Script) -> Self {
        let (link, state) = watch::channel(LinkState::Disconnected);
        let (log, came) = watch::channel(Vec::new());
        let log = Arc::new(log);
        let current = state.clone();
        let service = tower::service_fn(move |out: Outbound| {
            let (script, log, connected) = (Arc::clone(&script), Arc::clone(&log), current.borrow().is_connected());
            async move {
                if !connected {
                    return Err(UplinkError::Disconnected);
                }
                log.send_modify(|log| log.push(out.message.clone()));
                if out.until == Until::Written {
                    return Ok(Receipt::Done);
                }
                let Some(answer) = script(&out.message) else { return std::future::pending().await };
                let mut reply = out.message.acknowledgement(out.message.timestamp);
                reply.source = Source::EdgeController;
                let bare = out.message.operation == Operation::Query
                    && out.message.resource.object().is_some_and(|path| path.kind != ResourceType::Lease);
                reply.content = if bare { answer.to_bare() } else { answer.to_object_resp() }.unwrap();
                Ok(Receipt::Reply(reply))
            }
        });
        Self { uplink: UplinkHandle::new(service, state), link: Arc::new(link), came }
    }

    /// One that is never there.
    pub(crate) fn absent() -> Self {
        Self::new(Arc::new(|_| None))
    }

    pub(crate) fn connect(&self, session: u64) {
        self.link.send_replace(LinkState::Connected { session });
    }

    /// Waits for a message, and gives it.
    pub(crate) async fn got(&self, what: &str, accept: impl Fn(&Message) -> bool) -> Message {
        let mut came = self.came.clone();
        let wait = came.wait_for(|log| log.iter().any(&accept));
        let log = tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("no {what}")).unwrap().clone();
        log.into_iter().find(accept).unwrap()
    }

    pub(crate) fn count(&self, accept: impl Fn(&Message) -> bool) -> usize {
        self.came.borrow().iter().filter(|message| accept(message)).count()
    }
}

/// Whether a message is that.
pub(crate) fn is(operation: &Operation, resource: &str) -> impl Fn(&Message) -> bool {
    move |message| message.operation == *operation && message.resource.to_string() == resource
}

pub(crate) fn not_found() -> Answer {
    Answer::Refused(ApiStatus::failure(404, "NotFound", "not found"))
}

pub(crate) fn object(value: &Value) -> Answer {
    Answer::Object(Content::json(value).unwrap())
}

/// A node with its disk.
pub(crate) struct Stage {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) disk: MemoryStore,
    pub(crate) store: MetaHandle,
    pub(crate) cloud: Cloud,
    pub(crate) clock: SharedClock,
    pub(crate) config: EdgedConfig,
}

/// Nothing that was started on a stage outlives it.
impl Drop for Stage {
    fn drop(&mut self) {
        let dir = self.dir.path().to_str().unwrap().as_bytes();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let ours = environ
                .split(|byte| *byte == 0)
                .any(|variable| variable.strip_prefix(b"KUBEEDGE_POD_ROOT=").is_some_and(|root| root.starts_with(dir)));
            if ours {
                _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
        }
    }
}

/// An agent that runs on a stage. Dropped, it is as if it had been killed.
pub(crate) struct Agent {
    pub(crate) edged: Edged,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        tokio::time::timeout(SOON, &mut self.task).await.expect("driver does not end").unwrap();
    }

    pub(crate) async fn kill(mut self) {
        self.task.abort();
        _ = (&mut self.task).await;
    }

    /// Waits until a pod is so.
    pub(crate) async fn sees(&self, name: &str, what: &str, accept: impl Fn(&PodSnapshot) -> bool) -> PodSnapshot {
        let wait = self.edged.wait_for(|pods| pods.iter().any(|pod| pod.name == name && accept(pod)));
        let Ok(pods) = tokio::time::timeout(SOON, wait).await else {
            panic!("{name} is not {what}: {:#?}", self.edged.pods());
        };
        pods.unwrap().into_iter().find(|pod| pod.name == name).unwrap()
    }

    pub(crate) async fn misses(&self, name: &str) {
        let wait = self.edged.wait_for(|pods| pods.iter().all(|pod| pod.name != name));
        tokio::time::timeout(SOON, wait).await.expect("pod stays").unwrap();
    }

    /// Waits for a line in the log of a container.
    pub(crate) async fn logged(&self, pod: &str, line: &str) {
        let path = self.edged.log_path("shop", pod, "main").expect("no log");
        eventually(line, || std::fs::read_to_string(&path).is_ok_and(|log| log.lines().any(|found| found == line)))
            .await;
    }
}

/// Waits for something outside of the agent, such as a file that a process writes.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

impl Stage {
    pub(crate) fn new(cloud: Cloud) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeName::new("edge-1").unwrap();
        let config =
            EdgedConfig::new(node, dir.path().join("kubelet"), dir.path().join("logs")).node_ip([192, 0, 2, 7].into());
        let disk = MemoryStore::new();
        let store = MetaHandle::new(MetaService::new(disk.clone()));
        Self { dir, disk, store, cloud, clock: Arc::new(SystemClock), config }
    }

    pub(crate) fn native_dir(&self) -> PathBuf {
        self.dir.path().join("native")
    }

    pub(crate) async fn process_runtime(&self) -> Arc<dyn PodRuntime> {
        Arc::new(ProcessRuntime::open(self.native_dir(), Arc::clone(&self.clock)).await.unwrap())
    }

    pub(crate) async fn agent(&self) -> Agent {
        self.agent_on(self.process_runtime().await)
    }

    pub(crate) fn agent_on(&self, runtime: Arc<dyn PodRuntime>) -> Agent {
        let (edged, driver) = Edged::new(
            self.config.clone(),
            self.store.clone(),
            self.cloud.uplink.clone(),
            runtime,
            Arc::clone(&self.clock),
        );
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(driver.run(shutdown.clone()));
        Agent { edged, shutdown, task }
    }

    /// Stores an object, as the hub does when it comes from the cloud.
    pub(crate) async fn put(&self, kind: &ResourceType, value: &Value) {
        let metadata = &value["metadata"];
        let (namespace, name) = (metadata["namespace"].as_str().unwrap_or(""), metadata["name"].as_str().unwrap());
        let mut record = Record::new(MetaKey::new(Collection::from(kind), namespace, name), value.to_string());
        record.uid = metadata["uid"].as_str().map(|uid| Uid::new(uid).unwrap());
        self.store.put(record).await.unwrap();
    }

    pub(crate) async fn remove(&self, kind: &ResourceType, name: &str) {
        self.store.delete(MetaKey::new(Collection::from(kind), "shop", name)).await.unwrap();
    }

    pub(crate) async fn put_config(&self, name: &str, data: &Value) {
        let map = json!({"metadata": {"name": name, "namespace": "shop", "uid": "cm"}, "data": data});
        self.put(&ResourceType::ConfigMap, &map).await;
    }

    /// Waits for a message in the outbox.
    pub(crate) async fn left(&self, subject: &str, accept: impl Fn(&Message) -> bool) -> Message {
        let mut watch = self.store.watch(outbox::selector(), Revision::default()).await.unwrap();
        let wait = async {
            loop {
                if let Some(entry) = self.store.get(outbox::key(&outbox::Subject::new(subject).unwrap())).await.unwrap()
                {
                    let message = outbox::message(&entry).unwrap();
                    if accept(&message) {
                        return message;
                    }
                }
                watch.next().await.unwrap();
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("nothing about {subject}"))
    }

    /// Waits for a status in the outbox.
    pub(crate) async fn told(&self, pod: &str, accept: impl Fn(&Value) -> bool) -> Value {
        let status = |message: &Message| message.content.parse::<Value>().unwrap()["status"].clone();
        let message = self.left(&format!("podstatus/shop/{pod}"), |message| accept(&status(message))).await;
        status(&message)
    }
}

/// A pod of one container that runs a script.
pub(crate) fn script(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")},
        "spec": {
            "nodeName": "edge-1", "restartPolicy": "Always", "terminationGracePeriodSeconds": 2,
            "containers": [{"name": "main", "image": "native://sh", "command": ["/bin/sh", "-c", script]}],
        },
    })
}

pub(crate) fn is_running(pod: &PodSnapshot) -> bool {
    pod.phase == "Running" && pod.ready
}

/// Whether there is such a process, other than as a zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.trim_start().starts_with('Z'))
}

/// Process id that a script wrote into a file.
pub(crate) async fn pid_in(path: &Path) -> i32 {
    let read = || std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    eventually("a process id", || read().is_some()).await;
    read().unwrap()
}
