//! What the defaults do not tell of the keys.

use kubeedge_core::config::Rules;

/// Keys of KubeEdge that are not used, with all that is under them.
const UNUSED: &[&str] = &[
    "edgecoreVersion",
    "featureGates",
    "database.aliasName",
    "modules.edgeHub.websocket.readDeadline",
    "modules.edgeHub.quic.readDeadline",
    "modules.metaManager.contextSendGroup",
    "modules.metaManager.contextSendModule",
    "modules.metaManager.metaServer",
    "modules.serviceBus",
    "modules.dbTest",
    "modules.taskManager",
    "modules.edgeStream",
    "modules.edged.customInterfaceName",
    "modules.edged.experimentalMounterPath",
    "modules.edged.experimentalNodeAllocatableIgnoreEvictionThreshold",
    "modules.edged.maxContainerCount",
    "modules.edged.maxPerPodContainerCount",
    "modules.edged.minimumGCAge",
    "modules.edged.podSandboxImage",
    "modules.edged.registerNodeNamespace",
    "modules.edged.registerSchedulable",
    "modules.edged.reportEvent",
    "modules.edged.runtimeCgroups",
    "modules.edged.seccompDefault",
    "modules.edged.tailoredKubeletConfig",
    "modules.edged.windowsPriorityClass",
    "modules.edged.windowsService",
];

/// What the defaults do not tell of `edgecore.yaml`.
pub(super) const RULES: Rules<'static> = Rules { unused: UNUSED, free: &["modules.edged.nodeLabels"], most: &[] };
