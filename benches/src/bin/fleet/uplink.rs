//! What edges send on their own.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Node,
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kubeedge_core::{
    message::{Content, Message},
    names::{DeviceId, NodeName, SystemClock, WallClock as _},
    resource::{ObjectPath, Resource, ResourceType},
    words::{Group, Operation, Source},
};
use tokio::time::Instant;

const LEASES: &str = "kube-node-lease";
/// Makes a node an edge node.
pub(crate) const EDGE_LABEL: &str = "node-role.kubernetes.io/edge";

/// Which requests edges make. A period of zero stands for none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UplinkPlan {
    /// Register the Node at first.
    pub(crate) register: bool,
    /// Renew its lease so often.
    pub(crate) lease: Duration,
    /// Send a `ping` of the channel so often, which the cloud answers without any controller.
    pub(crate) ping: Duration,
    /// Report each device so often.
    pub(crate) report: Duration,
}

/// The requests of one session.
pub(crate) struct Uplink {
    register: bool,
    lease: Option<Instant>,
    leased: bool,
    ping: Option<Instant>,
    report: Option<Instant>,
    reported: usize,
    begin: Instant,
}

impl Uplink {
    /// `first` tells the first session of an edge from later ones.
    pub(crate) fn new(plan: &UplinkPlan, first: bool, now: Instant) -> Self {
        let start = |period: Duration| (!period.is_zero()).then(|| now + period.mul_f64(fastrand::f64()));
        Self {
            register: plan.register && first,
            lease: start(plan.lease),
            leased: !first,
            ping: start(plan.ping),
            report: start(plan.report),
            reported: 0,
            begin: now,
        }
    }

    /// When there is something to send.
    pub(crate) fn due(&self) -> Instant {
        let register = self.register.then_some(self.begin);
        let next = [register, self.lease, self.ping, self.report].into_iter().flatten().min();
        next.unwrap_or_else(|| self.begin + Duration::from_secs(86_400))
    }

    /// What is to be sent now; call again after what was sent. `devices` are those of the node.
    pub(crate) fn next(
        &mut self,
        plan: &UplinkPlan,
        node: &NodeName,
        devices: &[DeviceId],
        now: Instant,
    ) -> Option<Message> {
        if std::mem::take(&mut self.register) {
            return request(
                Operation::Insert,
                ObjectPath::cluster(ResourceType::Node, node.as_str()).ok()?,
                &plain(node),
            );
        }
        if self.lease.is_some_and(|due| due <= now) {
            self.lease = Some(now + plan.lease);
            let path = ObjectPath::namespaced(LEASES, ResourceType::Lease, node.as_str()).ok()?;
            let operation =
                if std::mem::replace(&mut self.leased, true) { Operation::Update } else { Operation::Insert };
            return request(operation, path, &lease(node));
        }
        if self.ping.is_some_and(|due| due <= now) {
            self.ping = Some(now + plan.ping);
            let wall = SystemClock.now();
            let ping = Message::new(wall, Source::EdgeHub, Group::Resource, Operation::Ping, Resource::Keepalive);
            return Some(ping.content(Content::text("ping")));
        }
        if let Some(due) = self.report.filter(|due| *due <= now) {
            let Some(device) = devices.get(self.reported % devices.len().max(1)) else {
                self.report = Some(now + plan.report);
                return None;
            };
            // The reports of a period are spread over it, and what is late is made up for.
            self.report = Some(due + plan.report / u32::try_from(devices.len()).unwrap_or(u32::MAX));
            self.reported += 1;
            return report(device, self.reported);
        }
        None
    }
}

/// The property that devices have.
pub(crate) const PROPERTY: &str = "level";

fn report(device: &DeviceId, value: usize) -> Option<Message> {
    let now = SystemClock.now();
    let twin = serde_json::json!({ PROPERTY: {
        "actual": { "value": value.to_string(), "metadata": { "timestamp": now.0 } }, "optional": true,
        "metadata": { "type": "int" }, "actual_version": { "cloud": 0, "edge": value },
    } });
    let content = serde_json::json!({ "event_id": "", "timestamp": now.0, "twin": twin });
    let resource = Resource::DeviceTwin(device.clone());
    let message = Message::new(now, Source::Twin, Group::Resource, Operation::Update, resource);
    Some(message.content(Content::json(&content).ok()?))
}

fn request(operation: Operation, path: ObjectPath, object: &impl serde::Serialize) -> Option<Message> {
    let message = Message::new(SystemClock.now(), Source::Edged, Group::Meta, operation, path);
    Some(message.content(Content::json(object).ok()?))
}

/// The Node that an edge registers.
pub(crate) fn plain(node: &NodeName) -> Node {
    let mut object = Node::default();
    object.metadata.name = Some(node.to_string());
    object.metadata.labels = Some(BTreeMap::from([
        (EDGE_LABEL.to_owned(), String::new()),
        ("kubernetes.io/hostname".to_owned(), node.to_string()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
    ]));
    object
}

fn lease(node: &NodeName) -> Lease {
    let mut lease = Lease::default();
    lease.metadata.name = Some(node.to_string());
    lease.metadata.namespace = Some(LEASES.to_owned());
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(node.to_string()),
        lease_duration_seconds: Some(40),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    });
    lease
}
