//! What the defaults do not tell of the keys.

use kubeedge_core::config::Rules;

/// The highest port.
const PORT: u32 = 65535;

pub(super) const RULES: Rules<'static> = Rules {
    unused: UNUSED,
    free: &[],
    most: &[
        ("embeddedAPI.port", PORT),
        ("modules.admission.port", PORT),
        ("modules.deviceController.commandServer.port", PORT),
        ("modules.cloudHub.websocket.port", PORT),
        ("modules.cloudHub.quic.port", PORT),
        ("modules.cloudHub.https.port", PORT),
    ],
};

/// Keys of KubeEdge that are not used, with all that is under them.
const UNUSED: &[&str] = &[
    "commonConfig",
    "featureGates",
    "kubeAPIConfig.burst",
    "kubeAPIConfig.contentType",
    "kubeAPIConfig.qps",
    "leaderelection",
    "modules.cloudHub.quic.maxIncomingStreams",
    "modules.cloudHub.unixsocket",
    "modules.cloudStream",
    "modules.deviceController.buffer",
    "modules.deviceController.load",
    "modules.dynamicController",
    "modules.edgeController.buffer",
    "modules.edgeController.load",
    "modules.edgeController.nodeUpdateFrequency",
    "modules.iptablesManager",
    "modules.nodeUpgradeJobController",
    "modules.router",
    "modules.taskManager",
];
