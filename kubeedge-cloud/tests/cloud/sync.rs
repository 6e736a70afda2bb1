//! Records that are wrong, and watches that tell too little.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use kubeedge_cloud::{
    apiserver::EmbeddedApi,
    cloud::CloudCoreHandle,
    sync::{LedgerEntry, LedgerError, SqliteLedger, SyncLedger},
};
use kubeedge_core::{
    names::{NodeName, ResourceVersion, Uid},
    resource::{ObjectPath, ResourceType},
};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    support::{Edge, SOON, Site, builder, config_map, create, eventually, node, pod},
    tap::Tap,
};

/// So long that a test fails if it has to wait for it.
const NEVER: Duration = Duration::from_secs(3600);

fn uid(object: &DynamicObject) -> String {
    object.metadata.uid.clone().unwrap()
}

async fn right(site: &Site, node: &str, object: &DynamicObject) {
    eventually("the record is right", async || {
        (site.recorded(node, &uid(object)).await == object.metadata.resource_version).then_some(())
    })
    .await;
}

fn count(edge: &Edge, what: &str) -> usize {
    edge.objects().iter().filter(|seen| *seen == what).count()
}

fn status(version: &str) -> Patch<Value> {
    Patch::Merge(json!({ "status": { "objectResourceVersion": version } }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_an_operator_removes_or_rewrites_is_put_right_at_once() {
    let site = Site::new().await;
    let cloud = site.builder().sweep(NEVER).spawn().await.unwrap();
    site.make_node("edge.1").await;
    let web = create(&site.pods(), pod("web", "edge.1", &[])).await;
    let mut edge = Edge::connect(&cloud, "edge.1").await;
    edge.got("default/pod/web").await;
    right(&site, "edge.1", &web).await;
    // When another record stands, the cloud is done with this one.
    let other = create(&site.pods(), pod("other", "edge.1", &[])).await;
    edge.got("default/pod/other").await;
    right(&site, "edge.1", &other).await;
    let name = format!("edge.1.{}", uid(&web));

    site.records().delete(&name, &DeleteParams::default()).await.unwrap();
    // The node reads, and acknowledges what it is sent.
    let _reading = AbortOnDropHandle::new(tokio::spawn(async move { while edge.next().await.is_some() {} }));
    right(&site, "edge.1", &web).await;

    let spoiled = [
        status("1"),
        // As if nothing had ever been acknowledged; upstream would never send it again.
        status(""),
        // Later than anything there is: upstream would not send the pod until its version has grown so far.
        status("999999999"),
        Patch::Merge(json!({ "spec": { "objectName": "other" } })),
        Patch::Merge(json!({ "spec": { "objectName": "", "objectKind": "" } })),
    ];
    for patch in &spoiled {
        let params = PatchParams::default();
        if matches!(patch, Patch::Merge(value) if value["spec"].is_null()) {
            site.records().patch_status(&name, &params, patch).await.unwrap();
        } else {
            site.records().patch(&name, &params, patch).await.unwrap();
        }
        eventually(&format!("healed from {patch:?}"), async || {
            let record = site.records().get_opt(&name).await.unwrap()?;
            let named = record.data["spec"]["objectName"] == "web" && record.data["spec"]["objectKind"] == "Pod";
            let version = record.data["status"]["objectResourceVersion"].as_str().map(str::to_owned);
            (named && version == web.metadata.resource_version).then_some(())
        })
        .await;
    }
    cloud.shutdown(SOON).await;
}

/// A ledger of an embedder's, which says nothing of what others do to it.
#[derive(Default)]
struct Shelf(Mutex<HashMap<(NodeName, Uid), LedgerEntry>>);

#[async_trait]
impl SyncLedger for Shelf {
    async fn list(&self, node: &NodeName) -> Result<Vec<LedgerEntry>, LedgerError> {
        let shelf = self.0.lock().unwrap();
        Ok(shelf.iter().filter(|((of, _), _)| of == node).map(|(_, entry)| entry.clone()).collect())
    }

    async fn record(&self, node: &NodeName, entry: &LedgerEntry) -> Result<(), LedgerError> {
        self.0.lock().unwrap().insert((node.clone(), entry.uid.clone()), entry.clone());
        Ok(())
    }

    async fn forget(&self, node: &NodeName, entry: &LedgerEntry) -> Result<(), LedgerError> {
        self.0.lock().unwrap().remove(&(node.clone(), entry.uid.clone()));
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<NodeName>, LedgerError> {
        Ok(self.0.lock().unwrap().keys().map(|(node, _)| node.clone()).collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_tells_of_is_found_by_the_sweep() {
    let site = Site::new().await;
    let shelf = Arc::new(Shelf::default());
    let cloud = site.builder().ledger(shelf.clone()).sweep(Duration::from_millis(200)).spawn().await.unwrap();
    site.make_node("edge-1").await;
    let web = create(&site.pods(), pod("web", "edge-1", &[])).await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.got("default/pod/web").await;
    let key = (node("edge-1"), Uid::new(uid(&web)).unwrap());
    let entry = eventually("a record", async || shelf.0.lock().unwrap().get(&key).cloned()).await;
    assert_eq!(entry.version.map(|version| version.to_string()), web.metadata.resource_version);

    shelf.0.lock().unwrap().remove(&key);
    edge.object("update", "default/pod/web").await;
    eventually("a record", async || shelf.0.lock().unwrap().get(&key).cloned()).await;
    // Of an object that never was: the edge is told that it is gone, and the record goes when it has understood.
    let ghost = LedgerEntry::new(
        ObjectPath::namespaced("default", ResourceType::Pod, "ghost").unwrap(),
        Uid::new("ghost").unwrap(),
        "v1",
        "Pod",
    );
    shelf.record(&node("edge-1"), &ghost.acknowledged(ResourceVersion::new(3), None)).await.unwrap();
    edge.object("delete", "default/pod/ghost").await;
    let gone = (node("edge-1"), Uid::new("ghost").unwrap());
    eventually("no record", async || (!shelf.0.lock().unwrap().contains_key(&gone)).then_some(())).await;

    // Of a node that never was.
    let lost = LedgerEntry::new(
        ObjectPath::namespaced("default", ResourceType::Pod, "lost").unwrap(),
        Uid::new("lost").unwrap(),
        "v1",
        "Pod",
    );
    shelf.record(&node("edge-9"), &lost).await.unwrap();
    let of_lost = (node("edge-9"), Uid::new("lost").unwrap());
    eventually("no record", async || (!shelf.0.lock().unwrap().contains_key(&of_lost)).then_some(())).await;
    cloud.shutdown(SOON).await;
}

async fn record(
    site: &Site,
    node: &str,
    uid: &str,
    (version, kind, name): (&str, &str, &str),
    acknowledged: Option<&str>,
) {
    let record = json!({
        "apiVersion": "reliablesyncs.kubeedge.io/v1alpha1", "kind": "ObjectSync",
        "metadata": { "name": format!("{node}.{uid}") },
        "spec": { "objectAPIVersion": version, "objectKind": kind, "objectName": name },
    });
    create(&site.records(), record).await;
    if let Some(version) = acknowledged {
        let name = format!("{node}.{uid}");
        site.records().patch_status(&name, &PatchParams::default(), &status(version)).await.unwrap();
    }
}

/// Starts a cloud, which installs the kinds, and ends it.
async fn prepared() -> Site {
    let site = Site::new().await;
    site.cloud().await.shutdown(SOON).await;
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_a_former_object_of_the_same_name_makes_one_deletion() {
    let site = prepared().await;
    site.make_node("edge-1").await;
    let web = create(&site.pods(), pod("web", "edge-1", &[])).await;
    record(&site, "edge-1", "former", ("v1", "Pod", "web"), Some("3")).await;
    let cloud = site.builder().sweep(Duration::from_millis(100)).spawn().await.unwrap();
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    let deleted = edge.object("delete", "default/pod/web").await;
    assert_eq!(deleted["content"]["metadata"], json!({ "name": "web", "namespace": "default", "uid": "former" }));
    let sent = edge.until(|message| {
        message["route"]["operation"] == "update" && message["route"]["resource"] == "default/pod/web"
    });
    assert_eq!(sent.await["content"]["metadata"]["uid"], json!(uid(&web)));
    right(&site, "edge-1", &web).await;
    eventually("no record", async || site.recorded("edge-1", "former").await.is_none().then_some(())).await;
    // Some sweeps later.
    let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let web = site.pods().patch("web", &PatchParams::default(), &label).await.unwrap();
    edge.object("update", "default/pod/web").await;
    right(&site, "edge-1", &web).await;
    assert_eq!(count(&edge, "delete default/pod/web"), 1, "{:?}", edge.objects());
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_left_over_record_holds_a_device_back() {
    let site = prepared().await;
    for (at, acknowledged) in [None, Some(""), Some("0"), Some("999999999")].into_iter().enumerate() {
        let (name, edge) = (format!("d{at}"), format!("edge-{at}"));
        let device = json!({
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": { "name": name },
            "spec": { "deviceModelRef": { "name": "m" }, "nodeName": edge },
        });
        let device = create(&site.devices(), device).await;
        let of = ("devices.kubeedge.io/v1beta1", "Device", name.as_str());
        record(&site, &edge, &uid(&device), of, acknowledged).await;
    }
    let cloud = site.builder().sweep(NEVER).spawn().await.unwrap();
    for at in 0..4 {
        let mut edge = Edge::connect(&cloud, &format!("edge-{at}")).await;
        edge.got(&format!("default/device/d{at}")).await;
        let device = site.devices().get(&format!("d{at}")).await.unwrap();
        right(&site, &format!("edge-{at}"), &device).await;
    }
    cloud.shutdown(SOON).await;
}

struct Disturbed {
    site: Site,
    tap: Tap,
    api: EmbeddedApi,
    cloud: CloudCoreHandle,
    edge: Edge,
}

impl Disturbed {
    /// A node that has the pod `early`, and a cloud that sees the API through a tap.
    async fn new(sweep: Duration) -> Self {
        let api = EmbeddedApi::builder().in_memory().build().await.unwrap();
        let (tap, client) = Tap::new(&api, "alone");
        let site = Site { client: api.client("default") };
        let cloud = builder(client).alone().sweep(sweep).spawn().await.unwrap();
        site.make_node("edge-1").await;
        create(&site.pods(), pod("early", "edge-1", &[])).await;
        let mut edge = Edge::connect(&cloud, "edge-1").await;
        edge.got("default/pod/early").await;
        Self { site, tap, api, cloud, edge }
    }

    async fn through(&self) {
        eventually("the disturbance is over", async || self.tap.is_through().then_some(())).await;
    }
}

const PODS: &str = "/api/v1/pods";

#[tokio::test(flavor = "multi_thread")]
async fn a_list_from_the_past_takes_nothing_from_a_node() {
    let mut it = Disturbed::new(Duration::from_millis(200)).await;
    let past = it.tap.list_of(PODS).await;
    let uses = config_map("app", "1");
    create(&it.site.config_maps(), uses).await;
    let late = create(&it.site.pods(), pod("late", "edge-1", &["app"])).await;
    let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    it.site.pods().patch("early", &PatchParams::default(), &label).await.unwrap();
    it.edge.got("default/pod/late").await;
    it.edge.until(|message| message["content"]["metadata"]["labels"]["a"] == "b").await;
    right(&it.site, "edge-1", &late).await;
    let before = count(&it.edge, "update default/pod/early");

    it.tap.go_back(PODS, past.clone());
    it.through().await;
    create(&it.site.pods(), pod("later", "edge-1", &[])).await;
    it.edge.got("default/pod/later").await;
    let seen = it.edge.objects();
    assert!(!seen.iter().any(|seen| seen.starts_with("delete")), "{seen:?}");
    assert_eq!(
        count(&it.edge, "update default/pod/early"),
        before,
        "an older version never follows a newer one: {seen:?}"
    );
    // What is really gone goes.
    it.site.pods().delete("late", &DeleteParams::default().grace_period(0)).await.unwrap();
    it.edge.object("delete", "default/pod/late").await;
    it.edge.object("delete", "default/configmap/app").await;

    // A cloud that starts with such a list knows of the pod from its record alone.
    let kept = create(&it.site.pods(), pod("kept", "edge-1", &[])).await;
    it.edge.got("default/pod/kept").await;
    right(&it.site, "edge-1", &kept).await;
    it.cloud.shutdown(SOON).await;
    let (tap, client) = Tap::new(&it.api, "alone");
    tap.start_with(PODS, past);
    let cloud = builder(client).alone().sweep(Duration::from_millis(200)).spawn().await.unwrap();
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.compared().await;
    create(&it.site.pods(), pod("last", "edge-1", &[])).await;
    edge.got("default/pod/last").await;
    assert!(tap.is_through());
    let deleted: Vec<_> = edge.objects().into_iter().filter(|seen| seen.starts_with("delete")).collect();
    assert_eq!(deleted, [""; 0]);
    cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_a_watch_is_blind_is_made_up_for() {
    let mut it = Disturbed::new(NEVER).await;
    let early = it.site.pods().get("early").await.unwrap();
    right(&it.site, "edge-1", &early).await;
    it.tap.away(true);
    it.tap.miss(PODS);
    // Deleted and made anew under the same name; made and deleted again; made.
    let grace = DeleteParams::default().grace_period(0);
    it.site.pods().delete("early", &grace).await.unwrap();
    let again = create(&it.site.pods(), pod("early", "edge-1", &[])).await;
    create(&it.site.pods(), pod("brief", "edge-1", &[])).await;
    it.site.pods().delete("brief", &grace).await.unwrap();
    let late = create(&it.site.pods(), pod("late", "edge-1", &[])).await;
    it.tap.away(false);
    it.through().await;

    let deleted = it.edge.object("delete", "default/pod/early").await;
    assert_eq!(deleted["content"]["metadata"]["uid"], json!(uid(&early)));
    let inserted = it.edge.until(|message| {
        message["route"]["resource"] == "default/pod/early"
            && message["content"]["metadata"]["uid"] == json!(uid(&again))
    });
    inserted.await;
    it.edge.got("default/pod/late").await;
    right(&it.site, "edge-1", &again).await;
    right(&it.site, "edge-1", &late).await;
    eventually("two records", async || {
        let records: Api<DynamicObject> = it.site.records();
        (records.list(&ListParams::default()).await.unwrap().items.len() == 2).then_some(())
    })
    .await;
    assert!(!it.edge.objects().iter().any(|seen| seen.contains("brief")));
    it.cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_record_is_refused_is_not_sent_again_and_again() {
    let mut it = Disturbed::new(Duration::from_millis(50)).await;
    it.tap.refuse("/objectsyncs", Some(403));
    let web = create(&it.site.pods(), pod("web", "edge-1", &[])).await;
    it.edge.got("default/pod/web").await;
    // Each sweep tries to write it.
    eventually("some sweeps", async || (it.tap.refusals() > 5).then_some(())).await;
    create(&it.site.pods(), pod("next", "edge-1", &[])).await;
    it.edge.got("default/pod/next").await;
    let sent = it.edge.objects().iter().filter(|seen| seen.ends_with("default/pod/web")).count();
    assert_eq!((sent, it.site.recorded("edge-1", &uid(&web)).await), (1, None), "{:?}", it.edge.objects());
    it.tap.refuse("/objectsyncs", None);
    right(&it.site, "edge-1", &web).await;
    it.cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_with_its_ledger_in_a_file_sends_nothing_twice() {
    let site = Site::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    site.make_node("edge-1").await;
    let web = create(&site.pods(), pod("web", "edge-1", &[])).await;
    let gone = create(&site.pods(), pod("gone", "edge-1", &[])).await;
    let ledger = Arc::new(SqliteLedger::open(&path).await.unwrap());
    let cloud = site.builder().ledger(ledger.clone()).spawn().await.unwrap();
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.got("default/pod/web").await;
    edge.got("default/pod/gone").await;
    eventually("records", async || {
        let listed = ledger.list(&node("edge-1")).await.unwrap();
        (listed.len() == 3 && listed.iter().all(|entry| entry.version.is_some())).then_some(())
    })
    .await;
    cloud.shutdown(SOON).await;
    drop(ledger);
    site.pods().delete("gone", &DeleteParams::default().grace_period(0)).await.unwrap();

    let ledger = Arc::new(SqliteLedger::open(&path).await.unwrap());
    let cloud = site.builder().ledger(ledger.clone()).spawn().await.unwrap();
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    let deleted = edge.object("delete", "default/pod/gone").await;
    assert_eq!(deleted["content"]["metadata"]["uid"], json!(uid(&gone)));
    eventually("its record is gone", async || {
        let listed = ledger.list(&node("edge-1")).await.unwrap();
        (!listed.iter().any(|entry| entry.uid.as_str() == uid(&gone))).then_some(())
    })
    .await;
    assert!(!edge.objects().iter().any(|seen| seen.ends_with("pod/web")), "{:?}", edge.objects());
    assert!(site.records().list(&ListParams::default()).await.unwrap().items.is_empty(), "{}", uid(&web));
    cloud.shutdown(SOON).await;
}

/// Its acknowledgement was lost, and what was recorded before is true of the object again: only the edge is not what the
/// record says.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_acknowledgement_leaves_in_doubt_is_sent_again() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    site.make_node("edge-1").await;
    create(&site.config_maps(), config_map("settings", "first")).await;
    create(&site.pods(), pod("web", "edge-1", &["settings"])).await;
    let settings = site.config_maps();
    let change = async |value: &str| {
        let patch = kube::api::Patch::Merge(json!({ "data": { "key": value } }));
        settings.patch("settings", &kube::api::PatchParams::default(), &patch).await.unwrap();
    };
    let value = |message: &Value| message["content"]["data"]["key"].as_str().map(str::to_owned);
    let of_settings = |message: &Value| message["route"]["resource"] == "default/configmap/settings";

    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.until(|message| of_settings(message) && value(message).as_deref() == Some("first")).await;
    let uid = settings.get("settings").await.unwrap().metadata.uid.unwrap();
    eventually("a record", async || site.recorded("edge-1", &uid).await).await;
    change("second").await;
    loop {
        let message = edge.next_silent().await.unwrap();
        if of_settings(&message) && value(&message).as_deref() == Some("second") {
            break;
        }
        edge.acknowledge(&message).await;
    }
    drop(edge);
    eventually("the node is away", async || cloud.hub().connected().is_empty().then_some(())).await;
    change("first").await;
    let mut edge = Edge::connect(&cloud, "edge-1").await;
    edge.until(|message| of_settings(message) && value(message).as_deref() == Some("first")).await;
    cloud.shutdown(SOON).await;
}
