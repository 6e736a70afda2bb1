//! Names, metadata and the few rules of the built-in kinds that go beyond types.

use serde_json::Value;

use super::{
    registry::{Resource, Strategy},
    selector::{is_label_key, is_label_value},
    status::FieldError,
};

mod kinds;

pub(crate) use kinds::{check_kind, check_update};

/// A DNS-1123 label: at most 63 lower case letters, digits and dashes.
pub(crate) fn is_label(name: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && ends(name.as_bytes().first())
        && ends(name.as_bytes().last())
}

/// A DNS-1123 subdomain: at most 253 characters, parts joined by dots.
pub(crate) fn is_subdomain(name: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 253
        && name.split('.').all(|part| {
            part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && ends(part.as_bytes().first())
                && ends(part.as_bytes().last())
        })
}

/// Checks the metadata of an object before it is stored.
pub(crate) fn check_metadata(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let label_only = matches!(resource.strategy, Strategy::Namespace | Strategy::Service);
    let good = if label_only { is_label(name) } else { is_subdomain(name) };
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name"));
    } else if !good {
        let why = if label_only {
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
             end with an alphanumeric character"
        } else {
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character"
        };
        errors.push(FieldError::invalid("metadata.name", &metadata["name"], why));
    }
    check_maps(metadata, &mut errors);
    for (i, owner) in metadata["ownerReferences"].as_array().into_iter().flatten().enumerate() {
        for key in ["apiVersion", "kind", "name", "uid"] {
            if owner[key].as_str().is_none_or(str::is_empty) {
                errors.push(FieldError::required(&format!("metadata.ownerReferences[{i}].{key}")));
            }
        }
    }
    for finalizer in metadata["finalizers"].as_array().into_iter().flatten() {
        if !finalizer.as_str().is_some_and(is_label_key) {
            errors.push(FieldError::invalid("metadata.finalizers", finalizer, "name part must be a qualified name"));
        }
    }
    errors
}

fn check_maps(metadata: &Value, errors: &mut Vec<FieldError>) {
    const ANNOTATIONS_LIMIT: usize = 256 * 1024;
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if !is_label_key(key) {
            errors.push(FieldError::invalid(
                "metadata.labels",
                &key.as_str().into(),
                "name part must be a qualified name",
            ));
        }
        if !value.as_str().is_some_and(is_label_value) {
            let why = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                and must start and end with an alphanumeric character, at most 63 in all";
            errors.push(FieldError::invalid("metadata.labels", value, why));
        }
    }
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        if !is_label_key(&key.to_ascii_lowercase()) {
            let key = key.as_str().into();
            errors.push(FieldError::invalid("metadata.annotations", &key, "name part must be a qualified name"));
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_LIMIT {
        let why = format!("must have at most {ANNOTATIONS_LIMIT} bytes");
        errors.push(FieldError::invalid("metadata.annotations", &size.into(), &why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_names() {
        for good in ["a", "a-1", "a.b", "kube-root-ca.crt"] {
            assert!(is_subdomain(good), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a..b", "a_b", "ä"] {
            assert!(!is_subdomain(bad), "{bad}");
        }
        assert!(!is_label("a.b"));
        assert!(!is_label(&"a".repeat(64)));
    }
}
