//! Requests to the HTTPS port of the cloud: one connection each, HTTP/1.1, bounded in size and time.

use std::{future::pending, sync::Arc, time::Duration};

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use kubeedge_core::service::BoxError;
use rustls::ClientConfig;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{endpoint::Endpoint, error::CertificateError};

/// From dialling to the last byte. Upstream: 30 s for `/edge.crt`.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest body of an answer, 1 MiB.
const MAX_BODY: usize = 1024 * 1024;
/// How much of an error's text is kept, in characters.
const MAX_TEXT: usize = 512;

/// Asks for `path` and returns the body of a 200.
///
/// A GET with a body where there is one to send: this is how the API of KubeEdge is.
pub(crate) async fn get(
    endpoint: &Endpoint,
    path: &str,
    tls: Arc<ClientConfig>,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Bytes, CertificateError> {
    let mut request = Request::builder().method(Method::GET).uri(path).header(header::HOST, &endpoint.authority);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.header(header::CONNECTION, "close").body(Full::new(Bytes::from(body)));
    let request = request.map_err(CertificateError::failed)?;
    let url = || endpoint.url(path);
    let (status, body) = timeout(TIMEOUT, exchange(endpoint, tls, request))
        .await
        .map_err(|_| CertificateError::TimedOut { url: url() })?
        .map_err(|source| CertificateError::Unreachable { url: url(), source })?;
    if status == StatusCode::OK {
        return Ok(body);
    }
    let text = String::from_utf8_lossy(&body).trim().chars().take(MAX_TEXT).collect();
    Err(CertificateError::Refused { url: url(), status: status.as_u16(), text })
}

async fn exchange(
    endpoint: &Endpoint,
    tls: Arc<ClientConfig>,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), BoxError> {
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    let stream = TlsConnector::from(tls).connect(endpoint.name.clone(), stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asked = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = match Limited::new(response.into_body(), MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(err) if err.is::<LengthLimitError>() => {
                return Err(format!("answer is longer than {MAX_BODY} bytes").into());
            }
            Err(err) => return Err(err),
        };
        Ok::<_, BoxError>((status, body))
    };
    // The connection is driven beside the request; its own failure reaches the request as well.
    let driven = async {
        let _ended = connection.await;
        pending::<()>().await;
    };
    tokio::select! {
        answer = asked => answer,
        () = driven => Err("connection ended".into()),
    }
}
