//! Who may open a WebSocket.

use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use kubeedge_core::{
    names::NodeName,
    transport::{Extensions, Hello},
};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request};

use super::door::Refusal;

/// The answer to who is refused. Upstream leaves the connection open and silent instead.
pub(super) fn response(refusal: &Refusal) -> ErrorResponse {
    let text = refusal.to_string();
    let length = HeaderValue::from(text.len());
    let mut response = ErrorResponse::new(Some(text));
    *response.status_mut() = match refusal {
        Refusal::NotForMessages | Refusal::NoNode => StatusCode::BAD_REQUEST,
        Refusal::OtherNode(..) | Refusal::ForeignOrigin(_) => StatusCode::FORBIDDEN,
        Refusal::TooManyNodes => StatusCode::SERVICE_UNAVAILABLE,
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Reads the handshake of `peer`, the node of the certificate. The path says nothing that the headers do not.
///
/// Upstream: `pkg/viaduct/pkg/server/ws.go`, `cloud/pkg/cloudhub/authorization`.
pub(super) fn check(request: &Request, peer: &NodeName) -> Result<Hello, Refusal> {
    let headers = request.headers();
    check_origin(headers)?;
    // A Go edge repeats the header with each of its attempts; the first one counts.
    if headers.get("ConnectionUse").is_none_or(|usage| usage != "msg") {
        return Err(Refusal::NotForMessages);
    }
    let node = headers.get("node_id").ok_or(Refusal::NoNode)?;
    if node != peer.as_str() {
        let node = String::from_utf8_lossy(node.as_bytes()).chars().take(128).collect();
        return Err(Refusal::OtherNode(node, peer.clone()));
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let extensions = Extensions::parse(text(Extensions::HEADER));
    Ok(Hello::new(peer.clone()).project(text("project_id")).extensions(extensions))
}

/// A browser tells where the page came from; that has to be here.
fn check_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let text = String::from_utf8_lossy(origin.as_bytes());
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let authority = text.parse::<Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string));
    match authority {
        Some(authority) if authority.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(Refusal::ForeignOrigin(text.chars().take(128).collect())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let mut request = http::Request::get("/project/edge-1/events");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn read(headers: &[(&str, &str)]) -> Result<Hello, u16> {
        check(&request(headers), &NodeName::new("edge-1").unwrap())
            .map_err(|refusal| response(&refusal).status().as_u16())
    }

    fn checked(headers: &[(&str, &str)]) -> Result<(), u16> {
        read(headers).map(drop)
    }

    #[test]
    fn only_the_node_of_the_certificate_may_speak() {
        let usage = ("Connectionuse", "msg");
        assert_eq!(checked(&[usage, ("Node_id", "edge-1"), ("Project_id", "p")]), Ok(()));
        assert_eq!(checked(&[usage, usage, ("Connectionuse", "str"), ("Node_id", "edge-1")]), Ok(()));
        assert_eq!(checked(&[usage, ("Node_id", "edge-2")]), Err(403));
        assert_eq!(checked(&[usage]), Err(400));
        assert_eq!(checked(&[("Node_id", "edge-1")]), Err(400));
        assert_eq!(checked(&[("Connectionuse", "str"), ("Node_id", "edge-1")]), Err(400));
    }

    #[test]
    fn a_go_edge_offers_no_extensions_and_ours_does() {
        let go = [("Connectionuse", "msg"), ("Node_id", "edge-1"), ("Project_id", "p")];
        let hello = read(&go).unwrap();
        assert_eq!((&*hello.project, hello.extensions), ("p", Extensions::none()));
        let ours = [go.as_slice(), &[("Kubeedge-Extensions", "batch, later=1")]].concat();
        assert_eq!(read(&ours).unwrap().extensions.to_string(), "batch");
    }

    #[test]
    fn a_page_from_elsewhere_is_refused() {
        let with = |origin| {
            checked(&[("Host", "cloud:10000"), ("Origin", origin), ("Connectionuse", "msg"), ("Node_id", "edge-1")])
        };
        assert_eq!(with("https://Cloud:10000"), Ok(()));
        assert_eq!(with("https://evil.example"), Err(403));
        assert_eq!(with("null"), Err(403));
    }
}
