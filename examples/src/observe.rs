//! What tour and tests look at: objects in the API, lines in a log.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
};
use kubeedge_core::{device::DeviceStatusStatus, names::UnixMillis};

use crate::{one_line, site::Layout};

/// Pause between two looks.
pub const LOOK: Duration = Duration::from_millis(100);

/// An API of one of the device kinds in the namespace `default`.
pub fn device_api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk(kubeedge_core::device::GROUP, kubeedge_core::device::VERSION, kind);
    let plural = match kind {
        "DeviceStatus" => "devicestatuses".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    Api::namespaced_with(client.clone(), "default", &ApiResource::from_gvk_with_plural(&gvk, &plural))
}

/// The status of the boiler, empty until there is one.
pub async fn boiler_status(client: &Client) -> DeviceStatusStatus {
    let Ok(status) = device_api(client, "DeviceStatus").get("boiler").await else {
        return DeviceStatusStatus::default();
    };
    serde_json::from_value(status.data["status"].clone()).unwrap_or_default()
}

/// The reported value of a property.
pub fn reported(status: &DeviceStatusStatus, property: &str) -> Option<f64> {
    let twin = status.twins.iter().find(|twin| twin.property_name == property)?;
    twin.reported.value.parse().ok()
}

/// The reported value of a property, if it was written at or after `since`: what is older may be of an earlier run.
pub fn reported_since(status: &DeviceStatusStatus, property: &str, since: UnixMillis) -> Option<f64> {
    let twin = status.twins.iter().find(|twin| twin.property_name == property)?;
    let at: i64 = twin.reported.metadata.get("timestamp")?.parse().ok()?;
    (at >= since.0).then(|| twin.reported.value.parse().ok())?
}

/// Whether a node is Ready.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

/// The phase of a pod.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
}

/// How often the containers of a pod were restarted.
pub fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers.map_or(0, |all| all.iter().map(|container| container.restart_count).sum())
}

/// The last line of a file.
pub async fn last_line(path: &Path) -> Option<String> {
    let text = tokio::fs::read_to_string(path).await.ok()?;
    text.lines().next_back().map(str::to_owned)
}

/// The number that a line of the greeter begins with.
pub fn greeting_number(line: &str) -> Option<u64> {
    line.split_whitespace().next()?.parse().ok()
}

/// The newest log of the container `name` in the pod of the same name.
pub fn newest_log(layout: &Layout, name: &str) -> Option<PathBuf> {
    let logs = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_pod = logs(&layout.pod_logs()).find(|folder| folder.to_string_lossy().contains(name))?;
    logs(&of_pod.join(name))
        .filter(|file| file.is_file())
        .max_by_key(|file| file.metadata().and_then(|file| file.modified()).ok())
}

/// Sets the desired setpoint in the Device, as `kubectl patch` does.
///
/// # Errors
/// One line with what went wrong.
pub async fn desire(client: &Client, setpoint: f64) -> Result<(), String> {
    let devices = device_api(client, "Device");
    let device = devices.get("boiler").await.map_err(|error| one_line(&error))?;
    let mut properties = device.data["spec"]["properties"].clone();
    let all = properties.as_array_mut().ok_or("the Device has no properties")?;
    let of_setpoint = all.iter_mut().find(|property| property["name"] == "setpoint");
    of_setpoint.ok_or("the Device has no setpoint")?["desired"]["value"] = setpoint.to_string().into();
    let patch = serde_json::json!({"spec": {"properties": properties}});
    devices.patch("boiler", &PatchParams::default(), &Patch::Merge(patch)).await.map_err(|error| one_line(&error))?;
    Ok(())
}
