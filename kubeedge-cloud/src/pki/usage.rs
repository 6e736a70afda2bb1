//! The `ExtKeyUsages` header: what a node wants to use its certificate for.

use rcgen::ExtendedKeyUsagePurpose;

/// `x509.ExtKeyUsageServerAuth` in Go.
const SERVER_AUTH: i64 = 1;
/// `x509.ExtKeyUsageClientAuth` in Go.
const CLIENT_AUTH: i64 = 2;

/// Extended key usages that a node may have: client authentication, server authentication, or both.
///
/// Server authentication is harmless here, because certificates of nodes never carry an alternative name: no TLS client
/// accepts one for any host. Every other usage is refused; upstream grants all that Go knows.
///
/// Upstream: `cloud/pkg/cloudhub/servers/httpserver/certificate` (header `ExtKeyUsages`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtKeyUsages {
    client: bool,
    server: bool,
}

/// An `ExtKeyUsages` header that is not followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// The header is not a JSON array of integers.
    #[error("unmarshal http header ExtKeyUsages fail, err: {0}")]
    Malformed(String),
    /// A usage that nodes do not get.
    #[error("extended key usage {0} is not granted to nodes")]
    NotGranted(i64),
}

impl Default for ExtKeyUsages {
    /// Client authentication only.
    fn default() -> Self {
        Self { client: true, server: false }
    }
}

impl ExtKeyUsages {
    /// Parses the header: a JSON array of the integers that Go has for usages. An absent header, `null` and `[]` stand for
    /// client authentication.
    pub fn parse(header: Option<&str>) -> Result<Self, UsageError> {
        let Some(text) = header.filter(|text| !text.is_empty()) else { return Ok(Self::default()) };
        let numbers: Option<Vec<i64>> =
            serde_json::from_str(text).map_err(|err| UsageError::Malformed(err.to_string()))?;
        let numbers = numbers.unwrap_or_default();
        if numbers.is_empty() {
            return Ok(Self::default());
        }
        let mut usages = Self { client: false, server: false };
        for number in numbers {
            match number {
                SERVER_AUTH => usages.server = true,
                CLIENT_AUTH => usages.client = true,
                other => return Err(UsageError::NotGranted(other)),
            }
        }
        Ok(usages)
    }

    pub(crate) fn purposes(self) -> Vec<ExtendedKeyUsagePurpose> {
        let server = self.server.then_some(ExtendedKeyUsagePurpose::ServerAuth);
        let client = self.client.then_some(ExtendedKeyUsagePurpose::ClientAuth);
        server.into_iter().chain(client).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_client_and_server_authentication_are_granted() {
        let both = ExtKeyUsages { client: true, server: true };
        assert_eq!(ExtKeyUsages::parse(Some("[1,2]")).unwrap(), both);
        assert_eq!(both.purposes(), [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]);
        for absent in [None, Some(""), Some("[]"), Some("null"), Some("[2]"), Some("[2,2]")] {
            assert_eq!(ExtKeyUsages::parse(absent).unwrap(), ExtKeyUsages::default(), "{absent:?}");
        }
        assert!(matches!(ExtKeyUsages::parse(Some("[2,3]")), Err(UsageError::NotGranted(3))));
        assert!(matches!(ExtKeyUsages::parse(Some("[0]")), Err(UsageError::NotGranted(0))));
        assert!(matches!(ExtKeyUsages::parse(Some("server")), Err(UsageError::Malformed(_))));
    }
}
