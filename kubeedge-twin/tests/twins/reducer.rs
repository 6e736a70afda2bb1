//! What the reducer promises for every sequence of changes.

use std::collections::BTreeMap;

use kubeedge_core::{
    device::DeviceState,
    names::{PropertyName, UnixMillis},
    twin::{PropertyPatch, TwinPatch, TwinProperty, TwinValue, TwinVersion},
};
use kubeedge_twin::{Change, PropertySync, PropertyUpdate, Rejected, SpecProperty, SyncedValue, TwinState, reduce};
use proptest::prelude::*;

const NOW: UnixMillis = UnixMillis(1_000_000);

fn name(text: &str) -> PropertyName {
    text.parse().unwrap()
}

fn after(twin: &TwinState, change: Change) -> TwinState {
    reduce(twin, change, NOW).unwrap().twin.into_owned()
}

fn reported(value: &str) -> Change {
    let patch = PropertyPatch { value: value.into(), value_type: None };
    Change::Report(TwinPatch::from([(name("a"), Some(patch))]))
}

fn desired(value: &str) -> Change {
    let patch = PropertyPatch { value: value.into(), value_type: None };
    Change::Desire(TwinPatch::from([(name("a"), Some(patch))]))
}

fn spec(value_type: &str, desired: Option<&str>) -> Change {
    let said = SpecProperty { value_type: value_type.into(), desired: desired.map(str::to_owned) };
    Change::Spec([(name("a"), said)].into())
}

fn property(twin: &TwinState) -> &TwinProperty {
    &twin.properties[&name("a")]
}

fn wanted(twin: &TwinState) -> Option<&str> {
    property(twin).desired.as_ref().map(|desired| desired.value.as_str())
}

/// One event of a history in the cloud: versions grow with every event, so "newest" is well defined.
#[derive(Clone, Debug)]
struct CloudEvent {
    property: u8,
    sides: (bool, bool),
    deletes: bool,
}

fn cloud_event() -> impl Strategy<Value = CloudEvent> {
    (0..2u8, any::<(bool, bool)>(), prop::bool::weighted(0.25)).prop_map(|(property, sides, deletes)| CloudEvent {
        property,
        sides,
        deletes,
    })
}

fn as_change(index: usize, event: &CloudEvent) -> Change {
    let index = i64::try_from(index).unwrap() + 1;
    let version = Some(TwinVersion { cloud: index, edge: index / 2 });
    let side = |said: bool| SyncedValue { value: (said && !event.deletes).then(|| index.to_string()), version };
    let (desired, reported) = (side(event.sides.0), side(event.sides.1));
    let sync = PropertySync { desired, reported, deleted: event.deletes, ..PropertySync::default() };
    Change::CloudSync([(name(&format!("p{}", event.property)), sync)].into())
}

/// A history, and an order of delivery with repetitions in which every event occurs.
fn history() -> impl Strategy<Value = (Vec<CloudEvent>, Vec<usize>)> {
    prop::collection::vec(cloud_event(), 1..9).prop_flat_map(|events| {
        let count = events.len();
        let repeated = prop::collection::vec(0..count, 0..6);
        let order = repeated.prop_flat_map(move |repeated| {
            let all: Vec<_> = (0..count).chain(repeated).collect();
            Just(all).prop_shuffle()
        });
        (Just(events), order)
    })
}

fn any_change() -> impl Strategy<Value = Change> {
    let key = || prop::sample::select(vec!["a", "b", "c"]).prop_map(name);
    let value = || prop::sample::select(vec!["1", "2", "21.5", "warm"]).prop_map(str::to_owned);
    let patch = || {
        let patch = prop::option::of(value().prop_map(|value| PropertyPatch { value, value_type: None }));
        prop::collection::btree_map(key(), patch, 0..3)
    };
    let update = (prop::option::of(value()), prop::option::of(value()), any::<bool>()).prop_map(
        |(desired, reported, optional)| PropertyUpdate {
            desired,
            reported,
            value_type: None,
            optional: (!optional).then_some(false),
        },
    );
    let synced = || {
        let version = (-1..9i64, -1..9i64).prop_map(|(cloud, edge)| TwinVersion { cloud, edge });
        (prop::option::of(value()), prop::option::of(version))
            .prop_map(|(value, version)| SyncedValue { value, version })
    };
    let sync = (synced(), synced(), prop::bool::weighted(0.2)).prop_map(|(desired, reported, deleted)| PropertySync {
        desired,
        reported,
        deleted,
        ..PropertySync::default()
    });
    let said = (prop::sample::select(vec!["string", "int", "float"]), prop::option::of(value()))
        .prop_map(|(value_type, desired)| SpecProperty { value_type: value_type.into(), desired });
    let state = prop::sample::select(vec![DeviceState::Online, DeviceState::Offline, DeviceState::Other("x".into())]);
    prop_oneof![
        patch().prop_map(Change::Report),
        patch().prop_map(Change::Desire),
        prop::collection::btree_map(key(), prop::option::of(update), 0..3).prop_map(Change::Update),
        prop::collection::btree_map(key(), sync, 0..3).prop_map(Change::CloudSync),
        prop::collection::btree_map(key(), said, 0..3).prop_map(Change::Spec),
        state.prop_map(Change::ReportState),
    ]
}

fn versions(twin: &TwinState) -> BTreeMap<PropertyName, [TwinVersion; 2]> {
    let living = twin.properties.iter().map(|(name, one)| (name, [one.desired_version, one.reported_version]));
    let deleted = twin.deleted.iter().map(|(name, one)| (name, [one.desired_version, one.reported_version]));
    living.chain(deleted).map(|(name, versions)| (name.clone(), versions)).collect()
}

proptest! {
    #[test]
    fn syncs_of_the_cloud_converge_in_any_order((events, order) in history()) {
        let in_order = events.iter().enumerate().fold(TwinState::default(), |twin, (index, event)| {
            after(&twin, as_change(index, event))
        });
        let shuffled = order.iter().fold(TwinState::default(), |twin, index| {
            after(&twin, as_change(*index, &events[*index]))
        });
        prop_assert_eq!(in_order, shuffled);
    }

    #[test]
    fn versions_never_go_back(changes in prop::collection::vec(any_change(), 0..20)) {
        let mut twin = TwinState::default();
        for change in changes {
            // A refused change leaves the twin as it is.
            let Ok(next) = reduce(&twin, change, NOW).map(|reduced| reduced.twin.into_owned()) else { continue };
            let (before, now) = (versions(&twin), versions(&next));
            for (name, before) in before {
                for (before, now) in before.iter().zip(&now[&name]) {
                    prop_assert!(now.cloud >= before.cloud && now.edge >= before.edge, "{}: {:?} {:?}", name, before, now);
                }
            }
            prop_assert!(next.properties.keys().all(|name| !next.deleted.contains_key(name)));
            twin = next;
        }
    }

    #[test]
    fn what_is_known_changes_nothing(changes in prop::collection::vec(any_change(), 1..10)) {
        let mut twin = TwinState::default();
        for change in changes {
            let repeatable = !matches!(change, Change::Update(_));
            let Ok(reduced) = reduce(&twin, change.clone(), NOW) else { continue };
            prop_assert!(reduced.is_changed() || reduced.changed.is_empty());
            for name in &reduced.changed {
                prop_assert!(reduced.document.contains_key(name), "every change is documented");
            }
            twin = reduced.twin.into_owned();
            if repeatable {
                let again = reduce(&twin, change, NOW).unwrap();
                prop_assert!(!again.is_changed(), "{:?}", again);
            }
        }
    }
}

#[test]
fn a_report_creates_the_property_and_keeps_its_first_value() {
    let before = TwinState::default();
    let reduced = reduce(&before, reported("21.5"), NOW).unwrap();
    let created = property(&reduced.twin);
    assert_eq!(created.reported, Some(TwinValue { value: "21.5".into(), at: NOW }));
    assert_eq!(created.reported_version, TwinVersion { cloud: 0, edge: 1 });
    assert_eq!((created.value_type.as_str(), created.optional), ("string", true));
    assert!(reduced.tell_twin && !reduced.tell_state);
}

#[test]
fn values_are_checked_against_the_declared_type() {
    let twin = after(&TwinState::default(), spec("int", None));
    let rejected = reduce(&twin, reported("five"), NOW).unwrap_err();
    assert_eq!(rejected, Rejected::Value { property: "a".into(), reason: "the value is not int or integer" });
    let twin = after(&twin, reported("5"));
    assert_eq!(property(&twin).value_type, "int");
    // What the model says later counts for what is there already.
    assert_eq!(property(&after(&twin, spec("double", None))).value_type, "double");
}

#[test]
fn only_a_new_wish_of_the_spec_overwrites() {
    let twin = after(&TwinState::default(), spec("int", Some("30")));
    assert_eq!(wanted(&twin), Some("30"));
    assert_eq!(property(&twin).desired_version, TwinVersion { cloud: 1, edge: 0 });
    let twin = after(&twin, desired("35"));
    let twin = after(&twin, spec("int", Some("30")));
    assert_eq!(wanted(&twin), Some("35"), "repeating a wish overwrites nothing");
    let twin = after(&twin, spec("int", Some("40")));
    assert_eq!(wanted(&twin), Some("40"), "the newest wish wins");
    assert_eq!(wanted(&after(&twin, spec("int", None))), None, "a wish can be taken back");
    let twin = after(&after(&twin, desired("41")), Change::Spec(BTreeMap::new()));
    assert_eq!(wanted(&twin), Some("41"), "but not somebody else's");
}

#[test]
fn a_bad_wish_of_the_spec_hurts_no_other() {
    let said = |desired: &str| SpecProperty { value_type: "int".into(), desired: Some(desired.into()) };
    let spec = [(name("a"), said("1")), (name("b"), said("many")), (name("no key"), said("2"))];
    let before = TwinState::default();
    let reduced = reduce(&before, Change::Spec(spec.into()), NOW).unwrap();
    assert_eq!(wanted(&reduced.twin), Some("1"));
    assert_eq!(reduced.refused.len(), 2);
    assert!(!reduced.twin.properties.contains_key(&name("b")));
}

#[test]
fn the_delta_is_what_is_wanted_and_not_reached() {
    let twin = after(&TwinState::default(), spec("float", Some("46")));
    let delta = |twin: &TwinState| kubeedge_twin::delta(twin).into_values().collect::<Vec<_>>();
    assert_eq!(delta(&twin), ["46"]);
    assert_eq!(delta(&after(&twin, reported("45.9"))), ["46"]);
    assert!(delta(&after(&twin, reported("46.0"))).is_empty());
}

#[test]
fn an_older_sync_is_refused_and_answered_with_the_own_twin() {
    let twin = after(&after(&TwinState::default(), reported("1")), reported("2"));
    let sync = |version| PropertySync {
        reported: SyncedValue { value: Some("9".into()), version },
        ..PropertySync::default()
    };
    let old = Some(TwinVersion { cloud: 5, edge: 1 });
    for version in [old, None] {
        let change = Change::CloudSync([(name("a"), sync(version))].into());
        let reduced = reduce(&twin, change, NOW).unwrap();
        assert!(!reduced.is_changed() && reduced.tell_twin && reduced.document.is_empty());
    }
    let unknown = Change::CloudSync([(name("b"), sync(None))].into());
    assert!(!reduce(&twin, unknown, NOW).unwrap().is_changed(), "without a version nothing is created");
}

#[test]
fn deletion_keeps_versions_and_obeys_optional() {
    let update = |update| Change::Update([(name("a"), update)].into());
    let twin = after(&after(&TwinState::default(), reported("1")), update(None));
    assert!(twin.properties.is_empty());
    assert_eq!(twin.deleted[&name("a")].reported_version.edge, 2);
    let twin = after(&twin, reported("1"));
    assert_eq!(property(&twin).reported_version.edge, 3);
    assert!(twin.deleted.is_empty());
    let twin = after(&twin, update(Some(PropertyUpdate { optional: Some(false), ..PropertyUpdate::default() })));
    assert_eq!(after(&twin, update(None)), twin);
}

#[test]
fn the_same_state_is_told_again_only_to_keep_last_online_true() {
    let online = || Change::ReportState(DeviceState::Online);
    let at = |millis| UnixMillis(millis);
    let twin = reduce(&TwinState::default(), online(), at(0)).unwrap().twin.into_owned();
    assert!(!reduce(&twin, online(), at(59_999)).unwrap().is_changed());
    let later = reduce(&twin, online(), at(60_000)).unwrap();
    assert!(later.tell_state);
    assert_eq!(later.twin.last_online, Some(at(60_000)));
    let early = reduce(&twin, online(), at(-5)).unwrap();
    assert!(early.is_changed(), "a clock that was set back does not stop the time");
    let offline = reduce(&twin, Change::ReportState(DeviceState::Offline), at(1)).unwrap();
    assert_eq!((offline.twin.last_online, offline.tell_state), (None, true));
    assert!(reduce(&twin, Change::ReportState(DeviceState::Other(String::new())), at(1)).is_err());
    assert!(reduce(&twin, Change::UpdateState(DeviceState::Online), at(1)).unwrap().tell_state);
}

#[test]
fn a_twin_has_limits() {
    let patch = |count: usize, value: &str| -> TwinPatch {
        let patch = || Some(PropertyPatch { value: value.into(), value_type: None });
        (0..count).map(|index| (name(&format!("p{index}")), patch())).collect()
    };
    let twin = TwinState::default();
    let change = Change::Report(patch(kubeedge_twin::MAX_PROPERTIES + 1, "1"));
    assert!(matches!(reduce(&twin, change, NOW), Err(Rejected::TooMany { .. })));
    let change = Change::Report(patch(9, &"x".repeat(kubeedge_twin::MAX_VALUE_LEN)));
    assert!(matches!(reduce(&twin, change, NOW), Err(Rejected::TooLarge { .. })));
    let mut twin = TwinState::default();
    for index in 0..=kubeedge_twin::MAX_TOMBSTONES {
        let key = name(&format!("p{index}"));
        let patch = PropertyPatch { value: "1".into(), value_type: None };
        let at = UnixMillis(i64::try_from(index).unwrap());
        twin = after(&twin, Change::Report([(key.clone(), Some(patch))].into()));
        twin = reduce(&twin, Change::Update([(key, None)].into()), at).unwrap().twin.into_owned();
    }
    assert_eq!(twin.deleted.len(), kubeedge_twin::MAX_TOMBSTONES);
    assert!(!twin.deleted.contains_key(&name("p0")), "the oldest is forgotten first");
}
