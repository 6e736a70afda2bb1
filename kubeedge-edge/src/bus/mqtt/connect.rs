//! Dialing a broker: TCP, TLS, CONNECT, and the pauses between attempts.

use std::{io, time::Duration};

use kubeedge_core::service::Causes;
use rumqttc::mqttbytes::v4::{ConnAck, Connect, ConnectReturnCode, Login, Packet};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::{MqttOptions, Shared};
use crate::{
    backoff::Backoff,
    bus::wire::{Turn, Wire, WireError},
};

/// Either kind of stream.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// A connection that the broker has accepted.
pub(super) type Link = Wire<Box<dyn Socket>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("cannot connect")]
    Dial(#[source] io::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("connection broke")]
    Wire(#[from] WireError),
    #[error("the broker closed the connection before it accepted it")]
    Closed,
    #[error("the broker refused the connection: {0}")]
    Refused(&'static str),
}

/// Dials until it succeeds. Kept across the connections of one client id.
#[derive(Debug)]
pub(super) struct Dialer {
    client_id: String,
    backoff: Backoff,
    /// When the last connection stood: one that breaks at once is no reason to hurry.
    since: Option<Instant>,
    complained: bool,
}

impl Dialer {
    pub(super) fn new(client_id: String, options: &MqttOptions) -> Self {
        Self {
            client_id,
            backoff: Backoff::new(options.reconnect.0, options.reconnect.1),
            since: None,
            complained: false,
        }
    }

    /// The next connection; `None` on shutdown.
    pub(super) async fn link(&mut self, shared: &Shared, shutdown: &CancellationToken) -> Option<Link> {
        let options = &shared.options;
        if let Some(since) = self.since.take() {
            if since.elapsed() > options.reconnect.1 {
                self.backoff.reset();
            }
            self.pause(shutdown).await?;
        }
        loop {
            let attempt = timeout(options.timeout, dial(options, &self.client_id));
            let attempt = tokio::select! {
                attempt = attempt => attempt.unwrap_or(Err(ConnectError::TimedOut)),
                () = shutdown.cancelled() => return None,
            };
            match attempt {
                Ok(link) => {
                    tracing::info!(client = self.client_id, broker = %options.endpoint, "connected to the mqtt broker");
                    shared.refused(None);
                    self.since = Some(Instant::now());
                    self.complained = false;
                    return Some(link);
                }
                Err(error) => {
                    if let ConnectError::Refused(_) = error {
                        shared.refused(Some(error.to_string()));
                    }
                    if std::mem::replace(&mut self.complained, true) {
                        tracing::debug!(client = self.client_id, error = %Causes(&error), "still no mqtt broker");
                    } else {
                        tracing::warn!(client = self.client_id, broker = %options.endpoint, error = %Causes(&error), "no mqtt broker");
                    }
                }
            }
            self.pause(shutdown).await?;
        }
    }

    async fn pause(&mut self, shutdown: &CancellationToken) -> Option<()> {
        let pause = self.backoff.pause();
        tokio::select! {
            () = sleep(pause) => Some(()),
            () = shutdown.cancelled() => None,
        }
    }
}

async fn dial(options: &MqttOptions, client_id: &str) -> Result<Link, ConnectError> {
    let address = (options.endpoint.host.as_str(), options.endpoint.port);
    let stream = TcpStream::connect(address).await.map_err(ConnectError::Dial)?;
    stream.set_nodelay(true).map_err(ConnectError::Dial)?;
    let stream: Box<dyn Socket> = match &options.tls {
        None => Box::new(stream),
        Some(tls) => {
            let connector = TlsConnector::from(std::sync::Arc::clone(&tls.config));
            Box::new(connector.connect(tls.name.clone(), stream).await.map_err(ConnectError::Dial)?)
        }
    };
    let mut link = Wire::new(stream, options.max_packet);
    let mut connect = Connect::new(client_id);
    connect.keep_alive = options.keep_alive_secs();
    connect.login = options.credentials.as_ref().map(|login| Login::new(&login.username, &login.password));
    link.queue(&Packet::Connect(connect))?;
    loop {
        match link.turn(true).await? {
            Turn::Flushed => {}
            Turn::Packet(Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, .. })) => return Ok(link),
            Turn::Packet(Packet::ConnAck(ConnAck { code, .. })) => return Err(ConnectError::Refused(reason(code))),
            Turn::Packet(_) => return Err(ConnectError::Refused("it answered with another packet")),
            Turn::Closed => return Err(ConnectError::Closed),
        }
    }
}

fn reason(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::Success => "no reason",
        ConnectReturnCode::RefusedProtocolVersion => "it does not speak MQTT 3.1.1",
        ConnectReturnCode::BadClientId => "the client id is not accepted",
        ConnectReturnCode::ServiceUnavailable => "it is unavailable",
        ConnectReturnCode::BadUserNamePassword => "bad user name or password",
        ConnectReturnCode::NotAuthorized => "not authorized",
    }
}

/// Says goodbye, so that the broker sends no will and logs no error; bounded, since the broker may be stuck.
pub(super) async fn leave(mut link: Link) {
    const PATIENCE: Duration = Duration::from_millis(300);
    if link.queue(&Packet::Disconnect).is_ok() {
        let flushed = async {
            while let Ok(turn) = link.turn(false).await
                && !matches!(turn, Turn::Flushed)
            {}
        };
        // An unflushed goodbye is a closed connection, which is enough.
        let _ = timeout(PATIENCE, flushed).await;
    }
}

impl std::fmt::Display for super::options::Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
