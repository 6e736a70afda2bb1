//! Several instances of the cloud on one API.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use kubeedge_cloud::{
    apiserver::EmbeddedApi,
    cloud::CloudCoreHandle,
    ownership::{InstanceName, LeaseTimes},
};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    balancer::Balancer,
    support::{Credentials, Edge, SOON, Site, builder, create, eventually, node, pod},
    tap::Tap,
};

const QUICK: LeaseTimes = LeaseTimes {
    renew: Duration::from_millis(100),
    lives: Duration::from_millis(1500),
    forgotten: Duration::from_secs(3),
};

struct Cluster {
    api: EmbeddedApi,
    site: Site,
}

struct Instance {
    tap: Tap,
    cloud: CloudCoreHandle,
}

impl Cluster {
    async fn new() -> Self {
        let api = EmbeddedApi::builder().in_memory().build().await.unwrap();
        let client = api.client("default");
        Self { api, site: Site { client } }
    }

    async fn instance(&self, name: &str) -> Instance {
        self.instance_with(name, QUICK, Duration::from_millis(300)).await
    }

    async fn instance_with(&self, name: &str, times: LeaseTimes, sweep: Duration) -> Instance {
        let (tap, client) = Tap::new(&self.api, name);
        let name = InstanceName::new(name).unwrap();
        let cloud = builder(client).instance(name).lease_times(times).sweep(sweep).spawn().await.unwrap();
        Instance { tap, cloud }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.site.client.clone(), "kubeedge")
    }

    /// Who has the node, and how often it has changed hands.
    async fn holder(&self, node: &str) -> Option<(String, i32)> {
        let spec = self.leases().get_opt(&format!("node-{node}")).await.unwrap()?.spec?;
        Some((spec.holder_identity?, spec.lease_transitions?))
    }

    async fn held_by(&self, node: &str, instance: &str, transitions: i32) {
        let wanted = Some((instance.to_owned(), transitions));
        eventually(&format!("{node} is {instance}'s"), async || (self.holder(node).await == wanted).then_some(()))
            .await;
    }

    async fn recorded(&self, node: &str, pod: &str) -> Option<bool> {
        let pod = self.site.pods().get(pod).await.unwrap().metadata;
        let version = self.site.recorded(node, &pod.uid.unwrap()).await?;
        Some(Some(version) == pod.resource_version)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_connection_of_a_node_wins_wherever_it_is() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.instance("a").await, cluster.instance("b").await);
    cluster.site.make_node("edge-1").await;
    let credentials = Credentials::of(&cluster.site.client, "edge-1").await;
    let mut old = Edge::connect_as(&a.cloud, &credentials, "edge-1").await;
    old.compared().await;
    cluster.held_by("edge-1", "a", 0).await;
    create(&cluster.site.pods(), pod("web", "edge-1", &[])).await;
    old.got("default/pod/web").await;
    eventually("a record", async || cluster.recorded("edge-1", "web").await.filter(|right| *right)).await;

    // The old connection is half-open: neither end knows that the other has gone.
    let mut new = Edge::connect_as(&b.cloud, &credentials, "edge-1").await;
    new.compared().await;
    cluster.held_by("edge-1", "b", 1).await;
    while old.next().await.is_some() {}
    eventually("the old session is gone", async || a.cloud.hub().session(&node("edge-1")).is_none().then_some(()))
        .await;

    let written = a.tap.record_writes().len();
    create(&cluster.site.pods(), pod("db", "edge-1", &[])).await;
    new.got("default/pod/db").await;
    eventually("a record", async || cluster.recorded("edge-1", "db").await.filter(|right| *right)).await;
    assert_eq!(a.tap.record_writes().len(), written, "the loser writes nothing more");

    // And back again.
    let mut back = Edge::connect_as(&a.cloud, &credentials, "edge-1").await;
    back.compared().await;
    cluster.held_by("edge-1", "a", 2).await;
    while new.next().await.is_some() {}
    // A node that connects anew to the same instance has not changed hands.
    let mut again = Edge::connect_as(&a.cloud, &credentials, "edge-1").await;
    again.compared().await;
    assert_eq!(cluster.holder("edge-1").await, Some(("a".into(), 2)));
    for instance in [&a, &b] {
        assert_eq!(instance.tap.foreign_writes(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_loser_had_still_to_write_is_dropped() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.instance("a").await, cluster.instance("b").await);
    cluster.site.make_node("edge-1").await;
    let credentials = Credentials::of(&cluster.site.client, "edge-1").await;
    let mut old = Edge::connect_as(&a.cloud, &credentials, "edge-1").await;
    old.compared().await;
    cluster.held_by("edge-1", "a", 0).await;
    create(&cluster.site.pods(), pod("web", "edge-1", &[])).await;
    let sent = loop {
        let message = old.next_silent().await.unwrap();
        if message["route"]["resource"] == "default/pod/web" {
            break message;
        }
        if message["route"]["group"] == "resource" {
            old.acknowledge(&message).await;
        }
    };
    // It learns what the node has, and cannot write it down.
    a.tap.away(true);
    let written = a.tap.record_writes().len();
    old.acknowledge(&sent).await;
    old.ask("query", "kube-node-lease/lease/edge-1", Value::Null).await;

    let mut new = Edge::connect_as(&b.cloud, &credentials, "edge-1").await;
    new.got("default/pod/web").await;
    let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    cluster.site.pods().patch("web", &PatchParams::default(), &label).await.unwrap();
    eventually("the newest version is recorded", async || {
        tokio::select! {
            message = new.next() => drop(message.unwrap()),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
        cluster.recorded("edge-1", "web").await.filter(|right| *right)
    })
    .await;
    assert!(a.cloud.hub().session(&node("edge-1")).is_some(), "it cannot know yet, and serves its session");

    a.tap.away(false);
    while old.next().await.is_some() {}
    // The other one may have removed its Lease meanwhile.
    let renewed = async || cluster.leases().get_opt("cloudcore-a").await.unwrap()?.metadata.resource_version;
    let before = renewed().await;
    eventually("it goes on", async || renewed().await.filter(|now| Some(now) != before.as_ref())).await;
    assert_eq!(a.tap.record_writes().len(), written);
    assert_eq!(cluster.recorded("edge-1", "web").await, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_served_while_it_cannot_be_claimed_and_its_records_wait() {
    let cluster = Cluster::new().await;
    cluster.site.make_node("edge-1").await;
    create(&cluster.site.pods(), pod("web", "edge-1", &[])).await;
    let a = cluster.instance("a").await;
    // It has seen all of the API when it compares the first node.
    Edge::connect(&a.cloud, "edge-2").await.compared().await;
    let credentials = Credentials::of(&cluster.site.client, "edge-1").await;
    a.tap.away(true);
    let mut edge = Edge::connect_as(&a.cloud, &credentials, "edge-1").await;
    edge.got("default/pod/web").await;
    edge.ask("query", "kube-node-lease/lease/edge-1", Value::Null).await;
    assert_eq!((cluster.holder("edge-1").await, cluster.recorded("edge-1", "web").await), (None, None));
    a.tap.away(false);
    cluster.held_by("edge-1", "a", 0).await;
    eventually("a record", async || cluster.recorded("edge-1", "web").await.filter(|right| *right)).await;
    assert_eq!(a.tap.foreign_writes(), [""; 0]);
}

/// Upstream, the instance that first sees a pod makes its record, and the one that has the node then thinks that the pod was
/// sent.
#[tokio::test(flavor = "multi_thread")]
async fn instances_that_have_not_got_the_node_leave_its_records_alone() {
    let cluster = Cluster::new().await;
    let (a, b, c) = (cluster.instance("a").await, cluster.instance("b").await, cluster.instance("c").await);
    cluster.site.make_node("edge-1").await;
    let mut edge = Edge::connect(&c.cloud, "edge-1").await;
    edge.compared().await;
    for at in 0..5 {
        let name = format!("web-{at}");
        create(&cluster.site.pods(), pod(&name, "edge-1", &[])).await;
        edge.got(&format!("default/pod/{name}")).await;
        eventually("a record", async || cluster.recorded("edge-1", &name).await.filter(|right| *right)).await;
    }
    assert_eq!((a.tap.record_writes(), b.tap.record_writes()), (vec![], vec![]));
    assert_eq!(c.tap.foreign_writes(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_node_that_is_deleted() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.instance("a").await, cluster.instance("b").await);
    let gone = async |name: &str| {
        eventually(&format!("nothing is left of {name}"), async || {
            let records = cluster.site.records().list(&ListParams::default()).await.unwrap();
            let left = records.items.iter().any(|record| record.metadata.name.as_ref().unwrap().starts_with(name));
            (!left && cluster.holder(name).await.is_none()).then_some(())
        })
        .await;
    };
    let mut edges = vec![];
    for name in ["edge-1", "edge-2"] {
        cluster.site.make_node(name).await;
        create(&cluster.site.pods(), pod(&format!("on-{name}"), name, &[])).await;
        let mut edge = Edge::connect(&b.cloud, name).await;
        edge.got(&format!("default/pod/on-{name}")).await;
        eventually("a record", async || {
            let pod = format!("on-{name}");
            cluster.recorded(name, &pod).await.filter(|right| *right)
        })
        .await;
        edges.push(edge);
    }
    // Its owner lives: the other one leaves all to it.
    cluster.site.nodes().delete("edge-1", &DeleteParams::default()).await.unwrap();
    while edges[0].next().await.is_some() {}
    gone("edge-1").await;
    assert_eq!(a.tap.record_writes(), [""; 0]);
    // Its owner is dead.
    drop(b);
    cluster.site.nodes().delete("edge-2", &DeleteParams::default()).await.unwrap();
    gone("edge-2").await;
    assert!(!a.tap.record_writes().is_empty());
    eventually("nothing is left of the instance that has died", async || {
        cluster.leases().get_opt("cloudcore-b").await.unwrap().is_none().then_some(())
    })
    .await;
    // One that ends in order leaves nothing, either.
    a.cloud.shutdown(SOON).await;
    assert!(cluster.leases().get_opt("cloudcore-a").await.unwrap().is_none());
}

/// What a node has, and what went wrong.
#[derive(Default)]
struct Has {
    /// Version by name and UID.
    objects: BTreeMap<(String, String), u64>,
    wrong: Vec<String>,
}

/// A node that connects again and again, and takes what it is sent.
struct Worker {
    has: Arc<Mutex<Has>>,
    _task: AbortOnDropHandle<()>,
}

impl Worker {
    fn start(balancer: &Balancer, credentials: Credentials, name: &str) -> Self {
        let (address, name, has) = (balancer.address, name.to_owned(), Arc::new(Mutex::new(Has::default())));
        let shared = has.clone();
        let task = tokio::spawn(async move {
            loop {
                let connected = tokio::time::timeout(SOON, Edge::connect_at(address, &credentials, &name)).await;
                let Ok(Ok(mut edge)) = connected else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                loop {
                    tokio::select! {
                        message = edge.next_silent() => {
                            let Some(message) = message else { break };
                            if message["route"]["group"] != "resource" || !message["header"]["parent_msg_id"].is_null() {
                                continue;
                            }
                            shared.lock().unwrap().take(&message);
                            // Committed; now it may be told. The connection may have gone meanwhile.
                            if !edge.try_acknowledge(&message).await {
                                break;
                            }
                        }
                        // Silence is no reason to give up.
                        () = tokio::time::sleep(Duration::from_secs(3)) => {}
                    }
                }
            }
        });
        Self { has, _task: AbortOnDropHandle::new(task) }
    }

    fn has(&self, name: &str) -> bool {
        self.has.lock().unwrap().objects.keys().any(|(known, _)| known == name)
    }
}

impl Has {
    fn take(&mut self, message: &Value) {
        let metadata = &message["content"]["metadata"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let key = (text(&metadata["name"]), text(&metadata["uid"]));
        if message["route"]["operation"] == "delete" {
            self.objects.remove(&key);
            if key.0.starts_with("stays") {
                self.wrong.push(format!("{} was taken away", key.0));
            }
            return;
        }
        let version = text(&message["header"]["resourceversion"]).parse().unwrap();
        if let Some(before) = self.objects.insert(key.clone(), version)
            && before > version
        {
            self.wrong.push(format!("{} went from {before} to {version}", key.0));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_keep_working_whichever_instance_dies() {
    const NODES: [&str; 5] = ["edge-1", "edge-2", "edge-3", "edge-4", "edge-5.site.example"];
    let cluster = Cluster::new().await;
    let balancer = Balancer::start().await;
    let make = async |what: &str| {
        for name in NODES {
            create(&cluster.site.pods(), pod(&format!("{what}.{name}"), name, &[])).await;
        }
    };
    for name in NODES {
        cluster.site.make_node(name).await;
    }
    make("stays-before").await;
    make("goes").await;
    let mut instances = vec![];
    for name in ["a", "b", "c"] {
        let instance = cluster.instance(name).await;
        balancer.add(instance.cloud.websocket_addr());
        instances.push(instance);
    }
    let mut workers = BTreeMap::new();
    for name in NODES {
        let credentials = Credentials::of(&cluster.site.client, name).await;
        workers.insert(name, Worker::start(&balancer, credentials, name));
    }
    let all_have = async |what: &str| {
        eventually(&format!("all have {what}"), async || {
            workers.iter().all(|(name, worker)| worker.has(&format!("{what}.{name}"))).then_some(())
        })
        .await;
    };
    let mut taps = vec![];
    let mut kill = |instance: Instance| {
        balancer.remove(instance.cloud.websocket_addr());
        taps.push(instance.tap.clone());
        // Without a farewell, and with whatever it had still to write.
        drop(instance);
    };
    all_have("stays-before").await;
    all_have("goes").await;

    kill(instances.remove(0));
    make("stays-after-a").await;
    all_have("stays-after-a").await;
    for name in NODES {
        let grace = DeleteParams::default().grace_period(0);
        cluster.site.pods().delete(&format!("goes.{name}"), &grace).await.unwrap();
    }
    kill(instances.remove(0));
    make("stays-after-b").await;
    all_have("stays-after-b").await;
    // The last one dies before the next one starts.
    kill(instances.remove(0));
    make("stays-alone").await;
    let last = cluster.instance("d").await;
    balancer.add(last.cloud.websocket_addr());
    taps.push(last.tap.clone());
    all_have("stays-alone").await;

    eventually("what was deleted is gone", async || {
        workers.iter().all(|(name, worker)| !worker.has(&format!("goes.{name}"))).then_some(())
    })
    .await;
    for name in NODES {
        for what in ["stays-before", "stays-after-a", "stays-after-b", "stays-alone"] {
            eventually("a record", async || {
                cluster.recorded(name, &format!("{what}.{name}")).await.filter(|right| *right)
            })
            .await;
        }
        let (holder, transitions) = cluster.holder(name).await.unwrap();
        assert!(holder == "d" && transitions >= 1, "{name}: {holder}, {transitions}");
    }
    // Its node, and four pods on each.
    eventually("no record is left over", async || {
        let records = cluster.site.records().list(&ListParams::default()).await.unwrap();
        (records.items.len() == 4 * NODES.len()).then_some(())
    })
    .await;
    for (name, worker) in &workers {
        assert_eq!(worker.has.lock().unwrap().wrong, [""; 0], "{name}");
    }
    for tap in taps {
        assert_eq!(tap.foreign_writes(), [""; 0]);
    }
}
