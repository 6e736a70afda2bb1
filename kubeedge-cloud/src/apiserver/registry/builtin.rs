//! The built-in resources.

use super::{Resource, Strategy, TypeTable, Version};

/// Group, plural, kind, short names, namespaced, status subresource, strategy, selectable fields.
struct Row(
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    bool,
    bool,
    Strategy,
    &'static [(&'static str, &'static str)],
);

const POD_FIELDS: &[(&str, &str)] = &[
    ("spec.nodeName", "/spec/nodeName"),
    ("spec.restartPolicy", "/spec/restartPolicy"),
    ("spec.schedulerName", "/spec/schedulerName"),
    ("spec.serviceAccountName", "/spec/serviceAccountName"),
    ("spec.hostNetwork", "/spec/hostNetwork"),
    ("status.phase", "/status/phase"),
    ("status.podIP", "/status/podIP"),
    ("status.nominatedNodeName", "/status/nominatedNodeName"),
];

const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject.kind", "/involvedObject/kind"),
    ("involvedObject.namespace", "/involvedObject/namespace"),
    ("involvedObject.name", "/involvedObject/name"),
    ("involvedObject.uid", "/involvedObject/uid"),
    ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
    ("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
    ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
    ("reason", "/reason"),
    ("reportingComponent", "/reportingComponent"),
    ("source", "/source/component"),
    ("type", "/type"),
];

const SERVICE_FIELDS: &[(&str, &str)] = &[("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")];

const AUTHN: &str = "authentication.k8s.io";
const AUTHZ: &str = "authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";

const ROWS: &[Row] = &[
    Row("", "namespaces", "Namespace", &["ns"], false, true, Strategy::Namespace, &[("status.phase", "/status/phase")]),
    Row("", "pods", "Pod", &["po"], true, true, Strategy::Pod, POD_FIELDS),
    Row("", "nodes", "Node", &["no"], false, true, Strategy::Node, &[("spec.unschedulable", "/spec/unschedulable")]),
    Row("", "configmaps", "ConfigMap", &["cm"], true, false, Strategy::ConfigMap, &[]),
    Row("", "secrets", "Secret", &[], true, false, Strategy::Secret, &[("type", "/type")]),
    Row("", "events", "Event", &["ev"], true, false, Strategy::Event, EVENT_FIELDS),
    Row("", "services", "Service", &["svc"], true, true, Strategy::Service, SERVICE_FIELDS),
    Row("", "endpoints", "Endpoints", &["ep"], true, false, Strategy::Plain, &[]),
    Row("", "serviceaccounts", "ServiceAccount", &["sa"], true, false, Strategy::ServiceAccount, &[]),
    Row("", "persistentvolumes", "PersistentVolume", &["pv"], false, true, Strategy::Volume, &[]),
    Row("", "persistentvolumeclaims", "PersistentVolumeClaim", &["pvc"], true, true, Strategy::Claim, &[]),
    Row("coordination.k8s.io", "leases", "Lease", &[], true, false, Strategy::Lease, &[]),
    Row("discovery.k8s.io", "endpointslices", "EndpointSlice", &[], true, false, Strategy::Plain, &[]),
    Row(STORAGE, "volumeattachments", "VolumeAttachment", &[], false, true, Strategy::Plain, &[]),
    Row(
        "certificates.k8s.io",
        "certificatesigningrequests",
        "CertificateSigningRequest",
        &["csr"],
        false,
        true,
        Strategy::Signing,
        &[("spec.signerName", "/spec/signerName")],
    ),
    Row(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        &["crd", "crds"],
        false,
        true,
        Strategy::Definition,
        &[],
    ),
    Row(AUTHN, "tokenreviews", "TokenReview", &[], false, false, Strategy::Review, &[]),
    Row(AUTHN, "selfsubjectreviews", "SelfSubjectReview", &[], false, false, Strategy::Review, &[]),
    Row(AUTHZ, "selfsubjectaccessreviews", "SelfSubjectAccessReview", &[], false, false, Strategy::Review, &[]),
    Row(AUTHZ, "selfsubjectrulesreviews", "SelfSubjectRulesReview", &[], false, false, Strategy::Review, &[]),
    Row(AUTHZ, "subjectaccessreviews", "SubjectAccessReview", &[], false, false, Strategy::Review, &[]),
];

pub(super) fn resources(types: &TypeTable) -> Vec<Resource> {
    ROWS.iter().map(|row| resource(row, types)).collect()
}

fn resource(row: &Row, types: &TypeTable) -> Resource {
    let Row(group, plural, kind, short_names, namespaced, status, strategy, fields) = *row;
    let id = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    let subresources = match strategy {
        Strategy::Pod => vec![("binding", "Binding")],
        Strategy::Namespace => vec![("finalize", "Namespace")],
        Strategy::ServiceAccount => vec![("token", "TokenRequest")],
        Strategy::Signing => vec![("approval", "CertificateSigningRequest")],
        _ => Vec::new(),
    };
    let schema = types.schema(kind);
    Resource {
        id: id.into(),
        group: group.to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_ascii_lowercase(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        short_names: short_names.iter().map(|s| (*s).to_owned()).collect(),
        categories: match strategy {
            Strategy::Pod | Strategy::Service => vec!["all".to_owned()],
            Strategy::Definition => vec!["api-extensions".to_owned()],
            _ => Vec::new(),
        },
        namespaced,
        strategy,
        versions: vec![Version { name: "v1".to_owned(), served: true, schema, status, columns: Vec::new() }],
        storage: 0,
        fields: fields.iter().map(|(name, pointer)| ((*name).to_owned(), (*pointer).to_owned())).collect(),
        subresources,
    }
}
