//! P-256 private keys between the encodings of Go (SEC1) and of `ring` (PKCS#8).

use pkcs8::{
    AlgorithmIdentifierRef, ObjectIdentifier, PrivateKeyInfoRef,
    der::{Encode as _, asn1::OctetStringRef},
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sec1::{EcParameters, EcPrivateKey};

use super::error::PkiError;

/// id-ecPublicKey.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// prime256v1, which Go calls P-256.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// Why a private key is of no use here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("private key is neither SEC1 nor PKCS#8")]
    Malformed,
    #[error("private key is not an ECDSA key on the curve P-256")]
    NotP256,
    #[error("private key does not carry its public key")]
    NoPublicKey,
    #[error("private key is refused: {0}")]
    Refused(String),
}

/// A P-256 key pair that signs, with the SEC1 bytes under which it is stored.
pub(crate) struct EcKey {
    pair: rcgen::KeyPair,
    sec1: Vec<u8>,
}

impl EcKey {
    /// A fresh key.
    pub(crate) fn generate() -> Result<Self, PkiError> {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(PkiError::crypto)?;
        let sec1 = sec1_from_pkcs8(pair.serialized_der()).map_err(PkiError::crypto)?;
        Ok(Self { pair, sec1 })
    }

    /// Takes SEC1 bytes as they are: join tokens are signed with exactly these bytes.
    pub(crate) fn from_sec1(sec1: &[u8]) -> Result<Self, KeyError> {
        let pkcs8 = pkcs8_from_sec1(sec1)?;
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|err| KeyError::Refused(err.to_string()))?;
        Ok(Self { pair, sec1: sec1.to_vec() })
    }

    /// Takes a key from a PEM file, in either encoding.
    pub(crate) fn from_private_key(key: &PrivateKeyDer<'_>) -> Result<Self, KeyError> {
        match key {
            PrivateKeyDer::Sec1(sec1) => Self::from_sec1(sec1.secret_sec1_der()),
            PrivateKeyDer::Pkcs8(pkcs8) => Self::from_sec1(&sec1_from_pkcs8(pkcs8.secret_pkcs8_der())?),
            _ => Err(KeyError::NotP256),
        }
    }

    pub(crate) fn pair(&self) -> &rcgen::KeyPair {
        &self.pair
    }

    pub(crate) fn sec1(&self) -> &[u8] {
        &self.sec1
    }
}

/// Wraps SEC1 into PKCS#8, which is what `ring` reads.
fn pkcs8_from_sec1(sec1: &[u8]) -> Result<PrivatePkcs8KeyDer<'static>, KeyError> {
    let key = EcPrivateKey::try_from(sec1).map_err(|_| KeyError::Malformed)?;
    if key.parameters.and_then(EcParameters::named_curve) != Some(P256) {
        return Err(KeyError::NotP256);
    }
    if key.public_key.is_none() {
        return Err(KeyError::NoPublicKey);
    }
    let algorithm = AlgorithmIdentifierRef { oid: EC_PUBLIC_KEY, parameters: Some((&P256).into()) };
    let octets = OctetStringRef::new(sec1).map_err(|_| KeyError::Malformed)?;
    let der = PrivateKeyInfoRef::new(algorithm, octets).to_der().map_err(|_| KeyError::Malformed)?;
    Ok(PrivatePkcs8KeyDer::from(der))
}

/// Takes the SEC1 key out of PKCS#8 and names its curve within, without which Go does not read it.
fn sec1_from_pkcs8(pkcs8: &[u8]) -> Result<Vec<u8>, KeyError> {
    let info = PrivateKeyInfoRef::try_from(pkcs8).map_err(|_| KeyError::Malformed)?;
    let curve = info.algorithm.parameters_oid().map_err(|_| KeyError::NotP256)?;
    if info.algorithm.oid != EC_PUBLIC_KEY || curve != P256 {
        return Err(KeyError::NotP256);
    }
    let inner = EcPrivateKey::try_from(info.private_key.as_bytes()).map_err(|_| KeyError::Malformed)?;
    if inner.public_key.is_none() {
        return Err(KeyError::NoPublicKey);
    }
    EcPrivateKey { parameters: Some(EcParameters::NamedCurve(P256)), ..inner }.to_der().map_err(|_| KeyError::Malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_survives_both_encodings() {
        let key = EcKey::generate().unwrap();
        // SEQUENCE { INTEGER 1, OCTET STRING[32], [0] prime256v1, [1] public key }: what Go's MarshalECPrivateKey writes.
        assert_eq!(key.sec1().len(), 121);
        assert_eq!(key.sec1()[..7], [0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20]);
        let again = EcKey::from_sec1(key.sec1()).unwrap();
        assert_eq!(again.pair().public_key_raw(), key.pair().public_key_raw());
        let pkcs8 = PrivateKeyDer::Pkcs8(key.pair().serialized_der().to_vec().into());
        assert_eq!(EcKey::from_private_key(&pkcs8).unwrap().sec1(), key.sec1());
    }

    #[test]
    fn foreign_keys_are_refused() {
        assert_eq!(EcKey::from_sec1(b"nonsense").err(), Some(KeyError::Malformed));
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let p384 = PrivateKeyDer::Pkcs8(p384.serialized_der().to_vec().into());
        assert_eq!(EcKey::from_private_key(&p384).err(), Some(KeyError::NotP256));
        let mut broken = EcKey::generate().unwrap().sec1().to_vec();
        broken[10] ^= 1; // no longer the key of its public key
        assert!(matches!(EcKey::from_sec1(&broken), Err(KeyError::Refused(_))));
    }
}
