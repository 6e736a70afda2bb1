//! Leases, as they are in the API.

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kubeedge_core::names::{NodeName, UnixMillis};
use ring::digest::{SHA256, digest};

use super::instance::InstanceName;

/// Where all of them are, with the Secrets of the cloud.
pub(super) const NAMESPACE: &str = "kubeedge";
/// What a Lease is for: `node` or `cloudcore`. Those of others have no such label.
pub(super) const LABEL: &str = "kubeedge.io/lease";
const OF_NODE: &str = "node";
const OF_INSTANCE: &str = "cloudcore";
/// The name of the node, as that of its Lease may be cut.
const NODE: &str = "kubeedge.io/node";
/// Longest name of an object.
const LONGEST: usize = 253;
/// Of the digest in a name that was cut: 16 hexadecimal digits.
const DIGEST: usize = 8;

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Node(NodeName, Held),
    /// An instance, and the version of its Lease.
    Instance(InstanceName, u64),
}

/// Who has a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) holder: InstanceName,
    /// Version of the Lease: tells which of two claims is the later one.
    pub(super) revision: u64,
    /// How often the node has gone from one instance to another.
    pub(super) transitions: i32,
    /// Since when this one has it.
    pub(super) since: Option<MicroTime>,
}

/// What can be read of a Lease; nothing if it is not one of ours.
pub(super) fn read(lease: &Lease) -> Option<Reading> {
    let metadata = &lease.metadata;
    let revision = metadata.resource_version.as_deref()?.parse().ok()?;
    let spec = lease.spec.as_ref()?;
    let holder = InstanceName::new(spec.holder_identity.as_deref()?).ok()?;
    match metadata.labels.as_ref()?.get(LABEL)?.as_str() {
        OF_NODE => {
            let node = NodeName::new(metadata.annotations.as_ref()?.get(NODE)?).ok()?;
            // Whoever writes another node's name into a Lease has not got that node by it.
            (metadata.name.as_deref()? == node_lease_name(&node)).then_some(())?;
            let transitions = spec.lease_transitions.unwrap_or_default();
            Some(Reading::Node(node, Held { holder, revision, transitions, since: spec.acquire_time.clone() }))
        }
        OF_INSTANCE => Some(Reading::Instance(holder, revision)),
        _ => None,
    }
}

/// `node-<node>`; where that is too long, cut, with a digest.
pub(super) fn node_lease_name(node: &NodeName) -> String {
    let whole = format!("node-{node}");
    if whole.len() <= LONGEST {
        return whole;
    }
    let digest = digest(&SHA256, node.as_str().as_bytes());
    let digest = digest.as_ref().first_chunk::<DIGEST>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let cut = whole.get(..LONGEST - 2 * DIGEST - 1).unwrap_or(&whole).trim_end_matches(['.', '-']);
    format!("{cut}-{digest:016x}")
}

pub(super) fn instance_lease_name(instance: &InstanceName) -> String {
    format!("cloudcore-{instance}")
}

/// The claim of `holder` for a node that was `before` somebody's.
pub(super) fn claim(node: &NodeName, holder: &InstanceName, before: Option<&Held>, now: UnixMillis) -> Lease {
    let taken = before.is_some_and(|before| before.holder != *holder);
    let since = before.filter(|_| !taken).and_then(|before| before.since.clone()).or_else(|| time(now));
    let transitions = before.map_or(0, |before| before.transitions.saturating_add(i32::from(taken)));
    let mut lease = lease(node_lease_name(node), OF_NODE, holder, now);
    lease.metadata.annotations = Some([(NODE.to_owned(), node.to_string())].into());
    // Only if nobody has claimed it since.
    lease.metadata.resource_version = before.map(|before| before.revision.to_string());
    if let Some(spec) = &mut lease.spec {
        spec.acquire_time = since;
        spec.lease_transitions = Some(transitions);
    }
    lease
}

/// The Lease of an instance, valid for so many seconds.
pub(super) fn of_instance(instance: &InstanceName, seconds: i32, now: UnixMillis) -> Lease {
    let mut lease = lease(instance_lease_name(instance), OF_INSTANCE, instance, now);
    if let Some(spec) = &mut lease.spec {
        spec.lease_duration_seconds = Some(seconds);
    }
    lease
}

fn lease(name: String, what: &str, holder: &InstanceName, now: UnixMillis) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(NAMESPACE.to_owned()),
            labels: Some([(LABEL.to_owned(), what.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_string()),
            renew_time: time(now),
            ..LeaseSpec::default()
        }),
    }
}

/// None for a clock beyond all calendars.
fn time(now: UnixMillis) -> Option<MicroTime> {
    Timestamp::from_millisecond(now.0).ok().map(MicroTime)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn written(mut lease: Lease, revision: u64) -> Lease {
        lease.metadata.resource_version = Some(revision.to_string());
        lease
    }

    fn held(reading: Option<Reading>) -> (NodeName, Held) {
        match reading {
            Some(Reading::Node(node, held)) => (node, held),
            other => panic!("no Lease of a node: {other:?}"),
        }
    }

    #[test]
    fn a_claim_says_who_and_how_often() {
        let node = NodeName::new("edge-1.site").unwrap();
        let (one, other) = (InstanceName::new("a-1").unwrap(), InstanceName::new("b-1").unwrap());
        let (read_node, first) = held(read(&written(claim(&node, &one, None, UnixMillis(1000)), 7)));
        assert_eq!((&read_node, &first.holder, first.revision, first.transitions), (&node, &one, 7, 0));
        let again = claim(&node, &one, Some(&first), UnixMillis(2000));
        assert_eq!(again.metadata.resource_version.as_deref(), Some("7"));
        let (_, again) = held(read(&written(again, 8)));
        assert_eq!((again.transitions, &again.since), (0, &first.since), "it was ours all the time");
        let (_, taken) = held(read(&written(claim(&node, &other, Some(&again), UnixMillis(3000)), 9)));
        assert_eq!((&taken.holder, taken.transitions), (&other, 1));
        assert_ne!(taken.since, first.since);
    }

    #[test]
    fn every_node_has_a_lease_of_its_own_with_a_legal_name() {
        let long = |last: &str| {
            let label = "a".repeat(63);
            NodeName::new(format!("{label}.{label}.{label}.{}{last}", "b".repeat(60))).unwrap()
        };
        let names = [long("c"), long("d"), NodeName::new("edge-1").unwrap()].map(|node| node_lease_name(&node));
        assert_eq!(names[2], "node-edge-1");
        assert_ne!(names[0], names[1]);
        for name in &names {
            // The same rule.
            assert!(NodeName::new(name).is_ok(), "{name}");
        }
        let lease = written(claim(&long("c"), &InstanceName::new("a").unwrap(), None, UnixMillis(0)), 1);
        assert_eq!(held(read(&lease)).0, long("c"));
    }

    #[test]
    fn leases_of_others_are_none_of_ours() {
        let node = NodeName::new("edge-1").unwrap();
        let mut lease = written(claim(&node, &InstanceName::new("a").unwrap(), None, UnixMillis(0)), 1);
        lease.metadata.name = Some("node-edge-2".into());
        assert_eq!(read(&lease), None, "it names another node");
        lease.metadata.labels = None;
        assert_eq!(read(&lease), None);
        assert_eq!(read(&Lease::default()), None);
    }
}
