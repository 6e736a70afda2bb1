//! Environment and command line of a container, resolved.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use super::references::{Data, Reference, Sources};

/// A container that cannot be configured, in the words of the kubelet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub(crate) String);

/// What a pod's fields are resolved from besides the pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldContext<'a> {
    pub(crate) node: &'a str,
    pub(crate) host_ip: &'a str,
    pub(crate) pod_ip: &'a str,
}

/// A container's environment in order, with later entries replacing earlier ones of the same name.
///
/// Upstream: kubelet, `makeEnvironmentVariables`.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    context: FieldContext<'_>,
    provided: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut env = Ordered::default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        let wanted = match (&from.config_map_ref, &from.secret_ref) {
            (Some(map), _) => Some((Reference::ConfigMap(map.name.clone()), map.optional)),
            (_, Some(secret)) => Some((Reference::Secret(secret.name.clone()), secret.optional)),
            _ => None,
        };
        let Some((reference, optional)) = wanted else { continue };
        for (key, value) in find(sources, &reference, optional)?.into_iter().flatten() {
            let name = format!("{prefix}{key}");
            if is_variable_name(&name) {
                env.set(name, String::from_utf8_lossy(value).into_owned());
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(from)) => value_of(pod, from, sources, context)?,
            (Some(value), None) => Some(expand(value, |name| env.get(name).or_else(|| provided.get(name)))),
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            env.set(variable.name.clone(), value);
        }
    }
    Ok(env.entries)
}

#[derive(Default)]
struct Ordered {
    entries: Vec<(String, String)>,
    places: HashMap<String, usize>,
}

impl Ordered {
    fn get(&self, name: &str) -> Option<&String> {
        self.places.get(name).and_then(|place| self.entries.get(*place)).map(|(_, value)| value)
    }

    fn set(&mut self, name: String, value: String) {
        if let Some(entry) = self.places.get(&name).and_then(|place| self.entries.get_mut(*place)) {
            entry.1 = value;
        } else {
            self.places.insert(name.clone(), self.entries.len());
            self.entries.push((name, value));
        }
    }
}

fn is_variable_name(name: &str) -> bool {
    // What exec takes: anything without `=` and NUL, as Kubernetes has it since 1.30.
    !name.is_empty() && !name.contains(['=', '\0'])
}

fn value_of(
    pod: &Pod,
    from: &EnvVarSource,
    sources: &Sources,
    context: FieldContext<'_>,
) -> Result<Option<String>, ConfigError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let keyed = match (&from.config_map_key_ref, &from.secret_key_ref) {
        (Some(map), _) => {
            Some(("ConfigMap", Reference::ConfigMap(map.name.clone()), &map.name, &map.key, map.optional))
        }
        (_, Some(secret)) => {
            Some(("Secret", Reference::Secret(secret.name.clone()), &secret.name, &secret.key, secret.optional))
        }
        _ => None,
    };
    if let Some((kind, reference, name, key, optional)) = keyed {
        let value = find(sources, &reference, optional)?.and_then(|data| data.get(key));
        return match value {
            Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
            None if optional == Some(true) => Ok(None),
            None => Err(ConfigError(format!("couldn't find key {key} in {kind} {namespace}/{name}"))),
        };
    }
    if let Some(field_ref) = &from.field_ref {
        return field(pod, &field_ref.field_path, context)
            .map(Some)
            .ok_or_else(|| ConfigError(format!("unsupported fieldPath: {}", field_ref.field_path)));
    }
    Err(ConfigError("resourceFieldRef is not supported".into()))
}

fn find<'a>(
    sources: &'a Sources,
    reference: &Reference,
    optional: Option<bool>,
) -> Result<Option<&'a Data>, ConfigError> {
    match sources.get(reference) {
        None if optional != Some(true) => Err(ConfigError(format!("{} not found", reference.describe()))),
        found => Ok(found),
    }
}

/// The value of a field of a pod, as the downward API spells them.
pub(crate) fn field(pod: &Pod, path: &str, context: FieldContext<'_>) -> Option<String> {
    let metadata = &pod.metadata;
    let subscripted = |prefix: &str, map: Option<&BTreeMap<String, String>>| {
        let key = path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")?;
        Some(map.and_then(|map| map.get(key)).cloned().unwrap_or_default())
    };
    let all = |map: Option<&BTreeMap<String, String>>| {
        map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
    };
    let (labels, annotations) = (metadata.labels.as_ref(), metadata.annotations.as_ref());
    Some(match path {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "metadata.labels" => all(labels),
        "metadata.annotations" => all(annotations),
        "spec.nodeName" => context.node.to_owned(),
        "spec.serviceAccountName" => pod.spec.as_ref()?.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => context.host_ip.to_owned(),
        "status.podIP" | "status.podIPs" => context.pod_ip.to_owned(),
        _ => subscripted("metadata.labels", labels).or_else(|| subscripted("metadata.annotations", annotations))?,
    })
}

/// Replaces `$(NAME)` by its value. An unknown name stays as it is, `$$` is a dollar.
///
/// Upstream: Kubernetes, `third_party/forked/golang/expansion`.
pub(crate) fn expand<'a>(text: &str, value: impl Fn(&str) -> Option<&'a String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some((name, behind)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[dollar..=dollar + name.len() + 2]),
            }
            rest = behind;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const CONTEXT: FieldContext<'_> = FieldContext { node: "edge-1", host_ip: "192.0.2.1", pod_ip: "192.0.2.2" };

    fn resolve(env: serde_json::Value, sources: &Sources) -> Result<Vec<(String, String)>, ConfigError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "labels": {"tier": "front"}},
            "spec": {"containers": [{"name": "main"}]},
        }))
        .unwrap();
        let container: Container = serde_json::from_value(env).unwrap();
        let provided = BTreeMap::from([("KUBEEDGE_POD_ROOT".to_owned(), "/r".to_owned())]);
        environment(&pod, &container, sources, CONTEXT, &provided)
    }

    #[test]
    fn variables_come_from_all_their_sources_in_order() {
        let data = |key: &str, value: &str| Data::from([(key.to_owned(), value.as_bytes().to_vec())]);
        let sources = Sources::from([
            (Reference::ConfigMap("settings".into()), data("color", "red")),
            (Reference::Secret("keys".into()), data("password", "s3cret")),
        ]);
        let env = resolve(
            json!({"name": "main", "envFrom": [{"prefix": "CFG_", "configMapRef": {"name": "settings"}}], "env": [
                {"name": "A", "value": "a"},
                {"name": "B", "value": "$(A)-$(CFG_color)-$(NONE)-$$(A)-$(KUBEEDGE_POD_ROOT)"},
                {"name": "P", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
                {"name": "O", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": true}}},
                {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['tier']"}}},
                {"name": "H", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
                {"name": "A", "value": "again"},
            ]}),
            &sources,
        )
        .unwrap();
        let want = [
            ("CFG_color", "red"),
            ("A", "again"),
            ("B", "a-red-$(NONE)-$(A)-/r"),
            ("P", "s3cret"),
            ("N", "web"),
            ("L", "front"),
            ("H", "192.0.2.1"),
        ];
        assert_eq!(env, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_missing_is_named_as_the_kubelet_names_it() {
        let missing = |env| resolve(json!({"name": "main", "env": [env]}), &Sources::new()).unwrap_err().to_string();
        let map = json!({"name": "X", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}});
        assert_eq!(missing(map.clone()), "configmap \"settings\" not found");
        let empty = Sources::from([(Reference::ConfigMap("settings".into()), Data::new())]);
        assert_eq!(
            resolve(json!({"name": "main", "env": [map]}), &empty).unwrap_err().to_string(),
            "couldn't find key color in ConfigMap shop/settings"
        );
        let field = json!({"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}});
        assert_eq!(missing(field), "unsupported fieldPath: spec.x");
    }

    proptest! {
        #[test]
        fn text_without_dollars_is_left_alone_and_none_panics(text in "[^$]{0,20}", any in "[$()A-Z ]{0,20}") {
            prop_assert_eq!(expand(&text, |_| None), text);
            expand(&any, |_| None);
        }
    }
}
