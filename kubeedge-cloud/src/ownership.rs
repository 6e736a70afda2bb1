//! Which instance of the cloud has the session of a node.
//!
//! Several instances may serve the same cluster, with a balancer before them. A node is connected to one of them, and only
//! that one may write down what the node has acknowledged. Who that is stands in a Lease of the node, which each new
//! session claims with a single write; nothing is renewed per node. Each instance has a Lease too, and renews it; by that
//! the others know whether it lives.
//!
//! The newest connection of a node wins, as within one instance: whoever sees in the watch that a node was claimed after
//! its own claim closes its session and drops what it still had to write. An instance that cannot claim, as the API is away,
//! goes on serving its sessions, and its records wait. After a crash nothing has to expire: the nodes connect to another
//! instance, which claims them.
//!
//! Upstream has no such thing: there every instance creates and updates the records of all nodes. The annotation `cloudcore`
//! of the Node is kept as upstream has it, for those who look for it.

mod claims;
mod holdings;
mod instance;
mod instances;
mod lease;
mod leases;

pub use self::{
    instance::{InstanceName, InvalidInstance},
    leases::{LeaseTimes, NodeLeases},
};
