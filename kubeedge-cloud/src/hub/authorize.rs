//! Upstream's authorization of messages, on top of what is always checked.

use kubeedge_core::{
    answer::{Answer, ApiStatus},
    message::Message,
    names::SharedClock,
    resource::{Resource, ResourceType},
    service::BoxError,
    words::{Group, Operation, Source},
};
use tower::ServiceExt as _;

use super::{FromNode, Uplinks};

/// Whether messages of nodes have to be of a type, and to want an operation on it, that the node authorizer of Kubernetes
/// lets nodes do.
///
/// This comes on top of the checks that are always on: a node speaks for itself only, and touches only what is its own.
///
/// Upstream: `modules.cloudHub.authorization`, `cloud/pkg/cloudhub/authorization`. There, with it off, nothing is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authorization {
    /// Not checked. Upstream: `enable: false`, the default.
    #[default]
    Off,
    /// Denials are logged, and the message is taken all the same. Upstream: `enable: true, debug: true`.
    LogOnly,
    /// What is denied is answered 403 and goes no further; and what EdgeController does for a node, it does in the name of
    /// that node, as user `system:node:<node>` of group `system:nodes`, so that the API server has its say. Upstream:
    /// `enable: true, debug: false`.
    ///
    /// The cloud's own account then needs the right to `impersonate` them.
    Enforce,
}

impl Authorization {
    /// Puts the check before `uplinks`.
    pub(crate) fn guard(self, uplinks: Uplinks, clock: SharedClock) -> Uplinks {
        if self == Self::Off {
            return uplinks;
        }
        Uplinks::new(tower::service_fn(move |from: FromNode| {
            let (uplinks, clock) = (uplinks.clone(), clock.clone());
            async move {
                if let Some(denied) = denied(&from.message) {
                    let (node, resource, operation) = (&from.node, &from.message.resource, &from.message.operation);
                    tracing::warn!(%node, %resource, %operation, enforced = self == Self::Enforce, "{denied}");
                    if self == Self::Enforce {
                        return Ok::<_, BoxError>(refusal(&from, &clock));
                    }
                }
                uplinks.oneshot(from).await
            }
        }))
    }
}

/// Why a message is denied, if it is.
///
/// Upstream denies events and reports of node jobs as well, as it maps them to nothing; a node authorizer allows events,
/// and reports are about the node itself.
fn denied(message: &Message) -> Option<&'static str> {
    use Operation::{Delete, Insert, Patch, Query, Update};
    use ResourceType as Type;
    if matches!(message.source, Source::MetaServer | Source::Twin) {
        return None;
    }
    let asks = matches!(message.operation, Insert | Update | Patch | Query | Delete);
    let Resource::Object(path) = &message.resource else { return None };
    if !asks {
        return None;
    }
    let allowed: &[Operation] = match &path.kind {
        Type::Node => &[Insert, Query, Update, Patch],
        Type::NodePatch | Type::NodeStatus | Type::PodPatch | Type::PodStatus | Type::Event => &[Insert, Update, Patch],
        Type::Pod => &[Insert, Query, Delete],
        Type::ConfigMap
        | Type::Secret
        | Type::ServiceAccountToken
        | Type::PersistentVolume
        | Type::PersistentVolumeClaim
        | Type::VolumeAttachment => &[Query],
        Type::Lease => &[Insert, Query, Update, Patch, Delete],
        Type::CertificateSigningRequest => &[Insert, Query],
        Type::Other(word) if matches!(&**word, "rulestatus" | "volume") => return None,
        _ => return Some("no node may touch this type"),
    };
    (!allowed.contains(&message.operation)).then_some("no node may do this to this type")
}

fn refusal(from: &FromNode, clock: &SharedClock) -> Option<Message> {
    let FromNode { node, message } = from;
    let text = format!("{} is forbidden to node {node}: {}", message.resource, denied(message)?);
    let answer = Answer::Refused(ApiStatus::failure(403, "Forbidden", text));
    let reply = Message::new(
        clock.now(),
        Source::EdgeController,
        Group::Resource,
        Operation::Response,
        message.resource.clone(),
    );
    Some(reply.answering(&message.id).content(answer.to_object_resp().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use kubeedge_core::{
        names::{NodeName, SystemClock},
        wire::json,
    };
    use serde_json::Value;

    use super::*;

    fn message(source: &str, operation: &str, resource: &str) -> Message {
        let frame = format!(
            r#"{{"header":{{"msg_id":"1","timestamp":0}},"route":{{"source":"{source}","group":"meta","operation":"{operation}","resource":"{resource}"}}}}"#
        );
        json::decode(&frame).unwrap()
    }

    #[test]
    fn nodes_do_what_a_node_authorizer_lets_them() {
        for (operation, resource) in [
            ("insert", "null/node/edge-1"),
            ("patch", "null/nodepatch/edge-1"),
            ("patch", "default/podpatch/web"),
            ("update", "default/podstatus"),
            ("delete", "default/pod/web"),
            ("query", "default/secret/s"),
            ("query", "default/serviceaccounttoken/default"),
            ("update", "kube-node-lease/lease/edge-1"),
            ("insert", "default/event/e"),
            ("response", "default/anything/x"),
            ("error", "default/anything/x"),
            ("upload", "a/b/c"),
            ("keepalive", "node"),
            ("query", "k8s/ca.crt"),
            ("UpdateNodeActionStatus", "operations.kubeedge.io/v1alpha2/nodeupgradejob/j/node/edge-1"),
            ("query", "default/volume/v"),
            ("update", "default/rulestatus/r"),
        ] {
            assert_eq!(denied(&message("edged", operation, resource)), None, "{operation} {resource}");
        }
        for (operation, resource) in [
            ("delete", "null/node/edge-1"),
            ("update", "default/pod/web"),
            ("update", "default/configmap/c"),
            ("delete", "default/secret/s"),
            ("insert", "default/deployment/d"),
            ("query", "default/service/s"),
            ("delete", "default/certificatesigningrequest/c"),
        ] {
            assert!(denied(&message("edged", operation, resource)).is_some(), "{operation} {resource}");
        }
        assert_eq!(denied(&message("metaserver", "insert", "default/deployment/d")), None);
        assert_eq!(denied(&message("twin", "update", "default/device/d")), None);
    }

    #[tokio::test]
    async fn a_denial_is_answered_or_only_logged() {
        let passed = Arc::new(Mutex::new(0));
        let inner = || {
            let passed = passed.clone();
            crate::hub::served_by(move |_| {
                *passed.lock().unwrap() += 1;
                std::future::ready(None)
            })
        };
        let ask = async |authorization: Authorization, resource: &str| {
            let guarded = authorization.guard(inner(), Arc::new(SystemClock));
            let node = NodeName::new("edge-1").unwrap();
            guarded.oneshot(FromNode { node, message: message("edged", "query", resource) }).await.unwrap()
        };
        let refused = ask(Authorization::Enforce, "default/service/s").await.unwrap();
        let content: Value = refused.content.parse().unwrap();
        assert_eq!(content["Err"]["ErrStatus"]["code"], 403);
        assert_eq!(
            content["Err"]["ErrStatus"]["message"],
            "default/service/s is forbidden to node edge-1: no node may touch this type"
        );
        assert_eq!(refused.parent.unwrap().as_str(), "1");
        assert_eq!(*passed.lock().unwrap(), 0);
        assert_eq!(ask(Authorization::Enforce, "default/secret/s").await, None);
        assert_eq!(ask(Authorization::LogOnly, "default/service/s").await, None);
        assert_eq!(ask(Authorization::Off, "default/service/s").await, None);
        assert_eq!(*passed.lock().unwrap(), 3);
    }
}
