#![allow(clippy::unwrap_used)]
use kubeedge_core::resource::ObjectPath;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn object(kind: &Kind, name: &str, uid: &str, version: u64, extra: &Value) -> NodeObject {
    let mut metadata = json!({ "name": name, "uid": uid, "resourceVersion": version.to_string() });
    if kind.namespaced {
        metadata["namespace"] = "default".into();
    }
    NodeObject::new(kind, json!({ "metadata": metadata, "spec": extra })).unwrap()
}

fn all() -> BTreeSet<ResourceType> {
    super::super::DELIVERED.into()
}

fn path(kind: &Kind, name: &str) -> ObjectPath {
    object(kind, name, "x", 1, &Value::Null).path
}

fn edge_node(placement: &mut Placement, name: &str, version: u64) -> Effects {
    let facts = Facts { node: Some(node(name)), makes_edge: true, ..Facts::default() };
    placement.apply(object(&Kind::NODE, name, &format!("{name}-uid"), version, &Value::Null), facts)
}

fn pod(placement: &mut Placement, name: &str, on: Option<&str>, uses: &[(&Kind, &str)], version: u64) -> Effects {
    let references = uses.iter().map(|(kind, name)| path(kind, name)).collect();
    let facts = Facts { node: on.map(node), references, ..Facts::default() };
    placement
        .apply(object(&Kind::POD, name, &format!("{name}-uid"), version, &json!({ "node": on, "v": version })), facts)
}

fn config(placement: &mut Placement, name: &str, version: u64) -> Effects {
    placement.apply(object(&Kind::CONFIG_MAP, name, &format!("{name}-uid"), version, &json!(version)), Facts::default())
}

fn seen(effects: &Effects) -> Vec<String> {
    effects.changes.iter().map(|(node, change)| format!("{node} {:?} {}", change.event, change.object.path)).collect()
}

#[test]
fn a_pod_brings_what_it_refers_to_and_takes_it_away_again() {
    let mut placement = Placement::default();
    edge_node(&mut placement, "e1", 1);
    config(&mut placement, "app", 2);
    let uses = [(&Kind::CONFIG_MAP, "app")];
    assert!(placement.object(&path(&Kind::CONFIG_MAP, "app")).is_none(), "nobody needs its contents");

    let effects = pod(&mut placement, "web", Some("e1"), &uses, 3);
    assert_eq!(seen(&effects), ["e1 Insert default/pod/web"]);
    assert_eq!(effects.fetch, BTreeSet::from([path(&Kind::CONFIG_MAP, "app")]));
    let fetched = object(&Kind::CONFIG_MAP, "app", "app-uid", 2, &json!(2));
    assert_eq!(seen(&placement.fill(fetched)), ["e1 Insert default/configmap/app"]);

    assert_eq!(seen(&pod(&mut placement, "web2", Some("e1"), &uses, 4)), ["e1 Insert default/pod/web2"]);
    assert_eq!(seen(&config(&mut placement, "app", 5)), ["e1 Update default/configmap/app"]);
    let gone = object(&Kind::POD, "web", "web-uid", 6, &Value::Null);
    assert_eq!(seen(&placement.delete(gone)), ["e1 Delete default/pod/web"], "the other pod still needs the ConfigMap");
    let gone = object(&Kind::POD, "web2", "web2-uid", 7, &Value::Null);
    assert_eq!(seen(&placement.delete(gone)), ["e1 Delete default/pod/web2", "e1 Delete default/configmap/app"]);
    assert!(placement.object(&path(&Kind::CONFIG_MAP, "app")).is_none());
}

#[test]
fn a_model_comes_before_its_first_device() {
    let mut placement = Placement::default();
    edge_node(&mut placement, "e1", 1);
    placement.apply(object(&Kind::DEVICE_MODEL, "thermo", "m-uid", 2, &Value::Null), Facts::default());
    let references = vec![path(&Kind::DEVICE_MODEL, "thermo")];
    let facts = Facts { node: Some(node("e1")), references, makes_edge: true, ..Facts::default() };
    let effects = placement.apply(object(&Kind::DEVICE, "t1", "d-uid", 3, &Value::Null), facts);
    assert_eq!(seen(&effects), ["e1 Insert default/devicemodel/thermo", "e1 Insert default/device/t1"]);
    assert!(effects.fetch.is_empty());
}

#[test]
fn references_are_remembered_before_they_exist() {
    let mut placement = Placement::default();
    edge_node(&mut placement, "e1", 1);
    pod(&mut placement, "web", Some("e1"), &[(&Kind::CONFIG_MAP, "late")], 2);
    assert!(placement.needs(&node("e1"), &path(&Kind::CONFIG_MAP, "late")));
    assert_eq!(seen(&config(&mut placement, "late", 3)), ["e1 Insert default/configmap/late"]);
    let gone = object(&Kind::CONFIG_MAP, "late", "late-uid", 4, &Value::Null);
    assert_eq!(seen(&placement.delete(gone)), ["e1 Delete default/configmap/late"]);
    assert_eq!(seen(&config(&mut placement, "late", 5)), ["e1 Insert default/configmap/late"]);
}

#[test]
fn a_change_of_status_is_nothing_to_tell() {
    let mut placement = Placement::default();
    edge_node(&mut placement, "e1", 1);
    let pod = |version: u64, phase: &str| {
        let value = json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "u", "resourceVersion": version.to_string() },
            "status": { "phase": phase },
        });
        (NodeObject::new(&Kind::POD, value).unwrap(), Facts { node: Some(node("e1")), ..Facts::default() })
    };
    let (first, facts) = pod(2, "Pending");
    assert_eq!(seen(&placement.apply(first.clone(), facts.clone())), ["e1 Insert default/pod/web"]);
    assert_eq!(seen(&placement.apply(pod(3, "Running").0, facts.clone())), [""; 0]);
    // Nor is it after a restart of the cloud or the edge: the record knows the digest of what was sent.
    let record = LedgerEntry::of(&first);
    assert_eq!(placement.resync(&node("e1"), &[record, node_record("e1", 1)], &all()), []);
    // An older version never undoes a newer one.
    assert_eq!(seen(&placement.apply(first, facts)), [""; 0]);
}

fn node_record(name: &str, version: u64) -> LedgerEntry {
    LedgerEntry::of(&object(&Kind::NODE, name, &format!("{name}-uid"), version, &Value::Null))
}

#[test]
fn nodes_that_are_no_edge_nodes_cost_nothing_until_they_are() {
    let mut placement = Placement::default();
    config(&mut placement, "app", 1);
    assert_eq!(pod(&mut placement, "web", Some("worker"), &[(&Kind::CONFIG_MAP, "app")], 2), Effects::default());
    assert!(placement.object(&path(&Kind::POD, "web")).is_none());
    let effects = edge_node(&mut placement, "worker", 3);
    assert_eq!(seen(&effects), ["worker Update null/node/worker"]);
    assert_eq!(effects.fetch, BTreeSet::from([path(&Kind::POD, "web"), path(&Kind::CONFIG_MAP, "app")]));
}

#[test]
fn a_recreated_object_is_first_deleted() {
    let mut placement = Placement::default();
    edge_node(&mut placement, "e1", 1);
    let facts = Facts { node: Some(node("e1")), ..Facts::default() };
    placement.apply(object(&Kind::POD, "web", "u1", 2, &json!(1)), facts.clone());
    let effects = placement.apply(object(&Kind::POD, "web", "u2", 3, &json!(1)), facts);
    assert_eq!(seen(&effects), ["e1 Delete default/pod/web", "e1 Insert default/pod/web"]);
    assert_eq!(effects.changes[0].1.object.uid.as_str(), "u1");
    // A list of before brings back nothing.
    let facts = Facts { node: Some(node("e1")), ..Facts::default() };
    assert_eq!(placement.apply(object(&Kind::POD, "web", "u1", 2, &json!(1)), facts), Effects::default());
    assert_eq!(placement.uid(&path(&Kind::POD, "web")).unwrap().as_str(), "u2");
}

#[test]
fn what_a_new_list_does_not_have_is_gone() {
    let mut placement = Placement::default();
    edge_node(&mut placement, "e1", 1);
    pod(&mut placement, "web", Some("e1"), &[], 2);
    pod(&mut placement, "db", Some("e1"), &[], 3);
    let missing = placement.missing(&ResourceType::Pod, &HashSet::from([path(&Kind::POD, "db")]));
    let web = (path(&Kind::POD, "web"), Uid::new("web-uid").unwrap());
    assert_eq!(missing, std::slice::from_ref(&web));
    assert_eq!(placement.vanish(&web.0, &Uid::new("another").unwrap()), (false, Effects::default()), "it is made anew");
    assert_eq!(seen(&placement.vanish(&web.0, &web.1).1), ["e1 Delete default/pod/web"]);
    // The node is of another kind.
    assert!(placement.object(&path(&Kind::NODE, "e1")).is_some());
}

#[test]
fn a_device_moves_with_its_model() {
    let mut placement = Placement::default();
    let device = |on: &str, version| {
        let facts = Facts {
            node: Some(node(on)),
            references: vec![path(&Kind::DEVICE_MODEL, "thermo")],
            makes_edge: true,
            terminating: false,
        };
        (object(&Kind::DEVICE, "d1", "d1-uid", version, &json!(on)), facts)
    };
    placement.apply(object(&Kind::DEVICE_MODEL, "thermo", "m-uid", 1, &json!(1)), Facts::default());
    let (object_1, facts) = device("e1", 2);
    placement.apply(object_1, facts);
    placement.fill(object(&Kind::DEVICE_MODEL, "thermo", "m-uid", 1, &json!(1)));
    let (object_2, facts) = device("e2", 3);
    let effects = placement.apply(object_2, facts);
    assert_eq!(
        seen(&effects),
        [
            "e2 Insert default/devicemodel/thermo",
            "e2 Insert default/device/d1",
            "e1 Delete default/device/d1",
            "e1 Delete default/devicemodel/thermo"
        ]
    );
    let model = object(&Kind::DEVICE_MODEL, "thermo", "m-uid", 4, &json!(2));
    assert_eq!(seen(&placement.apply(model, Facts::default())), ["e2 Update default/devicemodel/thermo"]);
}

#[test]
fn a_node_that_comes_back_gets_what_it_missed_and_nothing_else() {
    let mut placement = Placement::default();
    edge_node(&mut placement, "e1", 1);
    for (name, version) in [("same", 2), ("newer", 6), ("unknown", 4)] {
        pod(&mut placement, name, Some("e1"), &[], version);
    }
    let entry = |name: &str, uid: &str, version| LedgerEntry::of(&object(&Kind::POD, name, uid, version, &Value::Null));
    let ledger = [
        entry("same", "same-uid", 2),
        entry("newer", "newer-uid", 3),
        entry("unknown", "another-life", 3),
        entry("gone", "gone-uid", 3),
        node_record("e1", 1),
        node_record("old-self", 1),
    ];
    let changes = placement.resync(&node("e1"), &ledger, &all());
    let seen: Vec<_> = changes.iter().map(|change| format!("{:?} {}", change.event, change.object.uid)).collect();
    assert_eq!(seen, ["Delete gone-uid", "Delete another-life", "Update unknown-uid", "Update newer-uid"]);
}

#[test]
fn nothing_is_deleted_of_a_kind_that_nobody_follows() {
    let mut placement = Placement::default();
    edge_node(&mut placement, "e1", 1);
    let record = LedgerEntry::of(&object(&Kind::POD, "web", "web-uid", 2, &Value::Null));
    let ledger = [record, node_record("e1", 1)];
    assert_eq!(placement.resync(&node("e1"), &ledger, &BTreeSet::from([ResourceType::Device])), []);
    assert_eq!(placement.resync(&node("e1"), &ledger, &all()).len(), 1);
}

#[test]
fn a_record_that_contradicts_what_is_known_is_a_doubt() {
    let mut placement = Placement::default();
    edge_node(&mut placement, "e1", 1);
    pod(&mut placement, "web", Some("e1"), &[], 5);
    let known = placement.object(&path(&Kind::POD, "web")).unwrap();
    let mut record = LedgerEntry::of(&known);
    assert_eq!(placement.doubts(std::slice::from_ref(&record)), []);
    record.version = ResourceVersion::new(9);
    assert_eq!(placement.doubts(std::slice::from_ref(&record)), [], "only the status has changed since");
    record.digest = None;
    let (web, uid) = (record.path.clone(), record.uid.clone());
    assert_eq!(placement.doubts(std::slice::from_ref(&record)), [Doubt::Ahead(web.clone(), uid.clone())]);
    placement.vanish(&web, &uid);
    assert_eq!(placement.doubts(std::slice::from_ref(&record)), [Doubt::Unknown(web, uid)]);
    // A Go cloud keeps records of kinds that are not ours.
    record.path.kind = ResourceType::from_word("rule");
    assert_eq!(placement.doubts(std::slice::from_ref(&record)), []);
}

proptest! {
    /// Whatever happens in whatever order, what was sent adds up to what the placement says, and nothing is left over
    /// when all is deleted.
    #[test]
    fn changes_add_up(steps in prop::collection::vec((0..6_u8, 0..3_usize, 0..3_usize, 0..8_u8), 0..60)) {
        let mut placement = Placement::default();
        let mut sent = BTreeSet::<(NodeName, Uid)>::new();
        let mut version = 0;
        let take = |effects: Effects, placement: &mut Placement, sent: &mut BTreeSet<(NodeName, Uid)>| {
            let mut pending = vec![effects];
            while let Some(effects) = pending.pop() {
                for (node, change) in effects.changes {
                    let key = (node, change.object.uid.clone());
                    if change.event == ObjectEvent::Delete { sent.remove(&key); } else { sent.insert(key); }
                }
                for path in effects.fetch {
                    let tracked = &placement.objects[&path];
                    let kind = Kind::delivered(&path.kind).unwrap();
                    let name = path.name.as_ref().unwrap().as_str();
                    let fetched = object(kind, name, tracked.uid.as_str(), tracked.version.unwrap().number(), &Value::Null);
                    pending.push(placement.fill(fetched));
                }
            }
        };
        for (what, a, b, bits) in steps {
            version += 1;
            let (pod_name, config_name, node_name) = (format!("p{a}"), format!("c{b}"), format!("e{b}"));
            let effects = match what {
                0 | 1 => {
                    let uses: Vec<_> = (0..3).filter(|i| bits >> i & 1 == 1).map(|i| format!("c{i}")).collect();
                    let uses: Vec<_> = uses.iter().map(|name| (&Kind::CONFIG_MAP, name.as_str())).collect();
                    pod(&mut placement, &pod_name, (bits != 7).then_some(node_name.as_str()), &uses, version)
                }
                2 => config(&mut placement, &config_name, version),
                3 => edge_node(&mut placement, &node_name, version),
                4 => placement.delete(object(&Kind::POD, &pod_name, &format!("{pod_name}-uid"), version, &Value::Null)),
                _ if bits & 1 == 1 => placement.delete(object(&Kind::CONFIG_MAP, &config_name, &format!("{config_name}-uid"), version, &Value::Null)),
                _ => Effects::default(),
            };
            take(effects, &mut placement, &mut sent);
            let expected: BTreeSet<_> = placement.nodes.iter().filter(|(_, needs)| needs.edge > 0)
                .flat_map(|(node, needs)| needs.paths.iter().map(move |path| (node, path)))
                .filter_map(|(node, path)| Some((node.clone(), placement.objects.get(path)?.uid.clone())))
                .collect();
            prop_assert_eq!(&sent, &expected);
            for (node, needs) in placement.nodes.iter().filter(|(_, needs)| needs.edge > 0) {
                for path in &needs.paths {
                    let there = placement.objects.get(path);
                    prop_assert!(there.is_none_or(|tracked| tracked.object.is_some()), "{} lacks contents of {}", node, path);
                }
            }
        }
        for kind in [ResourceType::Pod, ResourceType::ConfigMap, ResourceType::Node] {
            for (path, uid) in placement.missing(&kind, &HashSet::new()) {
                let (_, effects) = placement.vanish(&path, &uid);
                take(effects, &mut placement, &mut sent);
            }
        }
        prop_assert!(placement.objects.is_empty() && placement.needs.is_empty() && placement.nodes.is_empty());
    }
}
