//! The REST API of the mapper framework, as a service that the embedder serves on a listener of his own.
//!
//! All routes are GET and answer JSON with `apiVersion`, `statusCode` and `timeStamp`; `X-Correlation-ID` is echoed.
//!
//! | route | what |
//! |---|---|
//! | `/api/v1/ping` | whether the mapper runs |
//! | `/api/v1/device/{namespace}/{name}/{property}` | reads a property now |
//! | `/api/v1/devicemethod/{namespace}/{name}` | the methods of a device |
//! | `/api/v1/devicemethod/{namespace}/{name}/{method}/{property}/{data}` | writes a property now |
//! | `/api/v1/meta/model/{namespace}/{name}` | the model of a device |
//! | `/api/v1/database/{namespace}/{name}` | 503: no database is connected |
//!
//! Errors are 500 and text, as upstream has them: `Get device data error: ...`. Reads and writes go through
//! [`MapperHost::read`] and [`MapperHost::write`]: one exchange at a time per device, with the deadline of the host, and
//! writes are told to its audit with the origin `rest`, or `rest:` and the correlation id.
//!
//! Nobody is asked who he is, as upstream does not; so listen on a loopback address if not for a reason, and put layers
//! that know better before the service. Upstream listens on 0.0.0.0:7777. A write that a page in a browser asks for is
//! refused with 403: it is a GET, so any page could.
//!
//! Upstream: `pkg/httpserver` of the mapper framework.

mod answer;
mod serve;

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use kubeedge_core::{
    device::{DeviceMethod, DeviceModelSpec},
    names::{DeviceId, PropertyName, SharedClock},
    service::Causes,
};
use serde_json::{Map, Value as Json, json};
use tower::Service;

use self::answer::Answer;
use crate::host::{DemandError, MapperHost};

/// Header that names a request across programs.
const CORRELATION: &str = "x-correlation-id";

/// What the API tells of devices beyond what the host knows.
pub trait Catalogue: Send + Sync + 'static {
    /// The methods of a device; `None` if there is no such device.
    fn methods(&self, device: &DeviceId) -> Option<Vec<DeviceMethod>>;

    /// Name and spec of the model of a device.
    fn model(&self, device: &DeviceId) -> Option<(String, Arc<DeviceModelSpec>)>;
}

/// The REST API. Cheap to clone; a service for requests with any body.
#[derive(Clone)]
pub struct RestApi {
    host: MapperHost,
    catalogue: Arc<dyn Catalogue>,
    clock: SharedClock,
}

impl RestApi {
    /// The API of `host`; `clock` dates the answers.
    pub fn new(host: MapperHost, catalogue: impl Catalogue, clock: SharedClock) -> Self {
        Self { host, catalogue: Arc::new(catalogue), clock }
    }

    /// Answers a request, of which only the head counts.
    pub async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let correlation = headers.get(CORRELATION).filter(|id| id.len() <= 256).cloned();
        let answer = if method == Method::GET {
            self.route(path, headers, correlation.as_ref()).await
        } else {
            Answer::Text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served".to_owned())
        };
        let mut response = answer.into_response(self.clock.now());
        if let Some(id) = correlation {
            response.headers_mut().insert(CORRELATION, id);
        }
        response
    }

    async fn route(&self, path: &str, headers: &HeaderMap, correlation: Option<&HeaderValue>) -> Answer {
        let Some(parts) = path.strip_prefix("/api/v1/").and_then(decoded) else { return Answer::not_found() };
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts[..] {
            ["ping"] => Answer::message("This is v1 API, the server is running normally."),
            ["device", namespace, name, property] => {
                Answer::of(self.read(namespace, name, property).await, "Get device data error")
            }
            ["devicemethod", namespace, name] => Answer::of(self.methods(namespace, name), "Get device method error"),
            ["devicemethod", namespace, name, method, property, data] => {
                if is_from_a_page(headers) {
                    return Answer::Text(StatusCode::FORBIDDEN, "pages may not write to devices".to_owned());
                }
                let origin = match correlation.and_then(|id| id.to_str().ok()) {
                    Some(id) => format!("rest:{id}"),
                    None => "rest".to_owned(),
                };
                let written = self.write(namespace, name, method, property, data, origin).await;
                Answer::of(written, "Write device data error")
            }
            ["meta", "model", namespace, name] => Answer::of(self.model(namespace, name), "Get device error"),
            ["database", _, _] => {
                Answer::Text(StatusCode::SERVICE_UNAVAILABLE, "Database service is not available".to_owned())
            }
            _ => Answer::not_found(),
        }
    }

    async fn read(&self, namespace: &str, name: &str, property: &str) -> Result<Answer, String> {
        let (id, of) = (device(namespace, name)?, self::property(property)?);
        let reading = self.host.read(&id, &of).await.map_err(|error| told(&error))?;
        Ok(Answer::data(json!({
            "DeviceName": name, "PropertyName": property, "Namespace": namespace,
            "Value": reading.text, "Type": reading.value_type.twin_type(), "TimeStamp": reading.at.0,
        })))
    }

    fn methods(&self, namespace: &str, name: &str) -> Result<Answer, String> {
        let id = device(namespace, name)?;
        let instance = self.host.device(&id);
        let methods = self.catalogue.methods(&id).ok_or_else(|| told(&DemandError::UnknownDevice(id.clone())))?;
        let parameter = |property: &String| {
            let of_type = property
                .parse::<PropertyName>()
                .ok()
                .and_then(|name| Some(instance.as_ref()?.property(&name)?.visitor.value_type.twin_type()));
            json!({"PropertyName": property, "ValueType": of_type.unwrap_or("string")})
        };
        let methods = methods.iter().map(|method| {
            json!({
                "Name": method.name,
                "Path": format!("/api/v1/devicemethod/{namespace}/{name}/{}/{{propertyName}}/{{data}}", method.name),
                "Parameters": method.property_names.iter().map(parameter).collect::<Vec<_>>(),
            })
        });
        Ok(Answer::data(json!({"Methods": methods.collect::<Vec<_>>()})))
    }

    async fn write(
        &self,
        namespace: &str,
        name: &str,
        method: &str,
        property: &str,
        data: &str,
        origin: String,
    ) -> Result<Answer, String> {
        let (id, of) = (device(namespace, name)?, self::property(property)?);
        let methods = self.catalogue.methods(&id).ok_or_else(|| told(&DemandError::UnknownDevice(id.clone())))?;
        let known = methods.iter().find(|known| known.name == method);
        let known = known.ok_or_else(|| format!("device {id} has no method {method}"))?;
        if !known.property_names.iter().any(|name| name == property) {
            return Err(format!("method {method} of device {id} does not write {property}"));
        }
        self.host.write(&id, &of, data, origin).await.map_err(|error| told(&error))?;
        Ok(Answer::message(format!("Write data {data} to device {id} successfully.")))
    }

    fn model(&self, namespace: &str, name: &str) -> Result<Answer, String> {
        let id = device(namespace, name)?;
        let (model, spec) = self.catalogue.model(&id).ok_or_else(|| told(&DemandError::UnknownDevice(id.clone())))?;
        let properties = spec.properties.iter().map(|property| {
            json!({
                "name": property.name, "dataType": property.value_type.twin_type(), "description": property.description,
                "accessMode": property.access_mode, "minimum": property.minimum, "maximum": property.maximum,
                "unit": property.unit,
            })
        });
        let mut fields = Map::new();
        fields.insert("id".to_owned(), json!(format!("{namespace}/{model}")));
        fields.insert("name".to_owned(), json!(model));
        fields.insert("namespace".to_owned(), json!(namespace));
        fields.insert("description".to_owned(), json!(""));
        fields.insert("properties".to_owned(), Json::Array(properties.collect()));
        Ok(Answer::Json(fields))
    }
}

impl std::fmt::Debug for RestApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RestApi").finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for RestApi {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (api, (head, _)) = (self.clone(), request.into_parts());
        Box::pin(async move { Ok(api.answer(&head.method, head.uri.path(), &head.headers).await) })
    }
}

fn device(namespace: &str, name: &str) -> Result<DeviceId, String> {
    format!("{namespace}/{name}").parse().map_err(|error: kubeedge_core::names::InvalidName| error.to_string())
}

fn property(name: &str) -> Result<PropertyName, String> {
    name.parse().map_err(|error: kubeedge_core::names::InvalidName| error.to_string())
}

fn told(error: &DemandError) -> String {
    Causes(error).to_string()
}

/// Browsers say so, programs do not.
fn is_from_a_page(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    headers.contains_key(http::header::ORIGIN) || site.is_some_and(|site| site != b"none")
}

/// The segments of a path, each percent-decoded; `None` if one is no text.
fn decoded(path: &str) -> Option<Vec<String>> {
    let segment = |text: &str| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            bytes.push(match (first, after) {
                (b'%', [high, low, after @ ..]) => {
                    rest = after;
                    let digit =
                        |letter: &u8| char::from(*letter).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                    digit(high)? << 4 | digit(low)?
                }
                (b'%', _) => return None,
                (byte, _) => *byte,
            });
        }
        String::from_utf8(bytes).ok()
    };
    path.split('/').map(segment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_by_segment() {
        assert_eq!(decoded("a/b%2Fc/%C3%A4"), Some(vec!["a".into(), "b/c".into(), "ä".into()]));
        assert_eq!(decoded("a%2"), None);
        assert_eq!(decoded("a%zz"), None);
        assert_eq!(decoded("%ff"), None);
    }
}
