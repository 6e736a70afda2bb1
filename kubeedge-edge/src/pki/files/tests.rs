#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt as _;

use kubeedge_core::names::NodeName;
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::pki::key::KeyRequest;

struct Pair {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn pair() -> Pair {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap().der().clone();
    Pair { certificate, key: PrivateKeyDer::Pkcs8(key.serialized_der().to_vec().into()) }
}

async fn read(files: &CertificateFiles) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let stored = files.read().await.unwrap().ok().unwrap();
    let (_, chain, key) = stored.parse().unwrap();
    (chain, key)
}

#[tokio::test]
async fn what_is_written_is_read_and_the_key_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let files = CertificateFiles::in_dir(folder.path().join("certs"));
    assert_eq!(files.read().await.unwrap().err(), Some(files.ca.clone()));
    let (ca, own) = (pair(), pair());
    files.write_ca(&ca.certificate).await.unwrap();
    assert_eq!(files.read().await.unwrap().err(), Some(files.certificate.clone()));
    files.write_pair(&own.certificate, &own.key).await.unwrap();
    let (chain, key) = read(&files).await;
    assert_eq!((&chain[0], key), (&own.certificate, own.key));
    assert_eq!(fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);

    let made = KeyRequest::make(&NodeName::new("edge-1").unwrap()).unwrap();
    files.write_pair(&own.certificate, &made.key).await.unwrap();
    assert!(fs::read_to_string(&files.key).unwrap().starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
}

/// What `write_pair` does, cut off after `steps`.
fn interrupted(files: &CertificateFiles, new: &Pair, steps: usize) {
    let (key, certificate) = (pem("PRIVATE KEY", new.key.secret_der()), pem("CERTIFICATE", &new.certificate));
    let all: [&dyn Fn(); 4] = [
        &|| write_beside(&files.key, key.as_bytes(), 0o600).unwrap(),
        &|| write_beside(&files.certificate, certificate.as_bytes(), 0o644).unwrap(),
        &|| put_in_place(&files.key).unwrap(),
        &|| put_in_place(&files.certificate).unwrap(),
    ];
    all[..steps].iter().for_each(|step| step());
}

#[tokio::test]
async fn a_power_cut_leaves_the_old_pair_or_the_new_one() {
    for steps in 0..=4 {
        let folder = tempfile::tempdir().unwrap();
        let files = CertificateFiles::in_dir(folder.path());
        let (old, new) = (pair(), pair());
        files.write_ca(&old.certificate).await.unwrap();
        files.write_pair(&old.certificate, &old.key).await.unwrap();
        interrupted(&files, &new, steps);
        let (chain, key) = read(&files).await;
        let expected = if steps < 3 { &old } else { &new };
        assert_eq!((&chain[0], &key), (&expected.certificate, &expected.key), "after {steps} steps");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "after {steps} steps");
    }
}

#[tokio::test]
async fn a_power_cut_during_the_first_join_leaves_all_or_nothing() {
    for steps in 0..=4 {
        let folder = tempfile::tempdir().unwrap();
        let files = CertificateFiles::in_dir(folder.path());
        let new = pair();
        files.write_ca(&new.certificate).await.unwrap();
        interrupted(&files, &new, steps);
        assert_eq!(files.read().await.unwrap().is_ok(), steps >= 3, "after {steps} steps");
    }
}

#[tokio::test]
async fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = CertificateFiles::in_dir(folder.path());
    files.ca = folder.path().to_owned();
    let err = files.read().await.err().unwrap();
    assert_eq!(err.to_string(), format!("cannot read {}", folder.path().display()));
    files.ca = folder.path().join("rootCA.crt");
    fs::write(&files.key, "x").unwrap();
    files.certificate = files.key.join("below-a-file");
    let err = files.write_pair(&pair().certificate, &pair().key).await.unwrap_err();
    assert!(err.to_string().contains("server.key"), "{err}");
}
