#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

fn told(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn model() -> DeviceModelSpec {
    let property = |name: &str, word: &str, access: &str| json!({ "name": name, "type": word, "accessMode": access });
    let mut properties = vec![
        property("int", "INT", "ReadWrite"),
        property("float", "FLOAT", "ReadWrite"),
        property("double", "DOUBLE", "ReadWrite"),
        property("bool", "BOOLEAN", "ReadWrite"),
        property("bytes", "BYTES", "ReadWrite"),
        property("text", "STRING", "ReadWrite"),
        property("fixed", "INT", "ReadOnly"),
        property("stream", "STREAM", "ReadWrite"),
    ];
    for property in &mut properties {
        property["visitors"] = json!({ "protocolName": "modbus" });
    }
    (properties[0]["minimum"], properties[0]["maximum"]) = (json!("-5"), json!("10"));
    properties.push(property("lost", "INT", "ReadOnly"));
    read_model(&json!({ "protocol": "modbus", "properties": properties })).unwrap()
}

fn check(spec: &Value) -> Vec<String> {
    told(&validate(&read_device(spec).unwrap(), Some(&model())))
}

fn desired(property: &str, value: &str) -> Option<String> {
    let properties = json!([{ "name": property, "desired": { "value": value } }]);
    let mut told = check(&json!({ "deviceModelRef": { "name": "m" }, "properties": properties }));
    assert!(told.len() <= 1, "{told:?}");
    told.pop().map(|told| told.strip_prefix("spec.properties[0].desired.value is ").unwrap().to_owned())
}

#[test]
fn a_device_that_is_right_has_no_problems() {
    let names = ["int", "float", "double", "bool", "bytes", "text", "fixed", "stream"];
    let properties: Vec<_> = names.iter().map(|name| json!({ "name": name, "desired": { "value": "" } })).collect();
    let methods = json!([{ "name": "set", "propertyNames": ["int"] }]);
    let spec = json!({ "deviceModelRef": { "name": "m" }, "properties": properties, "methods": methods });
    assert_eq!(check(&spec), Vec::<String>::new());
    assert_eq!(told(&validate_model(&model())), Vec::<String>::new());
}

#[test]
fn each_problem_names_the_field_and_the_value() {
    let none = validate(&DeviceSpec::default(), Some(&model()));
    assert_eq!(told(&none), [r#"spec.deviceModelRef.name is "": a device needs a model"#]);
    let device = read_device(&json!({ "deviceModelRef": { "name": "m" }, "properties": [{ "name": "x" }] })).unwrap();
    let missing = r#"spec.deviceModelRef.name is "m": there is no such DeviceModel in the namespace"#;
    assert_eq!(told(&validate(&device, None)), [missing]);
    let bare = validate(&device, Some(&DeviceModelSpec::default()));
    let protocol = r#"spec.protocol.protocolName is "": neither the device nor its model names a protocol"#;
    let stranger = r#"spec.properties[0].name is "x": the model has no such property"#;
    assert_eq!(told(&bare), [protocol, stranger]);

    let properties = json!([
        { "name": "int" }, { "name": "int" }, { "name": "" }, { "name": "lost" },
        { "name": "float", "visitors": { "configData": { "offset": 1 } } },
    ]);
    let methods = json!([{ "name": "set", "propertyNames": ["int", "y"] }]);
    let told = check(&json!({ "deviceModelRef": { "name": "m" }, "properties": properties, "methods": methods }));
    assert_eq!(
        told,
        [
            r#"spec.properties[1].name is "int": property names must be unique"#,
            r#"spec.properties[2].name is "": it cannot be the name of a property"#,
            r#"spec.properties[2].name is "": the model has no such property"#,
            r#"spec.properties[3].visitors is "": neither the device nor its model has a visitor for property "lost""#,
            r#"spec.methods[0].propertyNames[1] is "y": the device has no such property"#,
        ]
    );
}

#[test]
fn desired_values_are_of_their_type_and_within_its_limits() {
    for (property, value) in [
        ("int", "-5"),
        ("int", "10"),
        ("float", "1e3"),
        ("double", "-0.25"),
        ("bool", "TRUE"),
        ("bytes", "AAE="),
        ("text", "50 % {\"ü\"}"),
    ] {
        assert_eq!(desired(property, value), None, "{property} {value}");
    }
    for (property, value, expected) in [
        ("int", "1.5", r#""1.5": property "int" needs a whole number of 64 bits"#),
        ("int", "-6", r#""-6": the minimum of property "int" is -5"#),
        ("int", "11", r#""11": the maximum of property "int" is 10"#),
        ("float", "warm", r#""warm": property "float" needs a finite number"#),
        ("double", "NaN", r#""NaN": property "double" needs a finite number"#),
        ("bool", "yes", r#""yes": property "bool" needs true or false"#),
        ("bytes", "*", r#""*": property "bytes" needs base64"#),
        ("fixed", "1", r#""1": property "fixed" is ReadOnly"#),
        ("stream", "1", r#""1": property "stream" needs no value, as it is a stream"#),
    ] {
        assert_eq!(desired(property, value).as_deref(), Some(expected));
    }
}

#[test]
fn a_model_has_limits_that_are_numbers_and_types_that_there_are() {
    let property =
        |minimum: &str, maximum: &str| json!({ "name": "a", "type": "INT", "minimum": minimum, "maximum": maximum });
    let model = read_model(&json!({ "properties": [property("low", "9"), property("9", "1")] })).unwrap();
    assert_eq!(
        told(&validate_model(&model)),
        [
            r#"spec.properties[1].name is "a": property names must be unique"#,
            r#"spec.properties[0].minimum is "low": a limit has to be a number"#,
            r#"spec.properties[1].minimum is "9": the maximum is 1, which is less"#,
        ]
    );
    let odd = json!({ "properties": [{ "name": "a", "type": "COMPLEX" }, { "name": "b", "type": "INT", "accessMode": "Write" }] });
    assert_eq!(
        told(&read_model(&odd).unwrap_err()),
        [
            r#"spec.properties[0].type is "COMPLEX": a type is one of INT, FLOAT, DOUBLE, STRING, BOOLEAN, BYTES and STREAM"#,
            r#"spec.properties[1].accessMode is "Write": an access mode is ReadWrite or ReadOnly"#,
        ]
    );
    assert_eq!(read_model(&json!({ "properties": 7 })).unwrap_err().len(), 1);
    assert_eq!(read_device(&json!({ "properties": 7 })).unwrap_err().len(), 1);
}

#[test]
fn what_is_told_has_a_bound() {
    let properties: Vec<_> = (0..1000).map(|_| json!({ "name": "x".repeat(10_000) })).collect();
    let problems = validate(&read_device(&json!({ "properties": properties })).unwrap(), None);
    assert_eq!(problems.len(), MOST);
    assert!(problems.iter().all(|problem| problem.to_string().len() < 512));
}
