use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use kubeedge_core::{
    mapper::{Driver, DriverError, Sample, Value, Visitor},
    names::{DeviceId, SharedClock},
};
use rustls::ClientConfig;

use super::settings::{DeviceSettings, Place};
use crate::{
    client::{HttpClient, HttpError},
    convert::{self, ConvertError},
    payload,
};

/// A device behind a URL.
pub(super) struct HttpDevice {
    id: DeviceId,
    settings: DeviceSettings,
    client: HttpClient,
    clock: SharedClock,
}

impl HttpDevice {
    pub(super) fn new(
        id: DeviceId,
        settings: DeviceSettings,
        tls: Option<Arc<ClientConfig>>,
        clock: SharedClock,
    ) -> Self {
        let client = HttpClient::new(tls, settings.timeout, settings.max_body);
        Self { id, settings, client, clock }
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Bytes, DriverError> {
        for (name, value) in &self.settings.headers {
            request.headers_mut().append(name, value.clone());
        }
        let response = self.client.send(request).await.map_err(|error| match error {
            HttpError::TimedOut => DriverError::TimedOut,
            HttpError::Unreachable(why) => DriverError::Offline(why),
            error @ HttpError::TooLong(_) => DriverError::Failed(error.into()),
        })?;
        judge(response)
    }
}

fn judge(response: Response<Bytes>) -> Result<Bytes, DriverError> {
    let status = response.status();
    match status {
        status if status.is_success() => Ok(response.into_body()),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Err(DriverError::Busy),
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            Err(DriverError::Offline(format!("its gateway answers {status}").into()))
        }
        status => {
            let body = String::from_utf8_lossy(response.body());
            let text: String = body.chars().filter(|letter| !letter.is_control()).take(128).collect();
            Err(DriverError::Refused(format!("{status} {}", text.trim()).trim_end().to_owned()))
        }
    }
}

#[async_trait]
impl Driver for HttpDevice {
    async fn read(&self, visitor: Visitor) -> Result<Sample, DriverError> {
        let place = Place::read(&visitor, &self.settings)?;
        let request = Request::builder().method(Method::GET).uri(place.url).body(Full::default());
        let body = self.exchange(request.map_err(|error| DriverError::Failed(error.into()))?).await?;
        let at = self.clock.now();
        let body = if place.pointer.is_none() { body.trim_ascii() } else { &body };
        let value = payload::extract(body, place.pointer.as_deref())
            .and_then(|raw| place.meaning.decode(raw))
            .and_then(|value| convert::coerce(value, visitor.value_type));
        Ok(Sample { value: value.map_err(|why| DriverError::Failed(why.into()))?, at })
    }

    async fn write(&self, visitor: Visitor, value: Value) -> Result<(), DriverError> {
        let place = Place::read(&visitor, &self.settings)?;
        let refused = |why: ConvertError| DriverError::Refused(why.to_string());
        let value = convert::coerce(value, visitor.value_type).map_err(refused)?;
        let raw = place.meaning.encode(&value).map_err(refused)?;
        let body = place.payload.render(&raw, &self.id, &visitor.property, self.clock.now()).map_err(refused)?;
        let request = Request::builder()
            .method(place.method)
            .uri(place.write_url)
            .header(header::CONTENT_TYPE, place.content_type)
            .body(Full::new(Bytes::from(body)));
        self.exchange(request.map_err(|error| DriverError::Failed(error.into()))?).await.map(drop)
    }
}
