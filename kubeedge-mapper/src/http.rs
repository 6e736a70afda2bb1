//! Driver for devices with an HTTP interface.
//!
//! Settings of a device (`spec.protocol.configData`; keys in any case, numbers also as text); all are ours, upstream has
//! no such mapper:
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `baseUrl` | what relative URLs of properties follow, `http://` or `https://` | none |
//! | `timeout` | milliseconds for one exchange, connecting included, 1 to 60000 | 5000 |
//! | `headers` | headers of every request: `X-Key=1,X-Other=2`, or an object | none |
//! | `username`, `password` | basic authentication | none |
//! | `token` | bearer authentication | none |
//! | `caFile` | PEM file of the authorities that the server is verified with | those of the system |
//! | `maxBody` | longest answer, in bytes, up to 16777216 | 65536 |
//!
//! Settings of a visitor (`visitors.configData`):
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `url` | where the value is read from with GET, absolute or after `baseUrl` | `baseUrl` |
//! | `pointer` | JSON pointer (RFC 6901) to the value in the answer | the whole answer, without space around it |
//! | `writeUrl` | where values are written to | `url` |
//! | `writeMethod` | `PUT`, `POST` or `PATCH` | `PUT` |
//! | `payload` | template: `{value}`, `{json}` (the value as JSON), `{device}`, `{property}`, `{time}` (ms) | `{value}` |
//! | `contentType` | of what is written | `application/json` or `text/plain`, by the template |
//! | `scale`, `valueOffset`, `bit`, `bits`, `mask`, `enum`, `min`, `max` | see [`Meaning`](crate::convert::Meaning) | none |
//!
//! Every device has one connection at most, which is kept between exchanges. Answers from 200 to 299 are good; 429 and
//! 503 are a busy device, 502 and 504 one that is away behind its gateway, others a refusal. Redirects are not followed.
//! Certificates are always verified.

mod device;
mod settings;

use std::sync::Arc;

use async_trait::async_trait;
use kubeedge_core::{
    device::DeviceInstance,
    mapper::{DriverError, DriverHandle, DriverMaker, Protocol},
    names::SharedClock,
};
use rustls::ClientConfig;
use tokio::sync::OnceCell;

use self::{device::HttpDevice, settings::DeviceSettings};
use crate::{client, settings::Settings};

/// Opens HTTP devices.
#[derive(Clone)]
pub struct HttpDevices {
    clock: SharedClock,
    /// The authorities of the system are many, and read once.
    system: Arc<OnceCell<Arc<ClientConfig>>>,
}

impl HttpDevices {
    /// An opener without connections; `clock` dates the samples.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, system: Arc::default() }
    }

    /// A [`DriverMaker`] for the protocol `http`.
    pub fn maker(clock: SharedClock) -> DriverMaker {
        DriverMaker::of(Self::new(clock))
    }

    async fn tls(
        &self,
        device: &DeviceInstance,
        settings: &DeviceSettings,
    ) -> Result<Option<Arc<ClientConfig>>, DriverError> {
        let keys = Settings::new(&device.config);
        if let Some(path) = &settings.ca_file {
            let pem = tokio::fs::read(path).await.map_err(|error| keys.wrong("caFile", error))?;
            return client::trusting(&pem).map(Some).map_err(|why| keys.wrong("caFile", why));
        }
        if !settings::needs_tls(device, settings) {
            return Ok(None);
        }
        let system = self.system.get_or_try_init(client::trusting_system).await;
        system.map(|config| Some(Arc::clone(config))).map_err(|why| keys.wrong("caFile", why))
    }
}

#[async_trait]
impl Protocol for HttpDevices {
    async fn open(&self, device: DeviceInstance) -> Result<DriverHandle, DriverError> {
        let settings = DeviceSettings::read(&device.config)?;
        let tls = self.tls(&device, &settings).await?;
        Ok(DriverHandle::of(HttpDevice::new(device.id.clone(), settings, tls, Arc::clone(&self.clock))))
    }
}

impl std::fmt::Debug for HttpDevices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpDevices").finish_non_exhaustive()
    }
}
