#![allow(clippy::unwrap_used)]
use serde_json::Value;

use super::*;

fn record(annotation: Option<&str>) -> Value {
    json!({
        "apiVersion": "reliablesyncs.kubeedge.io/v1alpha1", "kind": "ObjectSync",
        "metadata": {
            "name": "edge-1.site.u-1", "namespace": "default",
            "annotations": annotation.map(|text| json!({ DIGEST: text })),
        },
        "spec": { "objectAPIVersion": "v1", "objectKind": "ConfigMap", "objectName": "kube-root-ca.crt" },
        "status": { "objectResourceVersion": "347" },
    })
}

#[test]
fn records_of_go_are_understood() {
    let (node, entry) = entry(&serde_json::from_value::<ObjectSync>(record(None)).unwrap()).unwrap();
    assert_eq!(node.as_str(), "edge-1.site");
    assert_eq!(entry.path.to_string(), "default/configmap/kube-root-ca.crt");
    assert_eq!((entry.version.unwrap().number(), entry.digest), (347, None));
}

#[test]
fn a_digest_counts_only_with_its_version() {
    let digest = |text| {
        let record = serde_json::from_value::<ObjectSync>(record(Some(text))).unwrap();
        entry(&record).unwrap().1.digest
    };
    assert_eq!(digest("347:abc").as_deref(), Some("abc"));
    assert_eq!(digest("346:abc"), None, "somebody who does not know of it has written since");
}

/// The embedded API, and ledgers on it that end with the test.
struct Site {
    client: Client,
    shutdown: CancellationToken,
}

impl Site {
    async fn new() -> Self {
        let api = crate::apiserver::EmbeddedApi::builder().in_memory().build().await.unwrap();
        let client = api.client("default");
        crate::crds::install(&client).await.unwrap();
        Self { client, shutdown: CancellationToken::new() }
    }

    fn ledger(&self) -> CrdLedger {
        let ledger = CrdLedger::new(self.client.clone());
        let (running, shutdown) = (ledger.clone(), self.shutdown.clone());
        tokio::spawn(async move { running.run(shutdown).await });
        ledger
    }

    fn records(&self) -> Api<ObjectSync> {
        Api::namespaced(self.client.clone(), "default")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn node() -> NodeName {
    NodeName::new("edge-1.site").unwrap()
}

fn pod(version: u64) -> LedgerEntry {
    let path = ObjectPath::namespaced("default", ResourceType::Pod, "web").unwrap();
    LedgerEntry::new(path, Uid::new("u-1").unwrap(), "v1", "Pod")
        .acknowledged(kubeedge_core::names::ResourceVersion::new(version), Some(format!("d{version}")))
}

const NAME: &str = "edge-1.site.u-1";

async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), work).await.expect("in time")
}

#[tokio::test]
async fn it_is_a_ledger() {
    let site = Site::new().await;
    soon(crate::sync::testing::ledger_suite(site.ledger(), async || site.ledger())).await;
}

#[tokio::test]
async fn what_others_do_to_a_record_is_told_and_what_we_do_is_not() {
    let site = Site::new().await;
    let (ours, theirs) = (site.ledger(), site.ledger());
    ours.record(&node(), &pod(7)).await.unwrap();
    assert_eq!(soon(theirs.touched()).await, [node()]);
    assert_eq!(theirs.list(&node()).await.unwrap().len(), 1);

    let lie = json!({ "status": { "objectResourceVersion": "3" } });
    site.records().patch_status(NAME, &PatchParams::default(), &Patch::Merge(lie)).await.unwrap();
    assert_eq!(soon(ours.touched()).await, [node()]);
    let listed = ours.list(&node()).await.unwrap();
    assert_eq!(
        (listed[0].version.unwrap().number(), &listed[0].digest),
        (3, &None),
        "the digest was of another version"
    );

    ours.record(&node(), &pod(8)).await.unwrap();
    site.records().delete(NAME, &DeleteParams::default()).await.unwrap();
    assert_eq!(soon(ours.touched()).await, [node()]);
    assert_eq!(ours.list(&node()).await.unwrap(), []);

    ours.record(&node(), &pod(9)).await.unwrap();
    ours.forget(&node(), &pod(9)).await.unwrap();
    // Whatever the watch still has to say of it comes before what it says of another node.
    let other = NodeName::new("edge-2").unwrap();
    theirs.record(&other, &pod(1)).await.unwrap();
    assert_eq!(soon(ours.touched()).await, [other], "our own writes are no news");
}

#[tokio::test]
async fn a_record_whose_second_write_never_came_counts_as_not_acknowledged() {
    let site = Site::new().await;
    let record = ObjectSync::of(ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() }, &pod(7));
    site.records().create(&PostParams::default(), &record).await.unwrap();
    let ledger = site.ledger();
    let listed = ledger.list(&node()).await.unwrap();
    assert_eq!((listed.len(), listed[0].version, &listed[0].digest), (1, None, &None));
    ledger.record(&node(), &pod(7)).await.unwrap();
    assert_eq!(ledger.list(&node()).await.unwrap(), [pod(7)]);
}

#[tokio::test]
async fn a_record_is_repaired_whatever_was_made_of_it() {
    let site = Site::new().await;
    let ledger = site.ledger();
    ledger.record(&node(), &pod(7)).await.unwrap();
    let nonsense = json!({ "spec": { "objectName": "", "objectKind": "Elephant" } });
    site.records().patch(NAME, &PatchParams::default(), &Patch::Merge(nonsense)).await.unwrap();
    soon(ledger.touched()).await;
    let listed = ledger.list(&node()).await.unwrap();
    assert_eq!(listed[0].path.name, None);
    ledger.record(&node(), &pod(8)).await.unwrap();
    let record = site.records().get(NAME).await.unwrap();
    assert_eq!((record.spec.object_name.as_str(), record.spec.object_kind.as_str()), ("web", "Pod"));
    assert_eq!(entry(&record).unwrap().1, pod(8));
}

#[tokio::test]
async fn a_namespace_that_is_gone_is_a_reason_to_give_up() {
    let site = Site::new().await;
    let ledger = site.ledger();
    let path = ObjectPath::namespaced("nowhere", ResourceType::Pod, "web").unwrap();
    let entry = LedgerEntry { path, ..pod(7) };
    assert!(matches!(ledger.record(&node(), &entry).await, Err(LedgerError::Refused(_))));
    ledger.forget(&node(), &entry).await.unwrap();
}

#[test]
fn a_late_watch_takes_nothing_back() {
    let mut index = Index::default();
    index.learn(node(), pod(9), 20);
    index.touched.clear();
    index.learn(node(), pod(7), 18);
    assert_eq!(index.nodes[&node()][&pod(1).uid].entry, pod(9));
    assert!(index.touched.is_empty());
    index.forget(&node(), &pod(1).uid);
    index.learn(node(), pod(9), 20);
    assert!(index.nodes.is_empty() && index.touched.is_empty());
    index.learn(node(), pod(10), 21);
    assert!(index.touched.contains(&node()) && index.removed.is_empty(), "somebody has made it anew");
    index.touched.clear();
    index.retain(true, &HashSet::new());
    assert!(index.nodes.is_empty() && index.touched.contains(&node()));
}
