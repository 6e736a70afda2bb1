//! Tokens of service accounts.

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{status::ApiError, store::Key};

/// Who signs the tokens, and their audience if none is asked for.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The object to whose life a token is bound.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    nbf: i64,
    pub(crate) sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Value,
}

impl Claims {
    /// Namespace, name and uid of the account.
    pub(crate) fn account(&self) -> Option<(&str, &str, &str)> {
        let text = |pointer: &str| self.kubernetes.pointer(pointer).and_then(Value::as_str);
        Some((text("/namespace")?, text("/serviceaccount/name")?, text("/serviceaccount/uid")?))
    }
}

/// Signs a token and returns it with its end.
pub(crate) fn sign(
    key: &str,
    account: &Key,
    uid: &str,
    audiences: &[String],
    bound: Option<Bound>,
    now: Timestamp,
    lifetime: i64,
) -> Result<(String, Timestamp), ApiError> {
    let mut kubernetes = Map::new();
    kubernetes.insert("namespace".to_owned(), (&*account.namespace).into());
    kubernetes.insert("serviceaccount".to_owned(), json!({"name": &*account.name, "uid": uid}));
    if let Some(bound) = bound {
        kubernetes.insert(bound.kind, json!({"name": bound.name, "uid": bound.uid}));
    }
    let expires = now.checked_add(SignedDuration::from_secs(lifetime)).unwrap_or(now);
    let claims = Claims {
        aud: audiences.to_vec(),
        exp: expires.as_second(),
        iat: now.as_second(),
        iss: ISSUER.to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        nbf: now.as_second(),
        sub: format!("system:serviceaccount:{}:{}", account.namespace, account.name),
        kubernetes: Value::Object(kubernetes),
    };
    let key = EncodingKey::from_secret(key.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|error| ApiError::internal(format!("the token could not be signed: {error}")))?;
    Ok((token, expires))
}

/// Reads a token of ours that is valid at `now`.
pub(crate) fn verify(key: &str, token: &str, now: Timestamp) -> Option<Claims> {
    let mut validation = Validation::new(Algorithm::HS256);
    // The times are compared with the clock we were given, the audience by the caller.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.set_issuer(&[ISSUER]);
    let key = DecodingKey::from_secret(key.as_bytes());
    let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation).ok()?.claims;
    let second = now.as_second();
    (claims.nbf <= second && second < claims.exp).then_some(claims)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_hold_until_they_expire_and_only_with_their_key() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let account = Key::new("ns", "robot");
        let (token, end) = sign("key", &account, "u1", &["me".to_owned()], None, now, 600).unwrap();
        assert_eq!(end.as_second(), now.as_second() + 600);
        let claims = verify("key", &token, now).unwrap();
        assert_eq!(claims.sub, "system:serviceaccount:ns:robot");
        assert_eq!(claims.account(), Some(("ns", "robot", "u1")));
        assert!(verify("other", &token, now).is_none());
        assert!(verify("key", &token, end).is_none());
    }
}
