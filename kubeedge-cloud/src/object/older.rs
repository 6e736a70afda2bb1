//! Devices and models that were written in `v1alpha2`, read as those of `v1beta1`.
//!
//! The definitions convert nothing: an object that was stored in the older version comes under the newer one without
//! whatever that does not know. So it is asked for in its own version, and converted here. What had no place is named in an
//! annotation, so that whoever looks at the object finds it.

use kubeedge_core::device::{Converted, device_from_v1alpha2, is_older_device, is_older_model, model_from_v1alpha2};
use serde_json::{Map, Value};

use super::{ApiCalls, Kind};

/// Says that an object was converted, and what had no place; empty if all had.
pub(crate) const CONVERTED: &str = "devices.kubeedge.io/converted-from-v1alpha2";

/// The same object, of `v1beta1` if it was of `v1alpha2`.
pub(crate) async fn upgraded(calls: &ApiCalls, kind: &'static Kind, value: Value) -> Value {
    type Convert = fn(&Value) -> Converted;
    type Judge = fn(&Value) -> bool;
    let (older, is_older, convert): (_, Judge, Convert) = match kind.kind {
        "Device" => (&Kind::OLDER_DEVICE, is_older_device, device_from_v1alpha2),
        "DeviceModel" => (&Kind::OLDER_DEVICE_MODEL, is_older_model, model_from_v1alpha2),
        _ => return value,
    };
    if is_older(&value) {
        return annotated(convert(&value));
    }
    if !is_bare(kind, &value) {
        return value;
    }
    let text = |member: &str| value["metadata"][member].as_str();
    let Some(name) = text("name") else { return value };
    match calls.get((older, text("namespace"), name)).await {
        Ok(whole) if is_older(&whole) && whole["metadata"]["uid"] == value["metadata"]["uid"] => {
            annotated(convert(&whole))
        }
        // A definition may not serve the older version, and the object may simply be bare.
        _ => value,
    }
}

/// Whether the newer version shows so little of an object that it may be an older one.
fn is_bare(kind: &Kind, value: &Value) -> bool {
    let spec = &value["spec"];
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    if kind.kind == "DeviceModel" {
        let properties = items(&spec["properties"]);
        return !properties.is_empty() && properties.iter().all(|property| !property["type"].is_string());
    }
    let absent = |value: &Value| value.as_str().is_none_or(str::is_empty);
    absent(&spec["nodeName"]) && absent(&spec["protocol"]["protocolName"]) && items(&spec["properties"]).is_empty()
}

fn annotated(Converted { mut object, problems }: Converted) -> Value {
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let told = told.join("; ");
    let (namespace, name) = (&object["metadata"]["namespace"], &object["metadata"]["name"]);
    tracing::warn!(%namespace, %name, left_out = told, "object of v1alpha2 is read as one of v1beta1: write it anew");
    if let Some(metadata) = object["metadata"].as_object_mut() {
        let annotations = metadata.entry("annotations").or_insert_with(|| Map::new().into());
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(CONVERTED.into(), told.into());
        }
    }
    object
}
