//! OpenAPI documents: as much as kubectl looks at.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    registry::{Registry, Resource, Strategy, Version},
    reply::Reply,
    schema,
    status::ApiError,
};

/// The version 2 document in its protobuf form: for each kind that it can be patched and which parameters that takes.
/// There are no types, so that clients check nothing themselves.
pub(crate) fn v2(registry: &Registry) -> Reply {
    let mut paths = Vec::new();
    for resource in registry.sorted().into_iter().filter(|r| r.strategy != Strategy::Review) {
        for version in resource.versions.iter().filter(|v| v.served) {
            let name = format!("/{}/{}/{{name}}", base(&resource.group, &version.name), resource.plural);
            // NamedPathItem: name, value (PathItem: patch).
            let item = proto::field(8, &patch_operation(resource, version));
            let named = [proto::field(1, name.as_bytes()), proto::field(2, &item)].concat();
            paths.extend(proto::field(2, &named));
        }
    }
    // Document: swagger, info (title, version), paths.
    let info = [proto::field(1, b"Kubernetes"), proto::field(2, b"v1.34.0")].concat();
    let document = [proto::field(1, b"2.0"), proto::field(2, &info), proto::field(8, &paths)].concat();
    Reply::bytes(StatusCode::OK, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", document)
}

fn patch_operation(resource: &Resource, version: &Version) -> Vec<u8> {
    let mut operation = Vec::new();
    for name in ["dryRun", "fieldManager", "fieldValidation"] {
        // ParametersItem > Parameter > NonBodyParameter > QueryParameterSubSchema: in, name.
        let query = [proto::field(2, b"query"), proto::field(4, name.as_bytes())].concat();
        let parameter = proto::field(1, &proto::field(2, &proto::field(3, &query)));
        operation.extend(proto::field(8, &parameter));
    }
    // NamedAny: name, value (Any: yaml).
    let kind = proto::field(2, gvk(resource, version).to_string().as_bytes());
    let extension = [proto::field(1, b"x-kubernetes-group-version-kind"), proto::field(2, &kind)].concat();
    operation.extend(proto::field(13, &extension));
    operation
}

/// As much of writing protobuf as the version 2 document needs.
mod proto {
    /// A length-delimited field; `number` is below 16.
    pub(super) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = bytes.len();
        while length > 0x7f {
            out.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        out.push(u8::try_from(length).unwrap_or_default());
        out.extend_from_slice(bytes);
        out
    }
}

/// The list of version 3 documents. Their addresses change with them, so that clients do not keep old ones.
pub(crate) fn v3_root(registry: &Registry) -> Reply {
    let state = registry.revision();
    let mut paths = Map::new();
    for group in registry.groups() {
        for version in &group.versions {
            let base = base(&group.name, version);
            let address = json!({"serverRelativeURL": format!("/openapi/v3/{base}?hash={state:X}")});
            paths.insert(base, address);
        }
    }
    Reply::json(StatusCode::OK, &json!({"paths": paths}))
}

fn base(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The document of one group and version.
pub(crate) fn v3(registry: &Registry, group: &str, version: &str) -> Result<Reply, ApiError> {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for resource in registry.sorted().into_iter().filter(|r| r.group == group) {
        let Some(served) = resource.version(version) else { continue };
        let name = schema_name(resource, served);
        let mut schema = schema::openapi(&served.schema);
        schema["x-kubernetes-group-version-kind"] = json!([gvk(resource, served)]);
        schemas.insert(name.clone(), schema);
        describe(resource, served, &name, &mut paths);
    }
    if paths.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let document = json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.34.0"},
        "paths": paths, "components": {"schemas": schemas}});
    Ok(Reply::json(StatusCode::OK, &document))
}

fn gvk(resource: &Resource, version: &Version) -> Value {
    json!({"group": resource.group, "version": version.name, "kind": resource.kind})
}

/// `io.k8s.api.core.v1.Pod`, or the reversed group and so on.
fn schema_name(resource: &Resource, version: &Version) -> String {
    let group = if resource.group.is_empty() {
        "io.k8s.api.core".to_owned()
    } else {
        resource.group.rsplit('.').collect::<Vec<_>>().join(".")
    };
    format!("{group}.{}.{}", version.name, resource.kind)
}

fn describe(resource: &Resource, version: &Version, schema: &str, paths: &mut Map<String, Value>) {
    let parameter =
        |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let parameters = json!([parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")]);
    let reference = json!({"schema": {"$ref": format!("#/components/schemas/{schema}")}});
    let responses = json!({"200": {"description": "OK", "content": {"application/json": reference}}});
    let operation = |action: &str, verb: &str, body: Option<&[&str]>| {
        let mut operation = json!({"operationId": format!("{verb}{}{}", resource.kind, version.name),
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(resource, version),
            "responses": responses});
        if let Some(types) = body {
            let content: Map<_, _> = types.iter().map(|t| ((*t).to_owned(), reference.clone())).collect();
            operation["parameters"] = parameters.clone();
            operation["requestBody"] = json!({"required": true, "content": content});
        }
        operation
    };
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("/{}{scope}/{}", base(&resource.group, &version.name), resource.plural);
    let post = operation("post", "create", Some(&["application/json"]));
    if resource.strategy == Strategy::Review {
        paths.insert(collection, json!({"post": post}));
        return;
    }
    // Strategic merge is not listed: clients then work it out from the types they know themselves.
    let patch = operation(
        "patch",
        "patch",
        Some(&["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"]),
    );
    paths.insert(
        format!("{collection}/{{name}}"),
        json!({"get": operation("get", "read", None),
        "put": operation("put", "replace", Some(&["application/json"])), "patch": patch,
        "delete": operation("delete", "delete", None)}),
    );
    paths.insert(collection, json!({"get": operation("list", "list", None), "post": post}));
}
