//! From what a file says to the typed keys, with the defaults as the template.

use std::fmt;

use serde_json::{Map, Value};

use super::{ConfigError, keys::EdgeCoreConfig};

/// A key without effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// Path of the key, such as `modules.edgeStream`.
    pub key: String,
    /// Whether KubeEdge has such a key; if not, it may be misspelled.
    pub known: bool,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.known { "has no effect here" } else { "is not a known key" };
        write!(f, "{} {what}", self.key)
    }
}

/// Keys of KubeEdge that are not used, with all that is under them.
const UNUSED: &[&str] = &[
    "apiVersion",
    "kind",
    "edgecoreVersion",
    "featureGates",
    "database.aliasName",
    "modules.edgeHub.websocket.readDeadline",
    "modules.edgeHub.quic",
    "modules.eventBus.mqttQOS",
    "modules.eventBus.mqttRetain",
    "modules.metaManager.contextSendGroup",
    "modules.metaManager.contextSendModule",
    "modules.metaManager.metaServer",
    "modules.serviceBus",
    "modules.deviceTwin.dmiSockPath",
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

/// Keys whose keys are the user's.
const FREE: &str = "modules.edged.nodeLabels";

/// Said in every file, with nothing to tell.
const SILENT: &[&str] = &["apiVersion", "kind"];

/// Lays `given` over the defaults.
pub(super) fn read(given: Value) -> Result<(EdgeCoreConfig, Vec<ConfigWarning>), ConfigError> {
    let failed = |error: serde_json::Error| ConfigError::Syntax(error.to_string());
    let mut template = serde_json::to_value(EdgeCoreConfig::default()).map_err(failed)?;
    let mut warnings = Vec::new();
    overlay(&mut template, given, "", &mut warnings)?;
    Ok((serde_json::from_value(template).map_err(failed)?, warnings))
}

fn overlay(
    template: &mut Value,
    given: Value,
    path: &str,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<(), ConfigError> {
    let name = if path.is_empty() { "the file" } else { path };
    let wrong = |given: &Value, why: &str| Err(ConfigError::value(name, given, why));
    match (template, given) {
        // A section or a value that is written and left empty.
        (_, Value::Null) => Ok(()),
        (Value::Object(template), Value::Object(given)) if path == FREE => labels(template, given),
        (Value::Object(template), Value::Object(given)) => {
            for (key, value) in given {
                let known = template.keys().find(|known| known.eq_ignore_ascii_case(&key)).cloned();
                let child = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                match known.and_then(|known| Some((child(&known), template.get_mut(&known)?))) {
                    Some((path, template)) => overlay(template, value, &path, warnings)?,
                    None => warnings.extend(warning(child(&key))),
                }
            }
            Ok(())
        }
        (Value::Object(_), other) => {
            wrong(&other, if path.is_empty() { "a file of sections is needed" } else { "it must be a section" })
        }
        (template @ Value::Bool(_), given @ Value::Bool(_))
        | (template @ Value::String(_), given @ Value::String(_)) => {
            *template = given;
            Ok(())
        }
        (template @ Value::Number(_), given) => match given.as_u64() {
            Some(number) if u32::try_from(number).is_ok() => {
                *template = given;
                Ok(())
            }
            _ => wrong(&given, "it must be a whole number of 0 or more"),
        },
        (Value::Bool(_), other) => wrong(&other, "it must be true or false"),
        (_, other) => wrong(&other, "it must be text"),
    }
}

fn labels(template: &mut Map<String, Value>, given: Map<String, Value>) -> Result<(), ConfigError> {
    for (key, value) in given {
        match value {
            Value::Null => drop(template.insert(key, Value::String(String::new()))),
            Value::String(_) => drop(template.insert(key, value)),
            other => return Err(ConfigError::value(&format!("{FREE}.{key}"), other, "it must be text")),
        }
    }
    Ok(())
}

fn warning(key: String) -> Option<ConfigWarning> {
    let is = |known: &&str| {
        key.get(..known.len()).is_some_and(|start| start.eq_ignore_ascii_case(known))
            && matches!(key.as_bytes().get(known.len()), None | Some(b'.'))
    };
    if SILENT.iter().any(is) {
        return None;
    }
    let known = UNUSED.iter().any(is);
    Some(ConfigWarning { key, known })
}
