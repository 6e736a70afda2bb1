//! What an MQTT bus connects to, and how.

use std::{sync::Arc, time::Duration};

use kubeedge_core::bus::Qos;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use crate::bus::Credentials;

/// Options that cannot work, by their name and value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMqttOptions {
    /// The broker's URL is not `tcp://host[:port]` or `ssl://host[:port]`.
    #[error("mqtt broker {url:?} {why}")]
    Url {
        /// The URL as given.
        url: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A certificate or key for TLS is not usable.
    #[error("{what} for the mqtt broker {why}")]
    Tls {
        /// Which of them.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

/// TLS towards a broker.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// What a [`MqttBus`](super::MqttBus) connects to, and its limits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MqttOptions {
    pub(super) endpoint: Endpoint,
    pub(super) tls: Option<Tls>,
    /// Name and password at the broker. Default none.
    ///
    /// Upstream: `mqttUsername`, `mqttPassword`.
    pub credentials: Option<Credentials>,
    /// Client id for subscriptions; further connections append `-1`, `-2`, ... Default `hub-client-sub-` and a random
    /// number.
    ///
    /// Upstream: `mqttSubClientID`.
    pub subscriber_id: String,
    /// Client id for publications. Default `hub-client-pub-` and a random number.
    ///
    /// Upstream: `mqttPubClientID`.
    pub publisher_id: String,
    /// QoS of subscriptions. Default at least once.
    pub subscribe_qos: Qos,
    /// Events that wait for a subscriber, and publications that wait for the connection. Default 100.
    pub queue: usize,
    /// How long a call waits for the broker. Default 10 s.
    pub timeout: Duration,
    /// How often the broker hears from us, in whole seconds, at least one. Default 30 s.
    pub keep_alive: Duration,
    /// First and longest pause between two attempts to connect; a random part of the first pause and the time waited so
    /// far is waited. Default 200 ms and 5 s.
    pub reconnect: (Duration, Duration),
    /// Longest packet, in bytes. Default 1 MiB.
    pub max_packet: usize,
}

impl MqttOptions {
    /// A broker by URL: `tcp://host:1883` (also `mqtt://`, or no scheme) without TLS.
    ///
    /// # Errors
    /// [`InvalidMqttOptions::Url`] for another scheme, or no host or port. For `ssl://` see [`MqttOptions::tls`].
    pub fn tcp(url: &str) -> Result<Self, InvalidMqttOptions> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("tcp", url));
        match scheme {
            "tcp" | "mqtt" => Ok(Self::with_endpoint(endpoint(url, rest, 1883)?, None)),
            "ssl" | "tls" | "mqtts" => Err(invalid(url, "needs the certificate of an authority")),
            _ => Err(invalid(url, "must start with tcp:// or ssl://")),
        }
    }

    /// A broker by URL, `ssl://host:8883` (also `tls://`, `mqtts://`), whose certificate is verified with the
    /// authorities in `ca_pem`; `identity` is our own certificate chain and its key, in PEM.
    ///
    /// # Errors
    /// [`InvalidMqttOptions`] says which URL, certificate or key cannot be used.
    pub fn tls(url: &str, ca_pem: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<Self, InvalidMqttOptions> {
        let Some(("ssl" | "tls" | "mqtts", rest)) = url.split_once("://") else {
            return Err(invalid(url, "must start with ssl:// to be used with TLS"));
        };
        let endpoint = endpoint(url, rest, 8883)?;
        let name = ServerName::try_from(endpoint.host.clone()).map_err(|_| invalid(url, "has no valid host name"))?;
        let config = Arc::new(client_config(ca_pem, identity)?);
        Ok(Self::with_endpoint(endpoint, Some(Tls { config, name })))
    }

    fn with_endpoint(endpoint: Endpoint, tls: Option<Tls>) -> Self {
        let id = fastrand::u64(1_000_000_000..10_000_000_000);
        Self {
            endpoint,
            tls,
            credentials: None,
            subscriber_id: format!("hub-client-sub-{id}"),
            publisher_id: format!("hub-client-pub-{id}"),
            subscribe_qos: Qos::AtLeastOnce,
            queue: 100,
            timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(30),
            reconnect: (Duration::from_millis(200), Duration::from_secs(5)),
            max_packet: 1024 * 1024,
        }
    }

    /// [`keep_alive`](Self::keep_alive) as the protocol can say it.
    pub(super) fn keep_alive_secs(&self) -> u16 {
        u16::try_from(self.keep_alive.as_secs().max(1)).unwrap_or(u16::MAX)
    }
}

fn invalid(url: &str, why: &'static str) -> InvalidMqttOptions {
    InvalidMqttOptions::Url { url: url.to_owned(), why }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`, and a last slash at most.
fn endpoint(url: &str, rest: &str, default_port: u16) -> Result<Endpoint, InvalidMqttOptions> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '@']) {
        return Err(invalid(url, "must have a host and a port only"));
    }
    let (host, port) = match rest.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']').ok_or_else(|| invalid(url, "has an unclosed bracket"))?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or_else(|| invalid(url, "has no colon before its port"))?),
            };
            (host, port)
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    if host.is_empty() {
        return Err(invalid(url, "has no host"));
    }
    let port = match port {
        None => default_port,
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(invalid(url, "has no valid port")),
        },
    };
    Ok(Endpoint { host: host.to_owned(), port })
}

fn client_config(ca_pem: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<ClientConfig, InvalidMqttOptions> {
    let wrong = |what: &'static str| {
        move |error: &dyn std::fmt::Display| InvalidMqttOptions::Tls { what, why: format!("cannot be used: {error}") }
    };
    let mut roots = RootCertStore::empty();
    for cert in certificates("authority certificate", ca_pem)? {
        roots.add(cert).map_err(|error| wrong("authority certificate")(&error))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("TLS")(&error))?
        .with_root_certificates(roots);
    match identity {
        None => Ok(config.with_no_client_auth()),
        Some((chain, key)) => {
            let chain = certificates("client certificate", chain)?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong("client key")(&error))?;
            config.with_client_auth_cert(chain, key).map_err(|error| wrong("client certificate")(&error))
        }
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidMqttOptions> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(InvalidMqttOptions::Tls { what, why: "has no PEM certificate".to_owned() })
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(InvalidMqttOptions::Tls { what, why: format!("is no PEM: {error}") }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_name_host_and_port() {
        for (url, host, port) in [
            ("tcp://127.0.0.1:1883", "127.0.0.1", 1883),
            ("mqtt://broker", "broker", 1883),
            ("broker:2000", "broker", 2000),
            ("tcp://[::1]:77/", "::1", 77),
            ("tcp://[::1]", "::1", 1883),
        ] {
            assert_eq!(MqttOptions::tcp(url).unwrap().endpoint, Endpoint { host: host.to_owned(), port }, "{url}");
        }
    }

    #[test]
    fn bad_urls_are_refused_by_name() {
        for url in [
            "",
            "tcp://",
            "tcp://:1883",
            "ws://h",
            "tcp://h:0",
            "tcp://h:x",
            "tcp://h/p",
            "tcp://u@h",
            "tcp://[::1",
            "tcp://[::1]9",
        ] {
            let error = MqttOptions::tcp(url).unwrap_err().to_string();
            assert!(error.contains(&format!("{url:?}")), "{error}");
        }
        assert!(MqttOptions::tcp("ssl://h").unwrap_err().to_string().contains("authority"));
        assert!(MqttOptions::tls("tcp://h", b"", None).is_err());
        let error = MqttOptions::tls("ssl://h", b"nothing", None).unwrap_err();
        assert_eq!(error.to_string(), "authority certificate for the mqtt broker has no PEM certificate");
    }

    #[test]
    fn a_password_is_never_printed() {
        let mut options = MqttOptions::tcp("tcp://h").unwrap();
        options.credentials = Some(Credentials::new("u", "hidden"));
        assert!(!format!("{options:?}").contains("hidden"));
    }
}
