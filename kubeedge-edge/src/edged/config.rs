//! What is set about [`Edged`](super::Edged).

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use kubeedge_core::names::NodeName;

/// The version that nodes report, in the form that programs look for: that of the kubelet whose behaviour this is, and
/// that of KubeEdge.
///
/// Upstream: `edge/pkg/edged/edged.go`; cloud and dashboards split it at `-kubeedge-`.
pub const KUBELET_VERSION: &str = "v1.32.10-kubeedge-v1.23.0";

/// Settings of [`Edged`](super::Edged). The defaults are those of upstream.
///
/// Upstream: `staging/src/github.com/kubeedge/api/apis/componentconfig/edgecore/v1alpha2` (`Edged`).
#[derive(Clone, Debug)]
pub struct EdgedConfig {
    /// Name of the node.
    pub node: NodeName,
    /// Where pods' volumes lie: `<dir>/pods/<uid>/volumes/..`, as the kubelet has it.
    pub root_dir: PathBuf,
    /// Where containers' logs lie: `<dir>/<namespace>_<pod>_<uid>/<container>/<restart>.log`.
    pub pod_logs_dir: PathBuf,
    /// Address of the node, told as `InternalIP` and as `hostIP` of pods; not told if unknown.
    pub node_ip: Option<IpAddr>,
    /// Labels of the node besides the usual ones, which they override.
    pub labels: BTreeMap<String, String>,
    /// Whether the node registers itself; default true.
    pub register_node: bool,
    /// Port of the kubelet API that the node tells; default 10350.
    pub kubelet_port: u16,
    /// How often the status of the node is looked at; default 10 s.
    pub status_update: Duration,
    /// How often it is sent even if nothing changed; default 5 min.
    pub status_report: Duration,
    /// How long a lease is good; default 40 s. It is renewed every quarter of that.
    pub lease: Duration,
    /// How many pods the node takes; default 110.
    pub max_pods: u32,
    /// Memory that must be left before the node tells `MemoryPressure`; default 100 MiB.
    pub memory_reserve: u64,
    /// Percentage of the disk that must be left before the node tells `DiskPressure`; default 10.
    pub disk_reserve_percent: u8,
    /// First delay between restarts of a crashing container; default 10 s. It doubles up to `max_back_off`.
    pub back_off: Duration,
    /// Longest delay between restarts; default 5 min. Twice that without a crash and it starts over.
    pub max_back_off: Duration,
    /// How often a missing ConfigMap or Secret is asked for again; default 10 s.
    pub retry: Duration,
    /// How often each pod is looked at even if nothing happens; default 60 s.
    pub resync: Duration,
    /// Stops pods' containers when the driver ends, within this grace; `None`, the default, leaves them running.
    pub stop_pods_on_shutdown: Option<Duration>,
}

impl EdgedConfig {
    /// Default settings for `node`, with its files under `root_dir`.
    pub fn new(node: NodeName, root_dir: impl Into<PathBuf>, pod_logs_dir: impl Into<PathBuf>) -> Self {
        Self {
            node,
            root_dir: root_dir.into(),
            pod_logs_dir: pod_logs_dir.into(),
            node_ip: None,
            labels: BTreeMap::new(),
            register_node: true,
            kubelet_port: 10350,
            status_update: Duration::from_secs(10),
            status_report: Duration::from_mins(5),
            lease: Duration::from_secs(40),
            max_pods: 110,
            memory_reserve: 100 * 1024 * 1024,
            disk_reserve_percent: 10,
            back_off: Duration::from_secs(10),
            max_back_off: Duration::from_mins(5),
            retry: Duration::from_secs(10),
            resync: Duration::from_mins(1),
            stop_pods_on_shutdown: None,
        }
    }

    /// With the address of the node.
    pub fn node_ip(mut self, ip: IpAddr) -> Self {
        self.node_ip = Some(ip);
        self
    }

    /// With further labels of the node.
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.labels = labels;
        self
    }

    /// Whether containers are stopped when the driver ends, and within which grace.
    pub fn stop_pods_on_shutdown(mut self, grace: Option<Duration>) -> Self {
        self.stop_pods_on_shutdown = grace;
        self
    }
}
