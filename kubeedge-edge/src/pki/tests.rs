#![allow(clippy::unwrap_used)]
use std::fs;

use kubeedge_core::service::Causes;
use tempfile::tempdir;

use super::{
    CertificateError, CertificateFiles, IdentityError,
    fake_cloud::{Behaviour, FakeCloud, LIFE, token_for},
};

#[tokio::test]
async fn a_node_joins_once_and_then_has_its_certificate() {
    let (cloud, folder) = (FakeCloud::start(Behaviour::Good).await, tempdir().unwrap());
    let certificates = cloud.certificates(folder.path(), Some(cloud.token()));
    assert!(certificates.stored().await.unwrap().is_none());
    let identity = certificates.obtain().await.unwrap();
    assert_eq!(identity.node().as_str(), "edge-1");
    assert_eq!(identity.not_after().0 - identity.not_before().0, i64::try_from(LIFE.as_millis()).unwrap());
    let asked = cloud.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[0].head.starts_with("get /ca.crt http/1.1\r\n") && !asked[0].head.contains("authorization"));
    assert!(asked[1].head.starts_with("get /edge.crt http/1.1\r\n"));
    assert!(asked[1].head.contains("\r\nauthorization: bearer head.claims.signature\r\n"));
    assert!(asked[1].head.contains("\r\nnodename: edge-1\r\n"));

    // Found again, with no token and nobody to ask.
    let again = cloud.certificates(folder.path(), None).obtain().await.unwrap();
    assert_eq!(again.not_after(), identity.not_after());
    assert_eq!(cloud.asked().len(), 2);
}

#[tokio::test]
async fn a_ca_with_another_hash_is_not_trusted_and_sees_no_token() {
    let (cloud, folder) = (FakeCloud::start(Behaviour::Good).await, tempdir().unwrap());
    let token = token_for(b"another CA");
    let err = cloud.certificates(folder.path(), Some(token.clone())).obtain().await.unwrap_err();
    let url = format!("{}/ca.crt", cloud.url());
    let text = format!("CA at {url} has the hash {}, but the join token is for {}", &cloud.token()[..64], &token[..64]);
    assert_eq!(err.to_string(), text);
    assert!(!err.is_transient());
    assert_eq!(cloud.asked().len(), 1);
    assert!(!cloud.asked()[0].head.contains("signature"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn who_delivers_the_right_ca_without_its_key_sees_no_token() {
    let (cloud, folder) = (FakeCloud::start(Behaviour::Impostor).await, tempdir().unwrap());
    let err = cloud.certificates(folder.path(), Some(cloud.token())).obtain().await.unwrap_err();
    assert!(Causes(&err).to_string().contains("invalid peer certificate"), "{}", Causes(&err));
    assert!(err.to_string().starts_with("cannot reach https://127.0.0.1:"), "{err}");
    assert_eq!(cloud.asked().len(), 1, "only /ca.crt");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_the_cloud_says_is_passed_on() {
    let folder = tempdir().unwrap();
    let cloud = FakeCloud::start(Behaviour::Says(401, "token validation failure, err: token is expired")).await;
    let certificates = cloud.certificates(folder.path(), Some(cloud.token()));
    let err = certificates.obtain().await.unwrap_err();
    let text = format!("{}/edge.crt answered 401: token validation failure, err: token is expired", cloud.url());
    assert_eq!(err.to_string(), text);
    assert!(!err.is_transient());
    cloud.now_is(Behaviour::Says(503, "later"));
    assert!(certificates.obtain().await.unwrap_err().is_transient());
    cloud.now_is(Behaviour::Endless);
    assert!(
        Causes(&certificates.obtain().await.unwrap_err()).to_string().ends_with("answer is longer than 1048576 bytes")
    );
}

#[tokio::test]
async fn a_certificate_that_is_not_ours_is_not_kept() {
    let folder = tempdir().unwrap();
    let cloud = FakeCloud::start(Behaviour::OtherNode).await;
    let certificates = cloud.certificates(folder.path(), Some(cloud.token()));
    let refused = async |behaviour| {
        cloud.now_is(behaviour);
        match certificates.obtain().await.unwrap_err() {
            CertificateError::BadAnswer { source, .. } => source,
            other => panic!("{other}"),
        }
    };
    assert!(matches!(refused(Behaviour::OtherNode).await, IdentityError::OtherNode { .. }));
    assert!(matches!(refused(Behaviour::OtherKey).await, IdentityError::Tls(_)));
    assert!(matches!(refused(Behaviour::Says(200, "hello")).await, IdentityError::Malformed { what: "certificate" }));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn an_expired_certificate_takes_a_token() {
    let (cloud, folder) = (FakeCloud::start(Behaviour::Good).await, tempdir().unwrap());
    let first = cloud.certificates(folder.path(), Some(cloud.token())).obtain().await.unwrap();
    cloud.clock.advance(LIFE);
    let certificates = cloud.certificates(folder.path(), None);
    let err = certificates.obtain().await.unwrap_err();
    let path = folder.path().join("server.crt");
    let text = format!("the certificate in {} has expired, and there is no join token", path.display());
    assert_eq!(err.to_string(), text);
    // The file of a token is read anew each time.
    fs::write(folder.path().join("token"), "nonsense").unwrap();
    let err = certificates.obtain().await.unwrap_err();
    assert_eq!(err.to_string(), format!("join token in {} cannot be used", folder.path().join("token").display()));
    fs::write(folder.path().join("token"), format!("{}\n", cloud.token())).unwrap();
    let second = certificates.obtain().await.unwrap();
    assert!(second.not_before() >= first.not_after());
    assert!(cloud.asked().iter().all(|asked| !asked.by_certificate), "an expired certificate is not shown");
}

#[tokio::test]
async fn the_certificate_of_another_node_is_replaced_or_reported() {
    let (cloud, folder) = (FakeCloud::start(Behaviour::Good).await, tempdir().unwrap());
    cloud.certificates(folder.path(), Some(cloud.token())).obtain().await.unwrap();
    fs::write(folder.path().join("server.key"), "no key").unwrap();
    let err = cloud.certificates(folder.path(), None).obtain().await.unwrap_err();
    assert!(
        Causes(&err).to_string().ends_with("server.crt cannot be used: private key cannot be parsed"),
        "{}",
        Causes(&err)
    );
    cloud.certificates(folder.path(), Some(cloud.token())).obtain().await.unwrap();
    assert!(cloud.certificates(folder.path(), None).stored().await.unwrap().is_some());
}

#[tokio::test]
async fn nobody_there_may_be_tried_again() {
    let (cloud, folder) = (FakeCloud::start(Behaviour::Good).await, tempdir().unwrap());
    let certificates = cloud.certificates(folder.path(), Some(cloud.token()));
    let url = cloud.url();
    drop(cloud);
    let err = certificates.obtain().await.unwrap_err();
    assert_eq!(err.to_string(), format!("cannot reach {url}/ca.crt"));
    assert!(err.is_transient());
}

#[tokio::test]
async fn an_identity_says_which_file_is_missing() {
    let (cloud, folder) = (FakeCloud::start(Behaviour::Good).await, tempdir().unwrap());
    let files = CertificateFiles::in_dir(folder.path());
    let err = super::Identity::load(&files, cloud.clock.clone()).await.unwrap_err();
    assert_eq!(err.to_string(), format!("cannot read {}", files.ca.display()));
}
