//! Closed vocabularies of the wire, open at the end: a known word is a variant, any other is kept as it came.

/// Makes an enum of wire words with `Absent` for the empty word and `Other` for words that we do not know.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name {
            /// Not given.
            #[default]
            Absent,
            $($(#[$vdoc])* $variant,)*
            /// A word that this version does not know; carried unchanged.
            Other(std::sync::Arc<str>),
        }

        impl $name {
            /// The word on the wire; empty if absent.
            pub fn as_str(&self) -> &str {
                match self {
                    Self::Absent => "",
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                }
            }

            /// The variant of a word.
            pub fn from_word(word: &str) -> Self {
                match word {
                    "" => Self::Absent,
                    $($word => Self::$variant,)*
                    other => Self::Other(other.into()),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What a message wants done.
    ///
    /// Upstream: `staging/src/github.com/kubeedge/beehive/pkg/core/model` and `cloud/pkg/cloudhub/common/model`.
    Operation {
        /// Create an object.
        Insert = "insert",
        /// Replace an object; of an unknown one, create it.
        Update = "update",
        /// Remove an object.
        Delete = "delete",
        /// Ask for an object.
        Query = "query",
        /// Change part of an object.
        Patch = "patch",
        /// Answer or acknowledge the parent message.
        Response = "response",
        /// Tell that the parent message could not be carried out.
        Error = "error",
        /// Send application data to the cloud.
        Upload = "upload",
        /// Tell that the edge is alive.
        Keepalive = "keepalive",
        /// Ask for the membership.
        Get = "get",
        /// Publish on the edge's MQTT.
        Publish = "publish",
        /// Subscribe on the edge's MQTT.
        Subscribe = "subscribe",
        /// End a subscription on the edge's MQTT.
        Unsubscribe = "unsubscribe",
        /// Answer an application request of the metaserver.
        ApplicationResponse = "applicationResponse",
        /// Transport control, answered by the transport itself.
        Config = "config",
        /// Transport control, answered by the transport itself.
        Ping = "ping",
        /// Transport control, answered by the transport itself.
        Pong = "pong",
    }
}

words! {
    /// Which module a message comes from.
    ///
    /// Upstream: `cloud/pkg/common/modules`, `edge/pkg/common/modules`.
    Source {
        /// Cloud: end of the channel.
        CloudHub = "cloudhub",
        /// Cloud: pods, nodes, configuration.
        EdgeController = "edgecontroller",
        /// Cloud: devices.
        DeviceController = "devicecontroller",
        /// Cloud: resynchronisation.
        SyncController = "synccontroller",
        /// Cloud: list and watch for the edge.
        DynamicController = "dynamiccontroller",
        /// Cloud: access rules of service accounts.
        PolicyController = "policycontroller",
        /// Cloud: node tasks.
        TaskManager = "taskmanager",
        /// Cloud: node upgrades for old edges.
        NodeUpgradeController = "nodeupgradejobcontroller",
        /// Cloud: router to MQTT.
        RouterEventBus = "router_eventbus",
        /// Cloud: router to HTTP.
        RouterServiceBus = "router_servicebus",
        /// Cloud: streams.
        CloudStream = "cloudStream",
        /// Edge: end of the channel.
        EdgeHub = "websocket",
        /// Edge: pods.
        Edged = "edged",
        /// Edge: metadata.
        MetaStore = "metamanager",
        /// Edge: the source that upstream writes into acknowledgements of device objects.
        Meta = "meta",
        /// Edge: local API.
        MetaServer = "metaserver",
        /// Edge: twins.
        Twin = "twin",
        /// Edge: MQTT.
        Bus = "bus",
        /// Edge: HTTP.
        ServiceBus = "servicebus",
    }
}

words! {
    /// Which group of modules a message is for.
    Group {
        /// Objects of Kubernetes.
        Resource = "resource",
        /// The same, of old.
        Func = "func",
        /// Twins and membership.
        Twin = "twin",
        /// Application data.
        User = "user",
        /// Metadata of the edge.
        Meta = "meta",
        /// End of the channel on the edge.
        Hub = "hub",
        /// MQTT and HTTP on the edge.
        Bus = "bus",
        /// Node tasks.
        TaskManager = "taskmanager",
        /// List and watch.
        DynamicController = "dynamiccontroller",
        /// End of the channel in the cloud.
        CloudHub = "cloudhub",
    }
}

words! {
    /// Type of a resource, as the second segment of a resource path spells it.
    ///
    /// Upstream: `staging/src/github.com/kubeedge/beehive/pkg/core/model` (resource types).
    ResourceType {
        /// Pod.
        Pod = "pod",
        /// Patch of a pod's status.
        PodPatch = "podpatch",
        /// Status of pods, of old edges.
        PodStatus = "podstatus",
        /// Node.
        Node = "node",
        /// Patch of a node's status.
        NodePatch = "nodepatch",
        /// Status of a node, of old edges.
        NodeStatus = "nodestatus",
        /// ConfigMap.
        ConfigMap = "configmap",
        /// Secret.
        Secret = "secret",
        /// Token of a service account.
        ServiceAccountToken = "serviceaccounttoken",
        /// Access rules of a service account.
        ServiceAccountAccess = "serviceaccountaccess",
        /// Lease.
        Lease = "lease",
        /// Event.
        Event = "event",
        /// PersistentVolume.
        PersistentVolume = "persistentvolume",
        /// PersistentVolumeClaim.
        PersistentVolumeClaim = "persistentvolumeclaim",
        /// VolumeAttachment.
        VolumeAttachment = "volumeattachment",
        /// CertificateSigningRequest.
        CertificateSigningRequest = "certificatesigningrequest",
        /// Device.
        Device = "device",
        /// DeviceModel.
        DeviceModel = "devicemodel",
    }
}
