use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use kubeedge_core::{
    device::{ConfigData, DeviceInstance},
    mapper::{DriverError, Visitor},
};

use crate::{client, convert::Meaning, payload::Template, settings::Settings};

/// Settings of a device.
#[derive(Clone, Debug)]
pub(super) struct DeviceSettings {
    pub(super) base: Option<String>,
    pub(super) timeout: Duration,
    pub(super) headers: HeaderMap,
    pub(super) ca_file: Option<String>,
    pub(super) max_body: usize,
}

impl DeviceSettings {
    pub(super) fn read(config: &ConfigData) -> Result<Self, DriverError> {
        let settings = Settings::new(config);
        let base = settings.text("baseUrl")?;
        if let Some(base) = &base {
            url(settings, "baseUrl", base)?;
        }
        let mut headers = HeaderMap::new();
        for (name, value) in settings.pairs("headers")? {
            let header = (name.parse::<HeaderName>(), value.parse::<HeaderValue>());
            let (Ok(name), Ok(value)) = header else { return Err(settings.wrong("headers", "is no header of HTTP")) };
            headers.append(name, value);
        }
        if let Some(mut value) = authorization(settings)? {
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        Ok(Self {
            base,
            timeout: Duration::from_millis(settings.whole("timeout", 1, 60_000_u64)?.unwrap_or(5000)),
            headers,
            ca_file: settings.text("caFile")?,
            max_body: settings.whole("maxBody", 1, 16 * 1024 * 1024)?.unwrap_or(65_536_u32) as usize,
        })
    }
}

fn authorization(settings: Settings<'_>) -> Result<Option<HeaderValue>, DriverError> {
    if let Some(token) = settings.text("token")? {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        return value.map(Some).map_err(|_| secret("token"));
    }
    let Some(name) = settings.text("username")? else { return Ok(None) };
    let password = settings.text("password")?.unwrap_or_default();
    let value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))));
    value.map(Some).map_err(|_| secret("password"))
}

/// A secret is not repeated in an error.
fn secret(key: &str) -> DriverError {
    let (field, value) = (key.to_owned(), "secret".to_owned());
    DriverError::Config { field, value, reason: "has characters that a header cannot have".to_owned() }
}

/// Settings of a visitor.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) url: Uri,
    pub(super) pointer: Option<String>,
    pub(super) write_url: Uri,
    pub(super) method: Method,
    pub(super) payload: Template,
    pub(super) content_type: HeaderValue,
    pub(super) meaning: Meaning,
}

impl Place {
    pub(super) fn read(visitor: &Visitor, device: &DeviceSettings) -> Result<Self, DriverError> {
        let settings = Settings::new(&visitor.config);
        let place = |key| match (settings.text(key)?, &device.base) {
            (Some(own), _) if own.contains("://") => url(settings, key, &own).map(Some),
            (Some(own), Some(base)) => {
                let whole = format!("{}/{}", base.trim_end_matches('/'), own.trim_start_matches('/'));
                url(settings, key, &whole).map(Some)
            }
            (Some(_), None) => Err(settings.wrong(key, "needs the baseUrl of the device, or must be a whole URL")),
            (None, _) => Ok(None),
        };
        let base = || match &device.base {
            Some(base) => url(settings, "url", base),
            None => Err(settings.wrong("url", "where to read from is needed")),
        };
        let read_url = match place("url")? {
            Some(url) => url,
            None => base()?,
        };
        let write_url = place("writeUrl")?.unwrap_or_else(|| read_url.clone());
        let method = match settings.text("writeMethod")?.map(|method| method.to_ascii_uppercase()).as_deref() {
            None | Some("PUT") => Method::PUT,
            Some("POST") => Method::POST,
            Some("PATCH") => Method::PATCH,
            Some(_) => return Err(settings.wrong("writeMethod", "must be PUT, POST or PATCH")),
        };
        let payload = Template::new(settings.text("payload")?);
        let content_type = match settings.text("contentType")? {
            Some(text) => text.parse().map_err(|_| settings.wrong("contentType", "is no content type"))?,
            None if payload.is_json() => HeaderValue::from_static("application/json"),
            None => HeaderValue::from_static("text/plain; charset=utf-8"),
        };
        let (pointer, meaning) = (settings.pointer("pointer")?, Meaning::read(settings)?);
        Ok(Self { url: read_url, pointer, write_url, method, payload, content_type, meaning })
    }
}

fn url(settings: Settings<'_>, key: &str, text: &str) -> Result<Uri, DriverError> {
    let uri: Uri = text.parse().map_err(|error: http::uri::InvalidUri| settings.wrong(key, error))?;
    client::check(&uri).map_err(|why| settings.wrong(key, why))?;
    Ok(uri)
}

pub(super) fn needs_tls(device: &DeviceInstance, settings: &DeviceSettings) -> bool {
    let is_tls = |uri: &Uri| uri.scheme_str() == Some("https");
    device.properties.iter().any(|property| {
        Place::read(&property.visitor, settings).is_ok_and(|place| is_tls(&place.url) || is_tls(&place.write_url))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kubeedge_core::mapper::ValueType;
    use serde_json::{Value, json};

    use super::*;

    fn device(config: &Value) -> Result<DeviceSettings, String> {
        DeviceSettings::read(config.as_object().unwrap()).map_err(|error| error.to_string())
    }

    fn place(base: &Value, config: &Value) -> Result<Place, String> {
        let config = config.as_object().unwrap().clone().into();
        let visitor = Visitor { property: "p".parse().unwrap(), value_type: ValueType::Float, config };
        Place::read(&visitor, &device(&json!({"baseUrl": base})).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn urls_follow_the_base() {
        let base = json!("http://10.0.0.2:8080/api/");
        let read = place(&base, &json!({"url": "/temp?unit=C", "writeUrl": "https://other/x"})).unwrap();
        assert_eq!(read.url, "http://10.0.0.2:8080/api/temp?unit=C");
        assert_eq!(read.write_url, "https://other/x");
        assert_eq!(place(&base, &json!({})).unwrap().url, "http://10.0.0.2:8080/api/");
        assert_eq!(
            place(&json!(""), &json!({"url": "x"})).unwrap_err(),
            "setting url is \"x\": needs the baseUrl of the device, or must be a whole URL"
        );
        assert!(place(&json!(""), &json!({"url": "ftp://x/"})).unwrap_err().contains("must start with http://"));
        assert!(place(&base, &json!({"writeMethod": "DELETE"})).unwrap_err().contains("writeMethod"));
    }

    #[test]
    fn logins_and_headers_are_checked_and_secrets_not_repeated() {
        let read = device(&json!({"headers": "X-A=1", "username": "u", "password": "p"})).unwrap();
        assert_eq!(read.headers["authorization"], "Basic dTpw");
        assert_eq!(read.headers["x-a"], "1");
        assert_eq!(device(&json!({"token": "t"})).unwrap().headers["authorization"], "Bearer t");
        assert!(device(&json!({"headers": "bad name=1"})).unwrap_err().contains("headers"));
        let error = device(&json!({"token": "a\nb"})).unwrap_err();
        assert_eq!(error, "setting token is secret: has characters that a header cannot have");
        assert!(device(&json!({"baseUrl": "http://u:p@h/"})).unwrap_err().contains("login"));
    }
}
