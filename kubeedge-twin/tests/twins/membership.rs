use kubeedge_core::{
    message::{Content, Message},
    names::{DeviceId, UnixMillis},
    resource::Resource,
    twin::Twins as _,
    words::{Group, Operation, Source},
};
use kubeedge_twin::MembershipError;
use serde_json::{Value, json};

use super::rig::{Rig, boiler, device};

fn message(resource: Resource, content: &Value) -> Message {
    Message::new(UnixMillis(0), Source::DeviceController, Group::Twin, Operation::Update, resource)
        .content(Content::json(content).unwrap())
}

fn id(text: &str) -> DeviceId {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn devices_come_and_go_as_the_cloud_says() {
    let mut rig = Rig::new().await;
    let added = json!({"event_id": "e", "timestamp": 1, "removed_devices": null,
        "added_devices": [{"id": "default/temp-1", "name": "temp-1", "description": "TempSensor"}]});
    let added = message(Resource::Membership, &added);
    let change = rig.twins.handle_membership(&added).await.unwrap();
    assert_eq!((change.added, change.removed), (vec![id("default/temp-1")], vec![]));
    let (topic, announced) = rig.next().await;
    assert_eq!(topic, "$hw/events/node/edge-go/membership/updated");
    let expected = json!([{"id": "default/temp-1", "name": "temp-1", "description": "TempSensor"}]);
    assert_eq!((&announced["added_devices"], &announced["removed_devices"]), (&expected, &Value::Null));
    let again = rig.twins.handle_membership(&added).await.unwrap();
    assert!(again.added.is_empty(), "a known device is not announced twice");
    rig.nothing_more().await;

    let removed =
        json!({"added_devices": null, "removed_devices": [{"id": "default/temp-1"}, {"id": "default/ghost"}]});
    let change = rig.twins.handle_membership(&message(Resource::Membership, &removed)).await.unwrap();
    assert_eq!(change.removed, [id("default/temp-1")]);
    assert_eq!(rig.next().await.1["removed_devices"][0]["id"], "default/temp-1");
    assert!(rig.twins.devices().await.unwrap().is_empty());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_full_list_adds_what_is_missing_and_removes_the_rest() {
    let rig = Rig::new().await;
    for old in ["default/a", "default/b"] {
        let added = json!({"added_devices": [{"id": old}]});
        rig.twins.handle_membership(&message(Resource::Membership, &added)).await.unwrap();
    }
    let twin = json!({"mode": {"expected": {"value": "1"}, "expected_version": {"cloud": 1, "edge": 0}}});
    let all = json!({"devices": [{"id": "default/b", "twin": {}}, {"id": "default/c", "twin": twin}]});
    let change = rig.twins.handle_membership(&message(Resource::MembershipDetail, &all)).await.unwrap();
    assert_eq!((change.added, change.removed), (vec![id("default/c")], vec![id("default/a")]));
    let twin = rig.twins.get(id("default/c")).await.unwrap();
    assert_eq!(twin.properties[&"mode".parse().unwrap()].desired.as_ref().unwrap().value, "1");
    rig.stop().await;
}

/// Objects and membership travel in separate queues: an old removal must not take a device that is wanted again.
#[tokio::test(start_paused = true)]
async fn membership_does_not_take_a_device_whose_object_is_here() {
    let rig = Rig::new().await;
    rig.twins.set_device(device(&boiler(), Some("60")), "").await.unwrap();
    let removed = message(Resource::Membership, &json!({"removed_devices": [{"id": "default/boiler"}]}));
    assert!(rig.twins.handle_membership(&removed).await.unwrap().removed.is_empty());
    let nothing = message(Resource::MembershipDetail, &json!({"devices": []}));
    assert!(rig.twins.handle_membership(&nothing).await.unwrap().removed.is_empty());
    assert_eq!(rig.twins.devices().await.unwrap(), [boiler()]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_wrong_does_nothing_in_part() {
    let rig = Rig::new().await;
    let half = json!({"added_devices": [{"id": "default/good"}, {"id": 7}]});
    for wrong in [
        message(Resource::Membership, &half),
        message(Resource::Membership, &json!("not json")),
        message(Resource::Keepalive, &json!({})),
    ] {
        let error = rig.twins.handle_membership(&wrong).await.unwrap_err();
        assert!(matches!(error, MembershipError::Invalid(_)), "{error:?}");
    }
    assert!(rig.twins.devices().await.unwrap().is_empty());
    rig.stop().await;
}
