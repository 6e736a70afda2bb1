#![allow(clippy::unwrap_used)]
use rcgen::{Attribute, KeyPair};
use x509_parser::extensions::ParsedExtension;

use super::*;

const NOW: UnixMillis = UnixMillis(1_795_231_620_000);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn node() -> NodeName {
    NodeName::new("edge-1").unwrap()
}

fn csr(entries: &[(DnType, &str)], change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in entries {
        params.distinguished_name.push(kind.clone(), *value);
    }
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    params.serialize_request_with_attributes(&key, Vec::<Attribute>::new()).unwrap().der().to_vec()
}

const OWN: [(DnType, &str); 2] = [(DnType::OrganizationName, NODES), (DnType::CommonName, "system:node:edge-1")];

fn sign(ca: &CertificateAuthority, csr: &[u8]) -> Result<CertificateDer<'static>, SignError> {
    ca.sign_edge(csr, &node(), ExtKeyUsages::default(), YEAR, NOW)
}

#[test]
fn the_ca_has_the_profile_of_upstream() {
    let ca = CertificateAuthority::generate(NOW).unwrap();
    let (_, parsed) = parse_x509_certificate(ca.certificate()).unwrap();
    assert_eq!(parsed.subject().to_string(), "CN=KubeEdge");
    assert_eq!(parsed.raw_serial(), [4, 0]);
    assert!(parsed.is_ca());
    let usage = parsed.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.digital_signature() && usage.key_encipherment());
    let extended = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && extended.other.is_empty());
    assert_eq!(parsed.validity().not_after.timestamp(), seconds(NOW) + 36_400 * 86_400);

    let again = CertificateAuthority::from_der(ca.certificate().clone(), ca.key_der(), NOW).unwrap();
    assert_eq!(again.fingerprint(), ca.fingerprint());
}

#[test]
fn a_client_certificate_has_the_profile_of_upstream() {
    let ca = CertificateAuthority::generate(NOW).unwrap();
    let mut asked = vec![(DnType::CountryName, "CN"), (DnType::StateOrProvinceName, "Zhejiang")];
    asked.push((DnType::LocalityName, "Hangzhou"));
    asked.extend(OWN);
    let certificate = sign(&ca, &csr(&asked, |_| ())).unwrap();
    let (_, parsed) = parse_x509_certificate(&certificate).unwrap();
    assert_eq!(parsed.subject().to_string(), "O=system:nodes, CN=system:node:edge-1");
    assert_eq!(parsed.issuer().to_string(), "CN=KubeEdge");
    assert!(ca.has_signed(&parsed));
    assert!(!parsed.is_ca());
    assert!(parsed.subject_alternative_name().unwrap().is_none());
    let extended = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && !extended.server_auth);
    assert_eq!(parsed.validity().not_after.timestamp(), seconds(NOW) + 365 * 86_400);
    let authority = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    });
    assert_eq!(authority.map(|id| id.len()), Some(20));
}

#[test]
fn nothing_outlives_the_ca() {
    let ca = CertificateAuthority::generate(NOW).unwrap();
    let certificate = ca.sign_edge(&csr(&OWN, |_| ()), &node(), ExtKeyUsages::default(), CENTURY * 2, NOW).unwrap();
    let (_, parsed) = parse_x509_certificate(&certificate).unwrap();
    assert_eq!(parsed.validity().not_after.timestamp(), ca.not_after);
}

#[test]
fn only_the_nodes_own_name_is_signed() {
    let ca = CertificateAuthority::generate(NOW).unwrap();
    for entries in [
        &[(DnType::OrganizationName, "system:masters"), (DnType::CommonName, "system:node:edge-1")][..],
        &[(DnType::OrganizationName, NODES), (DnType::CommonName, "system:node:edge-2")],
        &[OWN[0].clone(), OWN[1].clone(), (DnType::OrganizationalUnitName, "x")],
        &OWN[1..],
        &[],
    ] {
        let refused = sign(&ca, &csr(entries, |_| ())).unwrap_err();
        assert!(matches!(refused, SignError::ForeignSubject { .. }), "{entries:?}: {refused}");
    }
    let named = csr(&OWN, |params| params.subject_alt_names.push(SanType::DnsName("cloud".try_into().unwrap())));
    assert!(matches!(sign(&ca, &named), Err(SignError::AlternativeNames)));
}

#[test]
fn a_request_must_be_whole_and_signed_by_its_key() {
    let ca = CertificateAuthority::generate(NOW).unwrap();
    let good = csr(&OWN, |_| ());
    for malformed in [&[][..], b"this is not a csr", &good[..good.len() - 1], &[&good[..], b"x"].concat()] {
        assert!(matches!(sign(&ca, malformed), Err(SignError::Malformed(_))));
    }
    let mut forged = good.clone();
    let at = forged.windows(6).position(|window| window == b"edge-1").unwrap();
    forged[at + 5] = b'2';
    assert!(matches!(sign(&ca, &forged), Err(SignError::BadSignature)));
}

#[test]
fn certificates_and_keys_that_do_not_fit_make_no_ca() {
    let (ca, other) = (CertificateAuthority::generate(NOW).unwrap(), CertificateAuthority::generate(NOW).unwrap());
    let of = |certificate: &CertificateDer<'static>, key: &[u8], now| {
        CertificateAuthority::checked(certificate.clone(), EcKey::from_sec1(key).unwrap(), now).err()
    };
    assert_eq!(of(ca.certificate(), other.key_der(), NOW), Some(AuthorityError::OtherKey));
    let later = UnixMillis(NOW.0 + 101 * 365 * 86_400_000);
    assert!(matches!(of(ca.certificate(), ca.key_der(), later), Some(AuthorityError::Expired(_))));
    let (leaf, key) = ca.issue_server(&[], &["cloud".into()], YEAR, NOW).unwrap();
    assert_eq!(of(&leaf, key.sec1(), NOW), Some(AuthorityError::NotACa));
    assert_eq!(of(&CertificateDer::from(vec![1]), ca.key_der(), NOW), Some(AuthorityError::Malformed));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_signer_fail_badly(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        flips in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0..8u8), 1..4),
    ) {
        use std::sync::LazyLock;
        static GOOD: LazyLock<(CertificateAuthority, Vec<u8>)> =
            LazyLock::new(|| (CertificateAuthority::generate(NOW).unwrap(), csr(&OWN, |_| ())));
        let (ca, good) = &*GOOD;
        let mut damaged = good.clone();
        for (at, bit) in flips {
            let at = at.index(damaged.len());
            damaged[at] ^= 1 << bit;
        }
        for request in [&bytes, &damaged] {
            // Damage that does no harm is possible, in bits that nobody reads.
            if let Ok(certificate) = sign(ca, request) {
                let (_, parsed) = parse_x509_certificate(&certificate).unwrap();
                proptest::prop_assert_eq!(parsed.subject().to_string(), "O=system:nodes, CN=system:node:edge-1");
            }
        }
    }
}
