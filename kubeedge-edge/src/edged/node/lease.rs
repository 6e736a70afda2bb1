//! The lease of the node: the sign of life that decides whether its pods are moved elsewhere.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kubeedge_core::{
    answer::Answer,
    message::Content,
    resource::{ObjectPath, ResourceType},
    words::Operation,
};
use serde_json::{Value, json};

use super::{FIRST_PAUSE, LONGEST_PAUSE, NodeAgent, NodeError, jittered, warn};

const NAMESPACE: &str = "kube-node-lease";

impl NodeAgent {
    /// Renews the lease, from the begin of a link to its end.
    ///
    /// Whatever goes wrong, the next attempt begins with a query: what the cloud did not clearly give is never taken
    /// for the lease.
    pub(super) async fn keep_lease(&self) {
        let mut lease = None;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.renew(lease.take()).await {
                Ok(renewed) => {
                    lease = Some(renewed);
                    pause = FIRST_PAUSE;
                    tokio::time::sleep(jittered(self.config.lease / 4)).await;
                }
                Err(error) => {
                    warn(&error, "lease is not renewed");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Renews `lease`, or the one that the cloud has, or makes one.
    async fn renew(&self, lease: Option<Value>) -> Result<Value, NodeError> {
        let node = self.config.node.as_str();
        let path = || ObjectPath::namespaced(NAMESPACE, ResourceType::Lease, node);
        let lease = match lease {
            Some(lease) => Some(lease),
            None => match self.ask(Operation::Query, path()?, Content::null()).await? {
                Answer::Refused(status) if status.is_not_found() => None,
                answer => Some(self.lease_of(answer)?),
            },
        };
        let (operation, mut lease) = match lease {
            Some(lease) => (Operation::Update, lease),
            None => (Operation::Insert, self.new_lease().await),
        };
        lease["spec"]["holderIdentity"] = node.into();
        lease["spec"]["leaseDurationSeconds"] = self.config.lease.as_secs().into();
        lease["spec"]["renewTime"] = micro_time(self.clock.now().0).into();
        self.lease_of(self.ask(operation, path()?, Content::json(&lease)?).await?)
    }

    /// The lease in an answer, if it is ours.
    fn lease_of(&self, answer: Answer) -> Result<Value, NodeError> {
        match answer {
            Answer::Object(object) => {
                let lease: Value = object.parse()?;
                let ours = lease["metadata"]["name"] == self.config.node.as_str()
                    && lease["metadata"]["resourceVersion"].is_string()
                    && (lease["spec"].is_object() || lease["spec"].is_null());
                if ours { Ok(lease) } else { Err(NodeError::Strange) }
            }
            Answer::Refused(status) => Err(NodeError::Refused(status)),
            _ => Err(NodeError::Strange),
        }
    }

    async fn new_lease(&self) -> Value {
        let node = self.config.node.as_str();
        let mut lease = json!({
            "metadata": {"name": node, "namespace": NAMESPACE, "creationTimestamp": null},
            "spec": {},
        });
        // The lease goes when the node goes.
        if let Some(uid) = self.known().await.and_then(|known| known["metadata"]["uid"].as_str().map(str::to_owned)) {
            let owner = json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid});
            lease["metadata"]["ownerReferences"] = json!([owner]);
        }
        lease
    }
}

/// A time with the six decimals that Kubernetes wants of a lease.
fn micro_time(millis: i64) -> String {
    let since_epoch = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    let time = Timestamp::from_millisecond(i64::try_from(since_epoch.as_millis()).unwrap_or(0)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn renewal_times_have_six_decimals() {
        assert_eq!(super::micro_time(1_795_231_732_015), "2026-11-21T03:28:52.015000Z");
    }
}
