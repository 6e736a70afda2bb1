//! The HTTPS port of the cloud.

use http::{Uri, uri::Scheme};
use rustls::pki_types::ServerName;

use super::error::CertificateError;

/// Port of CloudHub's HTTPS server if the URL names none.
const DEFAULT_PORT: u16 = 10002;

/// Where certificates come from, parsed once.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Host as one dials it: without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What the server has to prove that it is.
    pub(crate) name: ServerName<'static>,
    /// Host and port as the `Host` header has them.
    pub(crate) authority: String,
}

impl Endpoint {
    /// Parses `https://host[:port]`.
    pub(crate) fn parse(url: &str) -> Result<Self, CertificateError> {
        let wrong = |why| CertificateError::Config { field: "http_server", value: url.to_owned(), why };
        let uri: Uri = url.parse().map_err(|_| wrong("is not a URL"))?;
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(wrong("must start with https://"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(wrong("must have no path"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("must not have a user"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong("has no valid host"))?;
        let port = authority.port_u16().unwrap_or(DEFAULT_PORT);
        Ok(Self { authority: format!("{}:{port}", authority.host()), host, port, name })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_are_parsed_once() {
        let six = Endpoint::parse("https://[2001:db8::1]:11002").unwrap();
        assert_eq!((six.host.as_str(), six.port), ("2001:db8::1", 11002));
        assert!(matches!(six.name, ServerName::IpAddress(_)));
        assert_eq!(six.url("/ca.crt"), "https://[2001:db8::1]:11002/ca.crt");
        let named = Endpoint::parse("https://cloud.example/").unwrap();
        assert_eq!(named.url("/ca.crt"), "https://cloud.example:10002/ca.crt");
        for (wrong, why) in [
            ("http://cloud.example", "must start with https://"),
            ("cloud.example:10002", "must start with https://"),
            ("https://cloud.example/x", "must have no path"),
            ("https://user@cloud.example", "must not have a user"),
            ("https://a_b..c", "has no valid host"),
            ("", "is not a URL"),
        ] {
            let err = Endpoint::parse(wrong).unwrap_err().to_string();
            assert_eq!(err, format!("http_server {wrong:?} {why}"));
        }
    }
}
