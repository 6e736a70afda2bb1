//! The kinds that we deal with, and where the API has them.

use kube::api::ApiResource;
use kubeedge_core::resource::ResourceType;

/// A kind of the Kubernetes API.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "these are the words of the API")]
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) namespaced: bool,
    /// Whether the status comes from the edge, so that it need not be told of a change.
    pub(crate) status_is_ours: bool,
}

const fn core(kind: &'static str, plural: &'static str, namespaced: bool) -> Kind {
    Kind { group: "", version: "v1", kind, plural, namespaced, status_is_ours: true }
}

impl Kind {
    pub(crate) const POD: Self = core("Pod", "pods", true);
    pub(crate) const NODE: Self = core("Node", "nodes", false);
    pub(crate) const CONFIG_MAP: Self = core("ConfigMap", "configmaps", true);
    pub(crate) const SECRET: Self = core("Secret", "secrets", true);
    pub(crate) const EVENT: Self = core("Event", "events", true);
    pub(crate) const VOLUME: Self = core("PersistentVolume", "persistentvolumes", false);
    pub(crate) const VOLUME_CLAIM: Self = core("PersistentVolumeClaim", "persistentvolumeclaims", true);
    pub(crate) const SERVICE_ACCOUNT: Self = core("ServiceAccount", "serviceaccounts", true);
    pub(crate) const LEASE: Self = Self { group: "coordination.k8s.io", ..core("Lease", "leases", true) };
    pub(crate) const VOLUME_ATTACHMENT: Self =
        Self { group: "storage.k8s.io", ..core("VolumeAttachment", "volumeattachments", false) };
    pub(crate) const SIGNING_REQUEST: Self =
        Self { group: "certificates.k8s.io", ..core("CertificateSigningRequest", "certificatesigningrequests", false) };
    /// The status of a Device is an older place of settings.
    pub(crate) const DEVICE: Self = Self {
        group: kubeedge_core::device::GROUP,
        version: kubeedge_core::device::VERSION,
        kind: "Device",
        plural: "devices",
        namespaced: true,
        status_is_ours: false,
    };
    pub(crate) const DEVICE_MODEL: Self = Self { kind: "DeviceModel", plural: "devicemodels", ..Self::DEVICE };

    /// As which older Devices are read.
    pub(crate) const OLDER_DEVICE: Self = Self { version: "v1alpha2", ..Self::DEVICE };
    pub(crate) const OLDER_DEVICE_MODEL: Self = Self { version: "v1alpha2", ..Self::DEVICE_MODEL };

    /// The kind that messages call `resource`, if it is one that nodes get.
    pub(crate) fn delivered(resource: &ResourceType) -> Option<&'static Self> {
        Some(match resource {
            ResourceType::Pod => &Self::POD,
            ResourceType::Node => &Self::NODE,
            ResourceType::ConfigMap => &Self::CONFIG_MAP,
            ResourceType::Secret => &Self::SECRET,
            ResourceType::Device => &Self::DEVICE,
            ResourceType::DeviceModel => &Self::DEVICE_MODEL,
            _ => return None,
        })
    }

    /// What messages call it: the kind in lower case.
    pub(crate) fn resource(&self) -> ResourceType {
        ResourceType::from_word(&self.kind.to_ascii_lowercase())
    }

    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Path of the collection, in a namespace or of the whole cluster.
    pub(crate) fn url(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    pub(crate) fn api_resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.into(),
            version: self.version.into(),
            api_version: self.api_version(),
            kind: self.kind.into(),
            plural: self.plural.into(),
        }
    }
}
