use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::Full;
use kubeedge_core::{
    device::{PushMethod, push::HttpPush},
    mapper::DriverError,
};
use rustls::ClientConfig;

use super::{Publisher, Pushed, Route, Target, time_text};
use crate::client::{self, HttpClient, HttpError};

/// Longest time for one value, if the property does not say.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What a server answers is not looked at.
const MAX_ANSWER: usize = 64 * 1024;

/// Carries out `http`: POST of the form `<property>=<value>&time=YYYY-MM-DD hh:mm:ss` to
/// `<hostName>:<port><requestPath>`, `http://` if `hostName` has no scheme. Times are UTC.
///
/// The form is upstream's to the byte, but characters of a value that would break it (`&`, `=`, `+`, `%`, control
/// characters) are percent-encoded.
///
/// Upstream: `data/publish/http` of the mapper framework.
#[derive(Default)]
pub struct HttpPublisher {
    tls: Option<Arc<ClientConfig>>,
    clients: Mutex<HashMap<String, Weak<HttpClient>>>,
}

impl HttpPublisher {
    /// For servers without TLS; with [`HttpPublisher::trusting`] also for others.
    pub fn new() -> Self {
        Self::default()
    }

    /// Verifies servers with the authorities in `pem`.
    ///
    /// # Errors
    /// [`DriverError::Config`] if there is none in it.
    pub fn trusting(mut self, pem: &[u8]) -> Result<Self, DriverError> {
        self.tls = Some(client::trusting(pem).map_err(|reason| DriverError::Config {
            field: "authorities".to_owned(),
            value: format!("{} bytes", pem.len()),
            reason,
        })?);
        Ok(self)
    }

    fn client(&self, key: &str, timeout: Duration) -> Arc<HttpClient> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|_, client| client.strong_count() > 0);
        clients.get(key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let client = Arc::new(HttpClient::new(self.tls.clone(), timeout, MAX_ANSWER));
            clients.insert(key.to_owned(), Arc::downgrade(&client));
            client
        })
    }
}

impl std::fmt::Debug for HttpPublisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpPublisher").finish_non_exhaustive()
    }
}

impl Publisher for HttpPublisher {
    fn field(&self) -> &'static str {
        "http"
    }

    fn target(&self, method: &PushMethod) -> Result<Target, DriverError> {
        let push = method.http.as_ref().ok_or(DriverError::Unsupported)?;
        let url = url(push)?;
        let seconds = u64::try_from(push.timeout).unwrap_or(0).min(60);
        let timeout = if seconds == 0 { TIMEOUT } else { Duration::from_secs(seconds) };
        let key = format!(
            "{}://{} {seconds}",
            url.scheme_str().unwrap_or("http"),
            url.authority().map_or("", |a| a.as_str())
        );
        let client = self.client(&key, timeout);
        Ok(Target { key: format!("http {key}"), route: Arc::new(HttpRoute { client, url }) })
    }
}

fn url(push: &HttpPush) -> Result<Uri, DriverError> {
    let wrong = |field: &str, value: String, reason: String| DriverError::Config {
        field: format!("pushMethod.http.{field}"),
        value,
        reason,
    };
    let host = push.host_name.trim_end_matches('/');
    let host = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
    let port = match push.port {
        0 => String::new(),
        port @ 1..=65535 => format!(":{port}"),
        port => return Err(wrong("port", port.to_string(), "must be from 1 to 65535".to_owned())),
    };
    let slash = if push.request_path.starts_with('/') || push.request_path.is_empty() { "" } else { "/" };
    let text = format!("{host}{port}{slash}{}", push.request_path);
    let url: Uri =
        text.parse().map_err(|why: http::uri::InvalidUri| wrong("hostName", text.clone(), why.to_string()))?;
    client::check(&url).map_err(|why| wrong("hostName", text, why.to_owned()))?;
    Ok(url)
}

struct HttpRoute {
    client: Arc<HttpClient>,
    url: Uri,
}

#[async_trait]
impl Route for HttpRoute {
    async fn publish(&self, value: &Pushed) -> Result<(), DriverError> {
        let form = format!("{}={}&time={}", escape(value.property.as_str()), escape(&value.value), time_text(value.at));
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.url.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form)))
            .map_err(|error| DriverError::Failed(error.into()))?;
        let response = self.client.send(request).await.map_err(|error| match error {
            HttpError::TimedOut => DriverError::TimedOut,
            HttpError::Unreachable(why) => DriverError::Offline(why),
            error @ HttpError::TooLong(_) => DriverError::Failed(error.into()),
        })?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status if status.is_server_error() => Err(DriverError::Offline(format!("it answers {status}").into())),
            status => Err(DriverError::Refused(status.to_string())),
        }
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if matches!(letter, '&' | '=' | '+' | '%') || letter.is_control() {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                // Writing to a text does not fail.
                let _ = write!(escaped, "%{byte:02X}");
            }
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn targets_are_urls() {
        let of = |host: &str, port, path: &str| {
            let push = HttpPush { host_name: host.into(), port, request_path: path.into(), timeout: 0 };
            url(&push).map(|url| url.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(of("http://10.0.0.1", 8080, "/a?b=c"), Ok("http://10.0.0.1:8080/a?b=c".into()));
        assert_eq!(of("host/", 0, "a"), Ok("http://host/a".into()));
        assert_eq!(of("https://host", 443, ""), Ok("https://host:443/".into()));
        assert!(of("ftp://host", 1, "/").unwrap_err().starts_with("setting pushMethod.http.hostName is "));
        assert!(of("host", 70_000, "/").unwrap_err().starts_with("setting pushMethod.http.port is 70000"));
        assert!(of("", 1, "/").is_err());
    }

    #[test]
    fn only_what_would_break_the_form_is_encoded() {
        assert_eq!(escape("21.5 °C"), "21.5 °C");
        assert_eq!(escape("a&b=c+d%\n"), "a%26b%3Dc%2Bd%25%0A");
    }
}
