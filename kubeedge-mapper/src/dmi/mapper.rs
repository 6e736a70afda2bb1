//! The role of a mapper: a process of its own beside an EdgeCore, which may be ours or in Go.
//!
//! [`Mapper::serve`] registers, again and again until EdgeCore is there and each time that it was restarted, and takes
//! the devices of the answer; later ones come as calls. They go to a [`MapperHost`], whose reports go back through
//! [`Mapper::twins`].
//!
//! A device may come before its model, and is held until then. What is told again changes nothing.
//!
//! ```no_run
//! use std::sync::Arc;
//! use kubeedge_core::{mapper::DriverMaker, names::SystemClock};
//! use kubeedge_mapper::{MapperConfig, MapperHost, dmi::{DmiMapperConfig, Mapper}};
//!
//! # async fn run(driver: DriverMaker, shutdown: tokio_util::sync::CancellationToken) {
//! let config = DmiMapperConfig::new("modbus-mapper", "modbus", "/etc/kubeedge/modbus.sock", Arc::new(SystemClock));
//! let mapper = Mapper::new(config);
//! let (host, polling) = MapperHost::new(MapperConfig::new(mapper.twins()), [("modbus".to_owned(), driver)]);
//! tokio::join!(mapper.serve(host, shutdown.clone()), polling.run(shutdown));
//! # }
//! ```
//!
//! Upstream: `staging/src/github.com/kubeedge/mapper-framework`. There a mapper ends when EdgeCore is not there, and one
//! that asks for a device ends it.

mod catalog;
mod config;
mod link;
mod serve;
mod twins;

use std::{fmt, sync::Arc};

use kubeedge_core::{service::Causes, twin::TwinHandle};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

pub use self::{catalog::Catalog, config::DmiMapperConfig};
use self::{link::Link, serve::Devices, twins::DmiTwins};
use super::{
    rpc::{ManagerCalls, MapperService},
    socket::{Dialed, Socket, dial},
    wire,
};
use crate::{MapperHost, backoff::Retry};

/// A mapper that is not yet running.
#[must_use = "nothing runs until it serves"]
pub struct Mapper {
    config: DmiMapperConfig,
    link: Arc<Link>,
    twins: DmiTwins,
    catalog: Catalog,
}

impl Mapper {
    /// A mapper as `config` says.
    pub fn new(config: DmiMapperConfig) -> Self {
        let link = Arc::new(Link::new(config.call_timeout));
        let twins = DmiTwins::new(Arc::clone(&link), config.clock.clone());
        Self { config, link, twins, catalog: Catalog::default() }
    }

    /// The twins at EdgeCore, for the [`MapperConfig`](crate::MapperConfig) of the host.
    ///
    /// Reports are calls to EdgeCore; while there is none they fail with an error that passes. Desired values are those of
    /// the devices that EdgeCore told of. `desire` changes them in this process only, until EdgeCore tells others: DMI has
    /// no call for it. The removal of a reported value is not told, for the same reason.
    pub fn twins(&self) -> TwinHandle {
        TwinHandle::of(self.twins.clone())
    }

    /// The devices and models that EdgeCore told of.
    pub fn catalog(&self) -> Catalog {
        self.catalog.clone()
    }

    /// Runs until `shutdown`: listens, registers, and sets the devices at `host`. Calls under way have a second to end.
    ///
    /// # Cancel safety
    /// Dropping the future ends all calls; the host keeps its devices.
    pub async fn serve(self, host: MapperHost, shutdown: CancellationToken) {
        let devices = Arc::new(Devices::new(self.catalog.clone(), self.twins.clone(), host));
        tokio::join!(self.listen(devices.clone(), &shutdown), async {
            let _stopped: Option<()> = shutdown.run_until_cancelled(self.stay_registered(&devices)).await;
            self.link.set(None);
        });
    }

    async fn listen(&self, devices: Arc<Devices>, shutdown: &CancellationToken) {
        let mut retry = Retry::default();
        let socket = loop {
            match Socket::bind(&self.config.socket) {
                Ok(socket) => break socket,
                Err(error) => {
                    tracing::error!(error = %Causes(&error), "EdgeCore cannot call, trying again");
                    if shutdown.run_until_cancelled(self.pause(&mut retry)).await.is_none() {
                        return;
                    }
                }
            }
        };
        socket.serve(MapperService::new(devices), shutdown.clone()).await;
    }

    async fn stay_registered(&self, devices: &Devices) {
        let mut retry = Retry::default();
        loop {
            match self.register(devices).await {
                Ok(dialed) => {
                    retry.clear();
                    let closed = dialed.closed.clone();
                    self.link.set(Some(dialed));
                    closed.cancelled().await;
                    self.link.set(None);
                    tracing::warn!("EdgeCore has closed the connection");
                }
                Err(why) if retry.is_running() => tracing::debug!(why, "mapper is not registered"),
                Err(why) => tracing::warn!(why, "mapper is not registered, it is tried again and again"),
            }
            self.pause(&mut retry).await;
        }
    }

    async fn register(&self, devices: &Devices) -> Result<Dialed, String> {
        let (config, limit) = (&self.config, self.config.call_timeout);
        let silent = |_| "EdgeCore does not answer".to_owned();
        let dialed =
            timeout(limit, dial(&config.edgecore)).await.map_err(silent)?.map_err(|error| error.to_string())?;
        let mapper = wire::MapperInfo {
            name: config.name.clone(),
            version: config.version.clone(),
            api_version: config.api_version.clone(),
            protocol: config.protocol.clone(),
            address: config.socket.as_os_str().as_encoded_bytes().to_vec(),
            state: "ok".to_owned(),
        };
        let request = wire::MapperRegisterRequest { with_data: true, mapper: Some(mapper) };
        let answer = timeout(limit, ManagerCalls(&dialed.calls).mapper_register(request)).await.map_err(silent)?;
        let answer = answer.map_err(|status| status.message().to_owned())?;
        let (count, models) = (answer.device_list.len(), answer.model_list.len());
        tracing::info!(mapper = config.name, devices = count, models, "registered at EdgeCore");
        devices.replace(answer);
        Ok(dialed)
    }

    async fn pause(&self, retry: &mut Retry) {
        let now = Instant::now().into_std();
        retry.failed(self.config.backoff, now);
        sleep_until(retry.at(now).into()).await;
    }
}

impl fmt::Debug for Mapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapper").field("config", &self.config).finish_non_exhaustive()
    }
}
