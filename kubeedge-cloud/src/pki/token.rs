//! Join tokens: what a node that has no certificate yet shows to get one.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation, errors::ErrorKind};
use kubeedge_core::names::UnixMillis;
use serde::{Deserialize, Serialize};

use super::error::PkiError;

/// A join token: `<SHA-256 of the CA certificate, lower-case hex>.<JWT>`.
///
/// The hash lets a node recognise the CA before it trusts it; the JWT, signed HS256 with the CA's private key, lets the
/// cloud recognise its own token. It names no node: whoever holds it may join as any node until it expires.
///
/// Upstream: `pkg/security/token` (v1.21 to v1.23). Unlike upstream only HS256 is accepted, and an expiry is required.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken(String);

/// Header of every token, with its members in the order in which Go writes them, so that tokens are equal byte for byte.
const JWT_HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

#[derive(Serialize, Deserialize)]
struct Claims {
    /// Seconds since the Unix epoch.
    exp: Option<i64>,
}

/// Why the JWT of a join token is not accepted. The texts are those that Go cloudcore answers where it refuses too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not three segments.
    #[error("token is malformed: token contains an invalid number of segments")]
    Segments,
    /// The first segment is not the JSON of a JWT header.
    #[error("token is malformed: could not JSON decode header")]
    Header,
    /// The second segment is not the JSON of claims.
    #[error("token is malformed: could not JSON decode claims")]
    Claims,
    /// Signed in another way.
    #[error("token is unverifiable: signing method is not HS256")]
    Algorithm,
    /// Signed with another key.
    #[error("token signature is invalid: signature is invalid")]
    Signature,
    /// Never expires.
    #[error("token has invalid claims: token is missing required claim: exp claim is required")]
    NoExpiry,
    /// Has expired.
    #[error("token has invalid claims: token is expired")]
    Expired,
}

impl JoinToken {
    /// Mints a token for the CA whose certificate is `ca` and whose private key is `key`, both DER as they are stored.
    pub fn mint(ca: &[u8], key: &[u8], expires: UnixMillis) -> Result<Self, PkiError> {
        let claims = Claims { exp: Some(expires.0.div_euclid(1000)) };
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).map_err(PkiError::crypto)?);
        let message = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(JWT_HEADER));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(key), Algorithm::HS256)
                .map_err(PkiError::crypto)?;
        Ok(Self(format!("{}.{message}.{signature}", fingerprint(ca))))
    }

    /// Verifies the JWT part of a token, as it comes in the `Authorization` header.
    ///
    /// # Errors
    /// [`TokenError`] names the first check that fails. Checks go from form over signature to expiry, so that nothing is
    /// told about the claims of a token that is not ours.
    pub fn verify(jwt: &str, key: &[u8], now: UnixMillis) -> Result<(), TokenError> {
        Self::expiry(jwt, key, now).map(drop)
    }

    /// The token in `text` if its hash and its signature are right, and how long it is good from `now` on.
    pub(crate) fn recognise(text: &str, hash: &str, key: &[u8], now: UnixMillis) -> Option<(Self, Duration)> {
        let jwt = text.strip_prefix(hash)?.strip_prefix('.')?;
        let left = Self::expiry(jwt, key, now).ok()?.saturating_sub(now.0.div_euclid(1000));
        Some((Self(text.to_owned()), Duration::from_secs(u64::try_from(left).ok()?)))
    }

    /// When a good JWT ends, in seconds since the Unix epoch.
    fn expiry(jwt: &str, key: &[u8], now: UnixMillis) -> Result<i64, TokenError> {
        if jwt.split('.').count() != 3 {
            return Err(TokenError::Segments);
        }
        check_header(jwt)?;
        let mut validation = Validation::new(Algorithm::HS256);
        // Expiry is checked below, against the caller's clock.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let token = jsonwebtoken::decode::<Claims>(jwt, &DecodingKey::from_secret(key), &validation).map_err(
            |err| match err.kind() {
                ErrorKind::InvalidSignature => TokenError::Signature,
                ErrorKind::InvalidAlgorithm => TokenError::Algorithm,
                _ => TokenError::Claims,
            },
        )?;
        let expires = token.claims.exp.ok_or(TokenError::NoExpiry)?;
        if now.0.div_euclid(1000) >= expires { Err(TokenError::Expired) } else { Ok(expires) }
    }

    /// The text as it is handed to a node.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The JWT is a secret.
        write!(f, "JoinToken({}..)", self.0.get(..8).unwrap_or_default())
    }
}

/// SHA-256 of `der` in lower-case hex.
pub(crate) fn fingerprint(der: &[u8]) -> String {
    use fmt::Write as _;
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Reads the header apart, to tell a wrong algorithm from a header that is none.
fn check_header(jwt: &str) -> Result<(), TokenError> {
    #[derive(Deserialize)]
    struct Head {
        alg: String,
    }
    let segment = jwt.split('.').next().unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(segment).map_err(|_| TokenError::Header)?;
    let head: Head = serde_json::from_slice(&bytes).map_err(|_| TokenError::Header)?;
    if head.alg == "HS256" { Ok(()) } else { Err(TokenError::Algorithm) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CA: &[u8] = b"test-ca-der";
    const KEY: &[u8] = b"test-ca-key-der";
    const EXPIRES: UnixMillis = UnixMillis(1_893_456_000_000);
    /// What Go's `token.Create` makes of the constants above.
    const VECTOR: &str = "fbdae3b855d795b2fd471075e9691b11e622c19df5df5426f56ff1684083e581.\
        eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE4OTM0NTYwMDB9.S9zkxtpXUZINwJdqK93rDF1rqJmVBkclNMbvfF9DKeQ";

    fn jwt(header: &str, claims: &str, key: &[u8]) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let key = EncodingKey::from_secret(key);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    }

    #[test]
    fn tokens_are_those_of_go_byte_for_byte() {
        assert_eq!(JoinToken::mint(CA, KEY, EXPIRES).unwrap().as_str(), VECTOR);
    }

    #[test]
    fn a_token_is_good_until_it_expires() {
        let (_, jwt) = VECTOR.split_once('.').unwrap();
        assert_eq!(JoinToken::verify(jwt, KEY, UnixMillis(EXPIRES.0 - 1)), Ok(()));
        assert_eq!(JoinToken::verify(jwt, KEY, EXPIRES), Err(TokenError::Expired));
        assert_eq!(JoinToken::verify(jwt, b"another key", UnixMillis(0)), Err(TokenError::Signature));
        assert_eq!(JoinToken::verify(VECTOR, KEY, UnixMillis(0)), Err(TokenError::Segments));
    }

    #[test]
    fn what_go_accepts_too_lightly_is_refused() {
        let now = UnixMillis(0);
        let claims = r#"{"exp":1893456000}"#;
        assert_eq!(JoinToken::verify(&jwt(JWT_HEADER, claims, KEY), KEY, now), Ok(()));
        assert_eq!(JoinToken::verify(&jwt(JWT_HEADER, "{}", KEY), KEY, now), Err(TokenError::NoExpiry));
        assert_eq!(JoinToken::verify(&jwt(r#"{"alg":"HS384"}"#, claims, KEY), KEY, now), Err(TokenError::Algorithm));
        assert_eq!(JoinToken::verify(&jwt(r#"{"alg":"none"}"#, claims, KEY), KEY, now), Err(TokenError::Algorithm));
        assert_eq!(JoinToken::verify(&jwt("no json", claims, KEY), KEY, now), Err(TokenError::Header));
        assert_eq!(JoinToken::verify(&jwt(JWT_HEADER, "[]", KEY), KEY, now), Err(TokenError::Claims));
        assert_eq!(JoinToken::verify("aa.bb.cc", KEY, now), Err(TokenError::Header));
        assert_eq!(JoinToken::verify("", KEY, now), Err(TokenError::Segments));
    }

    #[test]
    fn a_token_does_not_show_itself_in_logs() {
        let token = JoinToken::mint(CA, KEY, EXPIRES).unwrap();
        assert_eq!(format!("{token:?}"), "JoinToken(fbdae3b8..)");
    }
}
