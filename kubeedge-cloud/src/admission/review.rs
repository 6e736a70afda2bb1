//! The answer to a review. Pure.

use kubeedge_core::device::{DeviceSpec, Problem, Why, read_device, read_model, validate, validate_model};
use serde_json::{Value, json};

use super::Model;

/// The kind that is reviewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reviewed {
    Device,
    DeviceModel,
}

/// Namespace and name of the model that the Device under review names.
pub(super) fn model_of(kind: Reviewed, asked: &Value) -> Option<(String, String)> {
    if kind == Reviewed::DeviceModel {
        return None;
    }
    let request = &asked["request"];
    let name = request["object"]["spec"]["deviceModelRef"]["name"].as_str().filter(|name| !name.is_empty())?;
    let namespace = request["namespace"].as_str().or_else(|| request["object"]["metadata"]["namespace"].as_str())?;
    Some((namespace.to_owned(), name.to_owned()))
}

/// The AdmissionReview that answers `asked`.
///
/// Upstream: `cloud/pkg/admissioncontroller/admit_device.go`, `admit_devicemodel.go`.
pub(super) fn answer(kind: Reviewed, asked: &Value, model: &Model) -> Value {
    let request = &asked["request"];
    let verdict = match request["operation"].as_str() {
        Some("CREATE" | "UPDATE") => judge(kind, request, model),
        Some("DELETE" | "CONNECT") => Verdict::default(),
        _ => Verdict { refused: Some("Unsupported webhook operation!".into()), warnings: Vec::new() },
    };
    let mut response = json!({ "uid": request["uid"], "allowed": verdict.refused.is_none() });
    if let Some(message) = verdict.refused {
        response["status"] = json!({ "message": message });
    }
    if !verdict.warnings.is_empty() {
        response["warnings"] = json!(verdict.warnings);
    }
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
}

#[derive(Debug, Default)]
struct Verdict {
    refused: Option<String>,
    warnings: Vec<String>,
}

fn judge(kind: Reviewed, request: &Value, model: &Model) -> Verdict {
    let spec = &request["object"]["spec"];
    let problems = match kind {
        Reviewed::Device => read_device(spec).map_or_else(|problems| problems, |device| of_device(&device, model)),
        Reviewed::DeviceModel => read_model(spec).map_or_else(|problems| problems, |model| validate_model(&model)),
    };
    let stays = request["operation"] == "UPDATE" && request["oldObject"]["spec"] == *spec;
    let (warnings, grave): (Vec<_>, Vec<_>) =
        problems.iter().partition(|problem| stays || problem.why.is_about_model());
    let warnings = warnings.iter().map(ToString::to_string).collect();
    let refused = if grave.iter().any(|problem| problem.why == Why::Duplicate) {
        Some("property names must be unique.".to_owned())
    } else {
        let told: Vec<String> = grave.iter().map(ToString::to_string).collect();
        (!told.is_empty()).then(|| told.join("; "))
    };
    Verdict { refused, warnings }
}

fn of_device(device: &DeviceSpec, model: &Model) -> Vec<Problem> {
    match model {
        Model::There(model) => validate(device, Some(model)),
        Model::Missing => validate(device, None),
        Model::Unknown => {
            let mut problems = validate(device, None);
            problems.retain(|problem| problem.why != Why::ModelMissing);
            problems
        }
    }
}

#[cfg(test)]
#[path = "review/tests.rs"]
mod tests;
