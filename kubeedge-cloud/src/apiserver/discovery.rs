//! What is served, told to clients.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    registry::{Group, Registry, Resource},
    reply::Reply,
    request::Form,
    status::ApiError,
};

/// The version of Kubernetes whose API this is.
const KUBERNETES: (&str, &str) = ("1", "34");
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub(crate) fn version() -> Reply {
    let (major, minor) = KUBERNETES;
    let version = format!("v{major}.{minor}.0+kubeedge-{}", env!("CARGO_PKG_VERSION"));
    let value = json!({"major": major, "minor": minor, "gitVersion": version, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform":
        format!("{}/{}", std::env::consts::OS, arch())});
    Reply::json(StatusCode::OK, &value)
}

/// The machine's architecture as Go names it.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) fn paths(registry: &Registry) -> Reply {
    let mut paths: Vec<String> = ["/api", "/apis"].map(str::to_owned).into();
    for group in registry.groups() {
        if !group.name.is_empty() {
            paths.push(format!("/apis/{}", group.name));
        }
        paths.extend(group.versions.iter().map(|version| base(&group.name, version)));
    }
    paths.extend(["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
    Reply::json(StatusCode::OK, &json!({"paths": paths}))
}

fn base(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

pub(crate) fn core_versions(registry: &Registry, form: Form) -> Reply {
    if form == Form::Aggregated {
        return aggregated(registry, str::is_empty);
    }
    let value = json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []});
    Reply::json(StatusCode::OK, &value)
}

pub(crate) fn groups(registry: &Registry, form: Form) -> Reply {
    if form == Form::Aggregated {
        return aggregated(registry, |group| !group.is_empty());
    }
    let groups: Vec<_> = registry.groups().iter().filter(|g| !g.name.is_empty()).map(describe).collect();
    Reply::json(StatusCode::OK, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

pub(crate) fn group(registry: &Registry, name: &str) -> Result<Reply, ApiError> {
    let groups = registry.groups();
    let group = groups.iter().find(|g| g.name == name && !name.is_empty()).ok_or_else(ApiError::no_such_path)?;
    let mut value = describe(group);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Ok(Reply::json(StatusCode::OK, &value))
}

fn describe(group: &Group) -> Value {
    let version = |v: &String| json!({"groupVersion": format!("{}/{v}", group.name), "version": v});
    let versions: Vec<_> = group.versions.iter().map(version).collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions.first()})
}

fn served<'a>(registry: &'a Registry, group: &str, version: &str) -> Vec<&'a Arc<Resource>> {
    let all = registry.sorted().into_iter();
    all.filter(|r| r.group == group && r.version(version).is_some()).collect()
}

pub(crate) fn resources(registry: &Registry, group: &str, version: &str) -> Result<Reply, ApiError> {
    let served = served(registry, group, version);
    if served.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let mut list = Vec::new();
    for resource in served {
        let entry = |name: &str, kind: &str, verbs: &[&str]| json!({"name": name, "singularName": "", "namespaced": resource.namespaced, "kind": kind, "verbs": verbs});
        let mut main = entry(&resource.plural, &resource.kind, resource.verbs());
        main["singularName"] = resource.singular.as_str().into();
        for (key, names) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
            if !names.is_empty() {
                main[key] = json!(names);
            }
        }
        list.push(main);
        for (name, kind, verbs) in subresources(resource, version) {
            list.push(entry(&format!("{}/{name}", resource.plural), kind, verbs));
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let value =
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list});
    Ok(Reply::json(StatusCode::OK, &value))
}

fn subresources<'a>(resource: &'a Resource, version: &str) -> Vec<(&'static str, &'a str, &'static [&'static str])> {
    const CHANGE: &[&str] = &["get", "patch", "update"];
    let mut list: Vec<(_, &str, &[&str])> = Vec::new();
    if resource.version(version).is_some_and(|v| v.status) {
        list.push(("status", &resource.kind, CHANGE));
    }
    for (name, kind) in &resource.subresources {
        let verbs: &[&str] = match *name {
            "approval" => CHANGE,
            "finalize" => &["update"],
            _ => &["create"],
        };
        list.push((name, kind, verbs));
    }
    list
}

fn aggregated(registry: &Registry, wanted: impl Fn(&str) -> bool) -> Reply {
    let mut items = Vec::new();
    for group in registry.groups().iter().filter(|g| wanted(&g.name)) {
        let versions: Vec<_> = group
            .versions
            .iter()
            .map(|version| {
                let served = served(registry, &group.name, version);
                let resources: Vec<_> = served.into_iter().map(|r| aggregate(r, version)).collect();
                json!({"version": version, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
        items.push(json!({"metadata": metadata, "versions": versions}));
    }
    let value = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": items});
    Reply::json(StatusCode::OK, &value).with_content_type(AGGREGATED)
}

fn aggregate(resource: &Resource, version: &str) -> Value {
    let kind = |kind: &str| json!({"group": resource.group, "version": version, "kind": kind});
    let subresources: Vec<_> = subresources(resource, version)
        .into_iter()
        .map(|(name, of, verbs)| json!({"subresource": name, "responseKind": kind(of), "verbs": verbs}))
        .collect();
    let mut value = json!({"resource": resource.plural, "responseKind": kind(&resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": resource.verbs()});
    for (key, list) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !list.is_empty() {
            value[key] = json!(list);
        }
    }
    if !subresources.is_empty() {
        value["subresources"] = subresources.into();
    }
    value
}
