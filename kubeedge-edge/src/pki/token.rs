//! Join tokens, as a node sees them.

use std::{fmt, str::FromStr};

/// A join token: `<SHA-256 of the CA certificate, lower-case hex>.<JWT>`.
///
/// The hash is for the node, to recognise the CA; the JWT is a secret that only the cloud can judge.
///
/// Upstream: `pkg/security/token`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    ca_hash: String,
    jwt: String,
}

/// A text that is no join token. Does not repeat it: it may hold a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// Not four parts between dots.
    #[error("it has {0} parts between dots in place of four")]
    Parts(usize),
    /// The first part is no hash.
    #[error("its first part is not 64 lower-case hexadecimal digits")]
    Hash,
    /// Another part has characters that a JWT cannot have.
    #[error("it has characters that do not belong to a JWT")]
    Jwt,
}

impl JoinToken {
    /// The SHA-256 of the CA certificate in DER, as 64 lower-case hexadecimal digits.
    pub fn ca_hash(&self) -> &str {
        &self.ca_hash
    }

    /// What goes into the `Authorization` header behind `Bearer`. A secret.
    pub fn jwt(&self) -> &str {
        &self.jwt
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    /// Parses a token; white space around it, as a file may have, is ignored.
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        let parts = text.split('.').count();
        let (ca_hash, jwt) = match text.split_once('.') {
            Some(split) if parts == 4 => split,
            _ => return Err(InvalidToken::Parts(parts)),
        };
        if ca_hash.len() != 64 || !ca_hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            return Err(InvalidToken::Hash);
        }
        let in_jwt = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !jwt.bytes().all(in_jwt) {
            return Err(InvalidToken::Jwt);
        }
        Ok(Self { ca_hash: ca_hash.to_owned(), jwt: jwt.to_owned() })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("ca_hash", &self.ca_hash).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Made by Go's `token.Create`.
    const VECTOR: &str = "fbdae3b855d795b2fd471075e9691b11e622c19df5df5426f56ff1684083e581.\
        eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE4OTM0NTYwMDB9.S9zkxtpXUZINwJdqK93rDF1rqJmVBkclNMbvfF9DKeQ";

    #[test]
    fn a_token_is_split_into_hash_and_jwt() {
        let token: JoinToken = format!(" {VECTOR}\n").parse().unwrap();
        assert_eq!(token.ca_hash(), &VECTOR[..64]);
        assert_eq!(token.jwt(), &VECTOR[65..]);
        assert!(!format!("{token:?}").contains("S9zkxtpX"));
    }

    #[test]
    fn what_is_no_token_is_said_without_showing_it() {
        let parse = |text: &str| text.parse::<JoinToken>().unwrap_err();
        assert_eq!(parse(""), InvalidToken::Parts(1));
        assert_eq!(parse(&VECTOR[65..]), InvalidToken::Parts(3));
        assert_eq!(parse(&VECTOR.replace("fbda", "FBDA")), InvalidToken::Hash);
        assert_eq!(parse(&VECTOR[1..]), InvalidToken::Hash);
        assert_eq!(parse(&VECTOR.replace("S9z", "S9\n")), InvalidToken::Jwt);
    }
}
