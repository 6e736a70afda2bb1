#![allow(clippy::unwrap_used)]
use super::*;

fn asked(operation: &str, spec: &Value, old: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u-1", "operation": operation, "namespace": "default",
            "object": { "spec": spec }, "oldObject": { "spec": old },
        },
    })
}

fn create(kind: Reviewed, spec: &Value, model: &Model) -> Value {
    answer(kind, &asked("CREATE", spec, &Value::Null), model)["response"].take()
}

fn model() -> Model {
    let property =
        json!({ "name": "level", "type": "INT", "accessMode": "ReadWrite", "visitors": { "protocolName": "m" } });
    Model::There(Box::new(read_model(&json!({ "protocol": "modbus", "properties": [property] })).unwrap()))
}

fn device(properties: &Value) -> Value {
    json!({ "deviceModelRef": { "name": "m" }, "properties": properties })
}

#[test]
fn what_is_right_is_let_in() {
    let right = device(&json!([{ "name": "level", "desired": { "value": "7" } }]));
    let review = answer(Reviewed::Device, &asked("CREATE", &right, &Value::Null), &model());
    let expected = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": { "uid": "u-1", "allowed": true },
    });
    assert_eq!(review, expected);
    assert_eq!(
        model_of(Reviewed::Device, &asked("CREATE", &right, &Value::Null)).unwrap(),
        ("default".into(), "m".into())
    );
}

#[test]
fn duplicates_are_refused_in_the_words_of_upstream() {
    let twice = json!([{ "name": "level" }, { "name": "level" }]);
    for kind in [Reviewed::Device, Reviewed::DeviceModel] {
        let response = create(kind, &device(&twice), &model());
        let status = json!({ "message": "property names must be unique." });
        assert_eq!((&response["allowed"], &response["status"]), (&json!(false), &status));
    }
    for operation in ["DELETE", "CONNECT"] {
        let response = answer(Reviewed::Device, &asked(operation, &device(&twice), &Value::Null), &model());
        assert_eq!(response["response"]["allowed"], true);
    }
    let response = answer(Reviewed::Device, &asked("PATCH", &device(&twice), &Value::Null), &model());
    assert_eq!(response["response"]["status"]["message"], "Unsupported webhook operation!");
}

#[test]
fn what_crashes_go_is_refused() {
    let response = create(Reviewed::Device, &json!({ "nodeName": "edge-1" }), &Model::Unknown);
    let message = r#"spec.deviceModelRef.name is "": a device needs a model"#;
    assert_eq!((&response["allowed"], &response["status"]["message"]), (&json!(false), &json!(message)));
    let response = create(Reviewed::Device, &json!({ "properties": "none" }), &Model::Unknown);
    assert_eq!(response["allowed"], false);
}

#[test]
fn what_the_model_may_set_right_is_a_warning() {
    let wrong = device(&json!([{ "name": "level", "desired": { "value": "high" } }, { "name": "other" }]));
    let response = create(Reviewed::Device, &wrong, &model());
    let warnings = json!([
        r#"spec.properties[0].desired.value is "high": property "level" needs a whole number of 64 bits"#,
        r#"spec.properties[1].name is "other": the model has no such property"#,
    ]);
    assert_eq!((&response["allowed"], &response["warnings"]), (&json!(true), &warnings));
    let response = create(Reviewed::Device, &wrong, &Model::Missing);
    assert_eq!((&response["allowed"], response["warnings"].as_array().unwrap().len()), (&json!(true), 1));
    assert_eq!(create(Reviewed::Device, &wrong, &Model::Unknown)["warnings"], Value::Null);
}

#[test]
fn an_object_that_was_wrong_already_can_still_be_labelled() {
    let twice = device(&json!([{ "name": "level" }, { "name": "level" }]));
    let response = answer(Reviewed::Device, &asked("UPDATE", &twice, &twice), &model())["response"].take();
    assert_eq!((&response["allowed"], response["warnings"].as_array().unwrap().len()), (&json!(true), 1));
    let response = answer(Reviewed::Device, &asked("UPDATE", &twice, &device(&json!([]))), &model())["response"].take();
    assert_eq!(response["allowed"], false);
}
