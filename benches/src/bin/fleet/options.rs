//! What the command line says.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Holds thousands of light edges in one process, and measures the cloud that they connect to.
///
/// Each edge has a certificate of its own, a TLS connection of its own and a real session; it acknowledges what it gets,
/// and checks that no version goes backwards. What is measured goes to standard output, one JSON object per scenario,
/// and as a table to standard error.
///
/// Certificates come from the bootstrap of the cloud (`--certificates`), or are signed here with the key of the CA
/// (`--kubeconfig` for the Secret `casecret`, or `--ca-cert` and `--ca-key`), which takes seconds for 19,000 nodes.
#[derive(Parser)]
#[command(name = "fleet")]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) fleet: FleetOptions,
    #[command(subcommand)]
    pub(crate) scenario: Scenario,
}

#[derive(Args)]
pub(crate) struct FleetOptions {
    /// WebSocket port of the cloud
    #[arg(long, default_value = "127.0.0.1:10000", global = true)]
    pub(crate) cloud: String,
    /// HTTPS port of the cloud, for certificates
    #[arg(long, default_value = "127.0.0.1:10002", global = true)]
    pub(crate) https: String,
    /// Join token; without one it is read from the Secret `tokensecret`
    #[arg(long, global = true)]
    pub(crate) token: Option<String>,
    /// Kubeconfig of the cluster
    #[arg(long, global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Folder in which certificates of the bootstrap are kept, a folder for each node
    #[arg(long, global = true)]
    pub(crate) certificates: Option<PathBuf>,
    /// Certificate of the CA, PEM, for signing here
    #[arg(long, requires = "ca_key", global = true)]
    pub(crate) ca_cert: Option<PathBuf>,
    /// Key of the CA, SEC1 PEM, for signing here
    #[arg(long, requires = "ca_cert", global = true)]
    pub(crate) ca_key: Option<PathBuf>,
    /// How many edges
    #[arg(long, default_value_t = 1000, global = true)]
    pub(crate) nodes: usize,
    /// Number of the first edge
    #[arg(long, default_value_t = 0, global = true)]
    pub(crate) first: usize,
    /// Names are this and a number of five digits
    #[arg(long, default_value = "edge-", global = true)]
    pub(crate) name_prefix: String,
    /// Addresses of this host from which the edges connect in turn; each has ports for about 28,000
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.2,127.0.0.3,127.0.0.4", global = true)]
    pub(crate) source: Vec<IpAddr>,
    /// How the edges connect
    #[arg(long, value_enum, default_value_t = Link::WebSocket, global = true)]
    pub(crate) transport: Link,
    /// Most dials per second; 0 for as fast as possible
    #[arg(long, default_value_t = 0.0, global = true)]
    pub(crate) rate: f64,
    /// Dials at a time
    #[arg(long, default_value_t = 256, global = true)]
    pub(crate) dials: usize,
    /// Seconds between keepalives
    #[arg(long, default_value = "15", value_parser = seconds, global = true)]
    pub(crate) keepalive: Duration,
    /// Each edge registers its Node when it connects for the first time
    #[arg(long, global = true)]
    pub(crate) register: bool,
    /// Seconds between renewals of a node's lease; 0 for none
    #[arg(long, default_value = "0", value_parser = seconds, global = true)]
    pub(crate) lease: Duration,
    /// Process of the cloud, for its memory and CPU time
    #[arg(long, global = true)]
    pub(crate) server_pid: Option<u32>,
    /// Seconds without a message after which the fleet counts as settled
    #[arg(long, default_value = "3", value_parser = seconds, global = true)]
    pub(crate) quiet: Duration,
    /// Seconds after which a scenario that does not get there is given up
    #[arg(long, default_value = "300", value_parser = seconds, global = true)]
    pub(crate) patience: Duration,
    /// A word that is repeated in the output, for telling runs apart
    #[arg(long, default_value = "", global = true)]
    pub(crate) label: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Link {
    /// JSON over WebSocket, as KubeEdge has it
    #[value(name = "websocket")]
    WebSocket,
    /// QUIC, to a cloud of ours; `--cloud` names its UDP port. All edges share eight sockets
    #[value(name = "quic")]
    Quic,
}

#[derive(Subcommand)]
pub(crate) enum Scenario {
    /// All connect as fast as they may: sessions per second, and the time until all are settled
    Storm,
    /// All connect and stay: memory of the cloud per session
    Idle {
        /// Seconds for which they stay
        #[arg(long, default_value = "60", value_parser = seconds)]
        hold: Duration,
    },
    /// Objects are written and arrive: messages per second, time to the edge, and time to the durable acknowledgement
    ///
    /// Needs `--kubeconfig`. Makes Nodes, and in the namespace `fleet` ConfigMaps and a Pod on each node that refers to
    /// them; then writes each ConfigMap once per round.
    Downlink {
        #[command(flatten)]
        objects: ObjectOptions,
        /// How often each object is written
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Devices are made at once: time until all have their DeviceStatus and are known at their nodes; then they report:
    /// confirmations and writes per second
    ///
    /// Needs `--kubeconfig`. Makes the devices, and their model, in the namespace `fleet`.
    Devices {
        #[command(flatten)]
        devices: DeviceOptions,
    },
    /// Nodes that have everything connect again: messages and bytes until it is quiet
    ///
    /// Needs `--kubeconfig`. The edges connect through a relay in this process that counts bytes, so `--cloud` has to
    /// be on loopback and to have a certificate for 127.0.0.1.
    Reconnect {
        #[command(flatten)]
        objects: ObjectOptions,
    },
    /// Peers that do harm, and what good nodes notice of them
    ///
    /// With `--kubeconfig`, objects are written for all nodes meanwhile, the bad ones included.
    Hostile {
        #[command(flatten)]
        hostile: HostileOptions,
        #[command(flatten)]
        objects: ObjectOptions,
    },
}

/// Objects for the nodes.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ObjectOptions {
    /// How many ConfigMaps
    #[arg(long, default_value_t = 100)]
    pub(crate) objects: usize,
    /// How many nodes need each of them
    #[arg(long, default_value_t = 10)]
    pub(crate) users: usize,
    /// Size of each
    #[arg(long, default_value_t = 1024)]
    pub(crate) bytes: usize,
    /// Writes at a time
    #[arg(long, default_value_t = 16)]
    pub(crate) writers: usize,
    /// Leave the objects where they are
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Devices of the nodes.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct DeviceOptions {
    /// How many devices
    #[arg(long, default_value_t = 10_000)]
    pub(crate) devices: usize,
    /// Seconds between two reports of a device; 0 for no reports
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub(crate) every: Duration,
    /// Seconds for which they report
    #[arg(long, default_value = "20", value_parser = seconds)]
    pub(crate) hold: Duration,
    /// Writes at a time
    #[arg(long, default_value_t = 16)]
    pub(crate) writers: usize,
    /// Leave the devices where they are
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Peers that do harm.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct HostileOptions {
    /// Nodes that never read, and as many that never acknowledge
    #[arg(long, default_value_t = 50)]
    pub(crate) mute: usize,
    /// Peers that begin a TLS handshake and never go on
    #[arg(long, default_value_t = 1000)]
    pub(crate) half_open: usize,
    /// Address from which those connect
    #[arg(long, default_value = "127.0.0.9")]
    pub(crate) hostile_source: IpAddr,
    /// Seconds for which is looked at good nodes, before and meanwhile
    #[arg(long, default_value = "20", value_parser = seconds)]
    pub(crate) watch: Duration,
    /// Objects written per second meanwhile
    #[arg(long, default_value_t = 20.0)]
    pub(crate) writes: f64,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }
}
