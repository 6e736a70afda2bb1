#[cfg(feature = "dmi")]
use std::path::PathBuf;
use std::{fmt, sync::Arc};

use kubeedge_core::{
    bus::BusHandle,
    layer::OutboxLayer,
    mapper::DriverMaker,
    message::Message,
    meta::{MetaError, MetaHandle},
    names::{InvalidName, NodeName, SharedClock, SystemClock},
    outbox::OutboxLimits,
    resource::Resource,
    service::BoxError,
    transport::{CloudEndpoint, TransportHandle},
    uplink::Inbound,
    words::Group,
};
#[cfg(feature = "dmi")]
use kubeedge_mapper::dmi::{DmiConfig, DmiHost};
use kubeedge_mapper::{MapperConfig, MapperHost};
use kubeedge_twin::{DeviceTwins, TwinsConfig};
use tower::Layer as _;

use super::{
    handle::EdgeNodeHandle,
    parts::{Parts, Stage},
    quiet::QuietBus,
};
use crate::{
    bus::CloudBridge,
    commands::Commands,
    devices::DeviceBinder,
    dispatch::Dispatcher,
    edged::{Edged, EdgedConfig, PodRuntime},
    hub::{HubConfig, HubDriver, OutboxConfig, OutboxSender},
};

/// Where an edge node begins; see the [module](super).
#[derive(Debug)]
pub struct EdgeNode;

impl EdgeNode {
    /// A node called `name`, a lower-case DNS subdomain, without parts yet.
    pub fn builder(name: impl Into<String>) -> EdgeNodeBuilder {
        EdgeNodeBuilder {
            name: name.into(),
            server: None,
            project: None,
            transport: None,
            store: None,
            bus: None,
            drivers: Vec::new(),
            #[cfg(feature = "dmi")]
            dmi: None,
            pods: None,
            clock: Arc::new(SystemClock),
            hub: Box::new(|config| config),
            outbox: OutboxConfig::default(),
            outbox_limits: OutboxLimits::default(),
            twins: Box::new(|config| config),
            mapper: Box::new(|config| config),
            groups: Vec::new(),
        }
    }
}

type Adjust<T> = Box<dyn FnOnce(T) -> T + Send>;

/// Parts of a node that is not yet running.
#[must_use = "nothing runs until it is spawned"]
pub struct EdgeNodeBuilder {
    name: String,
    server: Option<String>,
    project: Option<String>,
    transport: Option<TransportHandle>,
    store: Option<MetaHandle>,
    bus: Option<BusHandle>,
    drivers: Vec<(String, DriverMaker)>,
    #[cfg(feature = "dmi")]
    dmi: Option<PathBuf>,
    pods: Option<(EdgedConfig, Arc<dyn PodRuntime>)>,
    clock: SharedClock,
    hub: Adjust<HubConfig>,
    outbox: OutboxConfig,
    outbox_limits: OutboxLimits,
    twins: Adjust<TwinsConfig>,
    mapper: Adjust<MapperConfig>,
    groups: Vec<(Group, Inbound)>,
}

/// Why a node was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// A part without which there is no node was not given.
    #[error("an edge node needs {0}")]
    Missing(&'static str),
    /// The name cannot be that of a node.
    #[error("edge node cannot have that name")]
    Name(#[from] InvalidName),
    /// The pods are set up for another node.
    #[error("pods are set up for node {pods}, not for {node}")]
    OtherNode {
        /// The node of the pods.
        pods: NodeName,
        /// This node.
        node: NodeName,
    },
    /// The store could not be read.
    #[error("edge node cannot read its store")]
    Store(#[from] MetaError),
}

impl EdgeNodeBuilder {
    /// `host:port` of the CloudHub; required.
    pub fn endpoint(mut self, server: impl Into<String>) -> Self {
        self.server = Some(server.into());
        self
    }

    /// Project id; default [`CloudEndpoint::DEFAULT_PROJECT`].
    pub fn project(mut self, project: impl Into<String>) -> Self {
        self.project = Some(project.into());
        self
    }

    /// What dials the cloud; required.
    pub fn transport(mut self, transport: TransportHandle) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Where everything is kept; required. The caller closes it after the node was shut down.
    pub fn meta_store(mut self, store: MetaHandle) -> Self {
        self.store = Some(store);
        self
    }

    /// Where applications publish and listen; without one twins are used through their handle only.
    pub fn event_bus(mut self, bus: BusHandle) -> Self {
        self.bus = Some(bus);
        self
    }

    /// A driver for devices whose `protocolName` is `protocol`. Without any driver nothing is polled.
    pub fn driver(mut self, protocol: impl Into<String>, driver: DriverMaker) -> Self {
        self.drivers.push((protocol.into(), driver));
        self
    }

    /// Listens at `socket` for mappers that are processes of their own; devices whose protocol no [driver](Self::driver)
    /// speaks go to them. Folder and mode of the socket are as [`DmiConfig::socket`] says.
    #[cfg(feature = "dmi")]
    pub fn dmi(mut self, socket: impl Into<PathBuf>) -> Self {
        self.dmi = Some(socket.into());
        self
    }

    /// Registers the node and runs its pods in `runtime`; without it the node has no Node object and no pods.
    pub fn pods(mut self, config: EdgedConfig, runtime: Arc<dyn PodRuntime>) -> Self {
        self.pods = Some((config, runtime));
        self
    }

    /// The wall clock; default that of the operating system.
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Changes limits and times of the hub.
    pub fn hub(mut self, adjust: impl FnOnce(HubConfig) -> HubConfig + Send + 'static) -> Self {
        self.hub = Box::new(adjust);
        self
    }

    /// Limits and times of the outbox.
    pub fn outbox(mut self, config: OutboxConfig) -> Self {
        self.outbox = config;
        self
    }

    /// How much may wait for the cloud. The node keeps its store within them by an [`OutboxLayer`], so whoever else leaves
    /// messages for the cloud does it through [`EdgeNodeHandle::store`].
    pub fn outbox_limits(mut self, limits: OutboxLimits) -> Self {
        self.outbox_limits = limits;
        self
    }

    /// Changes limits of the twins.
    pub fn twins(mut self, adjust: impl FnOnce(TwinsConfig) -> TwinsConfig + Send + 'static) -> Self {
        self.twins = Box::new(adjust);
        self
    }

    /// Changes times of the mapper.
    pub fn mapper(mut self, adjust: impl FnOnce(MapperConfig) -> MapperConfig + Send + 'static) -> Self {
        self.mapper = Box::new(adjust);
        self
    }

    /// Hands messages of `group` to `service`; see [`Dispatcher::group`].
    pub fn group(mut self, group: Group, service: Inbound) -> Self {
        self.groups.push((group, service));
        self
    }

    /// Wires the parts and starts them on the present tokio runtime. Resolves when the twins are loaded; the link comes
    /// up by itself.
    ///
    /// # Errors
    /// [`SpawnError`] names what is missing or does not fit; then nothing runs.
    pub async fn spawn(self) -> Result<EdgeNodeHandle, SpawnError> {
        let name = NodeName::new(&self.name)?;
        let server = self.server.ok_or(SpawnError::Missing("an endpoint"))?;
        let transport = self.transport.ok_or(SpawnError::Missing("a transport"))?;
        let store = self.store.ok_or(SpawnError::Missing("a meta store"))?;
        if let Some((pods, _)) = &self.pods
            && pods.node != name
        {
            return Err(SpawnError::OtherNode { pods: pods.node.clone(), node: name });
        }
        let clock = self.clock;
        let mut endpoint = CloudEndpoint::new(server, name.clone());
        if let Some(project) = self.project {
            endpoint = endpoint.project(project);
        }

        let limited = OutboxLayer::new(self.outbox_limits);
        let store = MetaHandle::new(limited.layer(store));
        let bus = self.bus.clone().unwrap_or_else(|| BusHandle::of(QuietBus));
        let twins = (self.twins)(TwinsConfig::new(name.clone(), store.clone(), bus, clock.clone()));
        let (device_twins, twins_driver) = DeviceTwins::open(twins).await?;
        let twins = device_twins.handle();

        let mapper = (!self.drivers.is_empty())
            .then(|| MapperHost::new((self.mapper)(MapperConfig::new(twins.clone())), self.drivers));
        let (mapper, mapper_driver) = mapper.unzip();
        let commands = Commands::new(store.clone(), twins.clone(), mapper.clone(), clock.clone());
        let (of_twins, commands) = commands.serve(membership(device_twins.clone()));

        let mut dispatcher = Dispatcher::new(store.clone(), clock.clone());
        dispatcher = dispatcher.group(Group::Twin, of_twins);
        let mut bridge = None;
        if let Some(bus) = &self.bus {
            let (inbound, carrier) = CloudBridge::new(store.clone(), bus.clone(), clock.clone());
            dispatcher = dispatcher.group(Group::User, inbound);
            bridge = Some(carrier);
        }
        for (group, service) in self.groups {
            dispatcher = dispatcher.group(group, service);
        }
        let config = (self.hub)(HubConfig::new(endpoint));
        let (uplink, hub) = HubDriver::new(config, transport, dispatcher.into_inbound(), clock.clone());
        let outbox_sender = OutboxSender::new(self.outbox, store.clone(), uplink.clone()).drops(limited.drops());
        let outbox = outbox_sender.depth();

        let mut parts = Parts::new();
        parts.start(Stage::Link, "hub", |stop| hub.run(stop));
        parts.start(Stage::Link, "outbox", |stop| outbox_sender.run(stop));
        parts.start(Stage::Tell, "twins", |stop| twins_driver.run(stop));
        if let Some(bridge) = bridge {
            parts.start(Stage::Tell, "event bus", |stop| bridge.run(stop));
        }
        if let Some(driver) = mapper_driver {
            parts.start(Stage::Work, "mapper", |stop| driver.run(stop));
        }
        let (bus, link) = (self.bus.clone(), uplink.clone());
        parts.start(Stage::Work, "commands", |stop| commands.run(bus, link, stop));
        let devices = DeviceBinder::new(name.clone(), store.clone(), device_twins.clone(), mapper);
        #[cfg(feature = "dmi")]
        let devices = match self.dmi {
            Some(socket) => {
                let (host, driver) = DmiHost::new(DmiConfig::new(socket, store.clone(), twins.clone()));
                parts.start(Stage::Work, "dmi", |stop| driver.run(stop));
                devices.dmi(host)
            }
            None => devices,
        };
        parts.start(Stage::Work, "devices", |stop| devices.run(stop));
        let pods = self.pods.map(|(config, runtime)| {
            let (pods, driver) = Edged::new(config, store.clone(), uplink.clone(), runtime, clock);
            parts.start(Stage::Work, "pods", |stop| driver.run(stop));
            pods
        });
        let (bus, ended) = (self.bus, parts.ended());
        Ok(EdgeNodeHandle { name, store, bus, uplink, device_twins, twins, outbox, pods, ended, parts })
    }
}

impl fmt::Debug for EdgeNodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeNodeBuilder")
            .field("name", &self.name)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// Serves messages of group `twin`. They are not acknowledged: the cloud does not wait for it.
fn membership(twins: DeviceTwins) -> Inbound {
    Inbound::new(tower::service_fn(move |message: Message| {
        let twins = twins.clone();
        async move {
            match &message.resource {
                Resource::Membership | Resource::MembershipDetail => {
                    let change = twins.handle_membership(&message).await.map_err(BoxError::from)?;
                    tracing::debug!(added = change.added.len(), removed = change.removed.len(), "membership changed");
                }
                other => tracing::debug!(resource = %other, "message for the twins that is none"),
            }
            Ok(None)
        }
    }))
}
