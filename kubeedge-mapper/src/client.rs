//! HTTP/1.1 to one server, over a connection that is kept between exchanges.

use std::{future::pending, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use kubeedge_core::service::BoxError;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Where the authorities are that the operating system trusts.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("server cannot be reached")]
    Unreachable(#[source] BoxError),
    #[error("no answer in time")]
    TimedOut,
    #[error("answer is longer than {0} bytes")]
    TooLong(usize),
}

/// A server.
#[derive(Clone, PartialEq, Eq)]
struct Origin {
    host: String,
    port: u16,
    tls: bool,
}

/// The scheme must be http or https, and there must be a host.
pub(crate) fn check(uri: &Uri) -> Result<(), &'static str> {
    origin(uri).map(drop)
}

fn origin(uri: &Uri) -> Result<Origin, &'static str> {
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err("must start with http:// or https://"),
    };
    let host = uri.host().filter(|host| !host.is_empty()).ok_or("must have a host")?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("must not have a login in it: there are settings for that");
    }
    let host = host.trim_matches(['[', ']']).to_owned();
    Ok(Origin { host, port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls })
}

/// TLS that trusts the authorities in `pem`.
pub(crate) fn trusting(pem: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        // A bundle of the system may hold some that we cannot use.
        roots.add_parsable_certificates([certificate]);
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(Arc::new(config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth()))
}

/// TLS that trusts whom the operating system trusts.
pub(crate) async fn trusting_system() -> Result<Arc<ClientConfig>, String> {
    for path in SYSTEM_ROOTS {
        if let Ok(pem) = tokio::fs::read(path).await {
            return trusting(&pem);
        }
    }
    Err("this system has no list of authorities".to_owned())
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

struct Kept {
    origin: Origin,
    sender: SendRequest<Full<Bytes>>,
    /// Drives the connection; it is polled during exchanges only, so there is no task.
    connection: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// A client for one server; exchanges take turns.
pub(crate) struct HttpClient {
    tls: Option<Arc<ClientConfig>>,
    kept: Mutex<Option<Kept>>,
    timeout: Duration,
    max_body: usize,
}

impl HttpClient {
    /// Waits `timeout` for the whole answer, connecting included, and takes up to `max_body` bytes of it.
    pub(crate) fn new(tls: Option<Arc<ClientConfig>>, timeout: Duration, max_body: usize) -> Self {
        Self { tls, kept: Mutex::new(None), timeout, max_body }
    }

    /// One exchange; the URI of the request is absolute. A request that may be repeated is, once, if a kept connection
    /// turns out to be closed.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, HttpError> {
        let mut slot = self.kept.lock().await;
        let kept = slot.take();
        let attempt = async {
            let origin = origin(request.uri()).map_err(|why| HttpError::Unreachable(why.into()))?;
            if let Some(kept) = kept.filter(|kept| kept.origin == origin)
                && !kept.sender.is_closed()
            {
                match self.exchange(kept, request.clone()).await {
                    Err(HttpError::Unreachable(_)) if request.method().is_idempotent() => {}
                    other => return other,
                }
            }
            let kept = self.connect(origin).await.map_err(HttpError::Unreachable)?;
            self.exchange(kept, request).await
        };
        let (response, kept) = timeout(self.timeout, attempt).await.unwrap_or(Err(HttpError::TimedOut))?;
        *slot = kept;
        Ok(response)
    }

    async fn connect(&self, origin: Origin) -> Result<Kept, BoxError> {
        let stream = TcpStream::connect((origin.host.as_str(), origin.port)).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match (&self.tls, origin.tls) {
            (_, false) => Box::new(stream),
            (None, true) => return Err("there are no authorities to verify it with".into()),
            (Some(tls), true) => {
                let name = ServerName::try_from(origin.host.clone())?;
                Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?)
            }
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its own failure reaches the exchange as well.
        let connection: BoxFuture<'static, ()> = Box::pin(connection.map(drop));
        Ok(Kept { origin, sender, connection })
    }

    async fn exchange(
        &self,
        mut kept: Kept,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Bytes>, Option<Kept>), HttpError> {
        // To the server itself a request has only the path, and the host in a header.
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let path = path.parse().map_err(|error: http::uri::InvalidUri| HttpError::Unreachable(error.into()))?;
        let host = request.uri().authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        *request.uri_mut() = path;
        let host = host.parse().map_err(|_| HttpError::Unreachable("bad host".into()))?;
        request.headers_mut().insert(header::HOST, host);
        let asked = async {
            kept.sender.ready().await.map_err(|error| HttpError::Unreachable(error.into()))?;
            let response = kept.sender.send_request(request).await;
            let (head, body) = response.map_err(|error| HttpError::Unreachable(error.into()))?.into_parts();
            match Limited::new(body, self.max_body).collect().await {
                Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
                Err(error) if error.is::<LengthLimitError>() => Err(HttpError::TooLong(self.max_body)),
                Err(error) => Err(HttpError::Unreachable(error)),
            }
        };
        let mut ended = false;
        let driven = async {
            (&mut kept.connection).await;
            ended = true;
            pending::<()>().await;
        };
        let response = tokio::select! {
            response = asked => response,
            () = driven => Err(HttpError::Unreachable("connection ended".into())),
        }?;
        let ended = ended || (&mut kept.connection).now_or_never().is_some();
        Ok((response, (!ended).then_some(kept)))
    }
}
