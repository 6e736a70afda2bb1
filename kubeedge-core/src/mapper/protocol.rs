use async_trait::async_trait;

use super::{Discovered, DriverError, DriverHandle};
use crate::{
    device::{ConfigData, DeviceInstance},
    service::seam,
};

/// A protocol that devices are reached by.
#[async_trait]
pub trait Protocol: Send + Sync + 'static {
    /// Opens a driver on a device: resolved once the settings are understood, not when the device is there.
    ///
    /// # Errors
    /// [`DriverError::Config`] if no retry helps until the settings are changed.
    async fn open(&self, device: DeviceInstance) -> Result<DriverHandle, DriverError>;

    /// Searches for devices where `scope` says: the settings of a device without what tells one device from another.
    ///
    /// # Errors
    /// [`DriverError::Unsupported`] from protocols that cannot search, the default.
    async fn discover(&self, scope: ConfigData) -> Result<Vec<Discovered>, DriverError> {
        drop(scope);
        Err(DriverError::Unsupported)
    }
}

/// A call on a protocol, as layers see it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ProtocolRequest {
    /// See [`Protocol::open`].
    Open(Box<DeviceInstance>),
    /// See [`Protocol::discover`].
    Discover(ConfigData),
}

/// An answer of a protocol, as layers see it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ProtocolResponse {
    /// To an opening.
    Opened(DriverHandle),
    /// To a search.
    Discovered(Vec<Discovered>),
}

seam! {
    /// [`Protocol`] as a tower service.
    service ProtocolService of Protocol;
    /// Opens drivers, and searches for devices. Cheap to clone.
    handle DriverMaker;
    request ProtocolRequest; response ProtocolResponse; error DriverError;
    call(protocol, request) {
        match request {
            ProtocolRequest::Open(device) => protocol.open(*device).await.map(ProtocolResponse::Opened),
            ProtocolRequest::Discover(scope) => protocol.discover(scope).await.map(ProtocolResponse::Discovered),
        }
    }
}

impl DriverMaker {
    /// Opens a driver on a device; see [`Protocol::open`].
    pub async fn open(&self, device: DeviceInstance) -> Result<DriverHandle, DriverError> {
        match self.ask(ProtocolRequest::Open(Box::new(device))).await? {
            ProtocolResponse::Opened(driver) => Ok(driver),
            ProtocolResponse::Discovered(_) => Err(DriverError::Failed("not an answer to open".into())),
        }
    }

    /// Searches for devices; see [`Protocol::discover`].
    pub async fn discover(&self, scope: ConfigData) -> Result<Vec<Discovered>, DriverError> {
        match self.ask(ProtocolRequest::Discover(scope)).await? {
            ProtocolResponse::Discovered(found) => Ok(found),
            ProtocolResponse::Opened(_) => Err(DriverError::Failed("not an answer to discover".into())),
        }
    }
}

/// A [`DriverMaker`] from a function, for protocols that cannot search.
pub fn driver_maker<F, Fut>(open: F) -> DriverMaker
where
    F: Fn(DeviceInstance) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<DriverHandle, DriverError>> + Send + 'static,
{
    DriverMaker::of(Opens(open))
}

struct Opens<F>(F);

#[async_trait]
impl<F, Fut> Protocol for Opens<F>
where
    F: Fn(DeviceInstance) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<DriverHandle, DriverError>> + Send + 'static,
{
    async fn open(&self, device: DeviceInstance) -> Result<DriverHandle, DriverError> {
        (self.0)(device).await
    }
}
