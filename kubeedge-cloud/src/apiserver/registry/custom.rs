//! Resources that custom resource definitions add.

use std::sync::Arc;

use serde_json::Value;

use super::{Column, Resource, Strategy, Version};
use crate::apiserver::{
    schema::{Kind, Schema, parse_custom},
    status::FieldError,
    validate::{is_label, is_subdomain},
};

/// The resource that a definition describes; the errors say what is wrong with it.
///
/// `metadata` is the schema that every object's metadata has.
pub(crate) fn resource_of(definition: &Value, metadata: &Arc<Schema>) -> Result<Resource, Vec<FieldError>> {
    let mut errors = check_definition(definition);
    if !errors.is_empty() {
        return Err(errors);
    }
    let spec = &definition["spec"];
    let names = &spec["names"];
    let word = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let words = |key: &str| -> Vec<String> {
        names[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (mut versions, mut storage) = (Vec::new(), 0);
    for (i, version) in spec["versions"].as_array().into_iter().flatten().enumerate() {
        if version["storage"].as_bool() == Some(true) {
            storage = i;
        }
        let source = version.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null);
        match parse_custom(source) {
            Ok(mut schema) => {
                schema.properties.insert("metadata".to_owned(), metadata.clone());
                for name in ["apiVersion", "kind"] {
                    schema.properties.insert(name.to_owned(), Arc::new(Schema::of(Kind::String)));
                }
                versions.push(Version {
                    name: word(version, "name"),
                    served: version["served"].as_bool() == Some(true),
                    schema: Arc::new(schema),
                    status: version.pointer("/subresources/status").is_some(),
                    columns: columns(version),
                });
            }
            Err(why) => {
                let field = format!("spec.versions[{i}].schema.openAPIV3Schema");
                errors.push(FieldError::invalid(&field, &version["name"], &why));
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let (group, plural, kind) = (word(spec, "group"), word(names, "plural"), word(names, "kind"));
    let or = |text: String, other: String| if text.is_empty() { other } else { text };
    let fields = spec["versions"][storage]["selectableFields"].as_array().into_iter().flatten();
    Ok(Resource {
        id: format!("{plural}.{group}").into(),
        singular: or(word(names, "singular"), kind.to_lowercase()),
        list_kind: or(word(names, "listKind"), format!("{kind}List")),
        short_names: words("shortNames"),
        categories: words("categories"),
        namespaced: spec["scope"] == "Namespaced",
        strategy: Strategy::Custom,
        versions,
        storage,
        fields: fields
            .filter_map(|f| f["jsonPath"].as_str()?.strip_prefix('.'))
            .map(|path| (path.to_owned(), format!("/{}", path.replace('.', "/"))))
            .collect(),
        subresources: Vec::new(),
        group,
        plural,
        kind,
    })
}

fn columns(version: &Value) -> Vec<Column> {
    let word = |column: &Value, key: &str| column[key].as_str().unwrap_or_default().to_owned();
    let declared = version["additionalPrinterColumns"].as_array().into_iter().flatten();
    declared
        .map(|column| Column {
            name: word(column, "name"),
            kind: word(column, "type"),
            format: word(column, "format"),
            description: word(column, "description"),
            priority: column["priority"].as_i64().unwrap_or(0),
            path: word(column, "jsonPath"),
        })
        .collect()
}

/// What is wrong with the names and versions of a definition.
fn check_definition(definition: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &definition["spec"];
    let word = |pointer: &str| spec.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    for (pointer, field) in [
        ("/group", "spec.group"),
        ("/names/plural", "spec.names.plural"),
        ("/names/kind", "spec.names.kind"),
        ("/scope", "spec.scope"),
    ] {
        if word(pointer).is_empty() {
            errors.push(FieldError::required(field));
        }
    }
    let (group, plural) = (word("/group"), word("/names/plural"));
    if !group.is_empty() && (!is_subdomain(group) || !group.contains('.')) {
        errors.push(FieldError::invalid("spec.group", &group.into(), "should be a domain with at least one dot"));
    }
    if !plural.is_empty() && !is_label(plural) {
        errors.push(FieldError::invalid("spec.names.plural", &plural.into(), "should be a lower case DNS label"));
    }
    let name = definition.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let wanted = format!("{plural}.{group}");
    if errors.is_empty() && name != wanted {
        let why = format!("must be spec.names.plural+\".\"+spec.group ({wanted})");
        errors.push(FieldError::invalid("metadata.name", &name.into(), &why));
    }
    if !matches!(word("/scope"), "" | "Namespaced" | "Cluster") {
        let allowed = ["Cluster", "Namespaced"].map(Value::from);
        errors.push(FieldError::not_supported("spec.scope", &spec["scope"], &allowed));
    }
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if versions.is_empty() {
        errors.push(FieldError::required("spec.versions"));
    } else if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", &versions.len().into(), why));
    }
    for (i, version) in versions.iter().enumerate() {
        let field = format!("spec.versions[{i}].name");
        match version["name"].as_str() {
            Some(name) if is_label(name) => {
                if versions[..i].iter().any(|v| v["name"] == name) {
                    errors.push(FieldError::duplicate(&field, &name.into()));
                }
            }
            _ => errors.push(FieldError::invalid(&field, &version["name"], "should be a lower case DNS label")),
        }
        if version.pointer("/schema/openAPIV3Schema").is_none() {
            errors.push(FieldError::required(&format!("spec.versions[{i}].schema.openAPIV3Schema")));
        }
    }
    if word("/conversion/strategy") == "Webhook" {
        let allowed = [Value::from("None")];
        errors.push(FieldError::not_supported("spec.conversion.strategy", &"Webhook".into(), &allowed));
    }
    errors
}
