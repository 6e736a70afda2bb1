#![allow(clippy::unwrap_used)]
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kubeedge_core::names::{SharedClock, UnixMillis, WallClock};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use x509_parser::parse_x509_certificate;

use super::{CertificateAuthority, Pki, PkiConfig, PkiError, PkiFiles, fake_api::FakeApi};

const CA: &str = "/api/v1/namespaces/kubeedge/secrets/casecret";
const SERVER: &str = "/api/v1/namespaces/kubeedge/secrets/cloudcoresecret";
const TOKEN: &str = "/api/v1/namespaces/kubeedge/secrets/tokensecret";

/// Stands still until it is told to move.
pub(crate) struct TestClock(Mutex<UnixMillis>);

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(UnixMillis(1_795_231_620_000))))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.lock().unwrap().0 += i64::try_from(by.as_millis()).unwrap();
    }
}

impl WallClock for TestClock {
    fn now(&self) -> UnixMillis {
        *self.0.lock().unwrap()
    }
}

pub(crate) fn config() -> PkiConfig {
    PkiConfig::new(vec!["127.0.0.1".parse().unwrap()])
}

async fn load(api: &FakeApi, config: PkiConfig, clock: &Arc<TestClock>) -> Result<Pki, PkiError> {
    Pki::load_or_create(&api.client(), config, clock.clone() as SharedClock).await
}

fn data(api: &FakeApi, secret: &str, key: &str) -> Vec<u8> {
    let secret = api.get(secret).unwrap();
    assert_eq!(secret["type"], "Opaque");
    STANDARD.decode(secret["data"][key].as_str().unwrap()).unwrap()
}

fn leaf(pki: &Pki) -> CertificateDer<'static> {
    pki.server_certificate().chain()[0].clone()
}

#[tokio::test]
async fn what_is_made_is_stored_as_upstream_stores_it() {
    let (api, clock) = (FakeApi::new(), TestClock::new());
    let pki = load(&api, config(), &clock).await.unwrap();
    assert!(api.get("/api/v1/namespaces/kubeedge").is_some());
    assert_eq!(data(&api, CA, "cadata"), pki.authority().certificate().as_ref());
    assert_eq!(data(&api, CA, "cakeydata"), pki.authority().key_der());
    assert_eq!(data(&api, SERVER, "cloudcoredata"), leaf(&pki).as_ref());
    assert_eq!(data(&api, SERVER, "cloudcorekeydata"), pki.server_certificate().key().secret_der());
    assert_eq!(data(&api, TOKEN, "tokendata"), pki.join_token().as_str().as_bytes());

    let certificate = leaf(&pki);
    let (_, parsed) = parse_x509_certificate(&certificate).unwrap();
    assert_eq!(parsed.subject().to_string(), "O=KubeEdge, CN=KubeEdge");
    assert!(parsed.extended_key_usage().unwrap().unwrap().value.server_auth);

    let token = pki.join_token();
    let (hash, jwt) = token.as_str().split_once('.').unwrap();
    assert_eq!(hash, pki.authority().fingerprint());
    clock.advance(Duration::from_secs(24 * 3600 - 1));
    pki.authority().verify_token(jwt, clock.now()).unwrap();
    clock.advance(Duration::from_secs(1));
    assert!(pki.authority().verify_token(jwt, clock.now()).is_err());
}

#[tokio::test]
async fn a_restart_finds_the_same_certificates() {
    let (api, clock) = (FakeApi::new(), TestClock::new());
    let first = load(&api, config(), &clock).await.unwrap();
    clock.advance(Duration::from_secs(60));
    let second = load(&api, config(), &clock).await.unwrap();
    assert_eq!(first.authority().certificate(), second.authority().certificate());
    assert_eq!(leaf(&first), leaf(&second));
    assert_ne!(first.join_token(), second.join_token());
}

#[tokio::test]
async fn instances_that_start_at_once_agree_on_the_ca() {
    let (api, clock) = (FakeApi::new(), TestClock::new());
    let (one, two) = tokio::join!(load(&api, config(), &clock), load(&api, config(), &clock));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.authority().fingerprint(), two.authority().fingerprint());
    assert_eq!(data(&api, CA, "cadata"), one.authority().certificate().as_ref());
}

#[tokio::test]
async fn the_server_certificate_follows_addresses_and_time() {
    let (api, clock) = (FakeApi::new(), TestClock::new());
    let first = load(&api, config(), &clock).await.unwrap();
    let mut moved = config();
    moved.dns_names = vec!["cloud.example".into(), String::new()];
    let second = load(&api, moved.clone(), &clock).await.unwrap();
    assert_eq!(first.authority().certificate(), second.authority().certificate());
    assert_ne!(leaf(&first), leaf(&second));
    assert_eq!(data(&api, SERVER, "cloudcoredata"), leaf(&second).as_ref());
    assert_eq!(leaf(&load(&api, moved.clone(), &clock).await.unwrap()), leaf(&second));

    // Nobody can use a certificate of another CA.
    api.remove(CA);
    let third = load(&api, moved.clone(), &clock).await.unwrap();
    assert_ne!(leaf(&second), leaf(&third));
    let day = Duration::from_secs(86_400);
    let short = short_server_certificate(&api, &third, 31 * day, clock.now());
    assert_eq!(leaf(&load(&api, config(), &clock).await.unwrap()), short);
    clock.advance(2 * day);
    let fourth = load(&api, config(), &clock).await.unwrap();
    assert_ne!(leaf(&fourth), short);
    // Nothing is better than what ends with the CA.
    clock.advance(day * (36_400 - 10));
    assert_eq!(leaf(&load(&api, config(), &clock).await.unwrap()), leaf(&fourth));
}

/// Puts a certificate into the Secret that is valid for `validity` only.
pub(crate) fn short_server_certificate(
    api: &FakeApi,
    pki: &Pki,
    validity: Duration,
    now: UnixMillis,
) -> CertificateDer<'static> {
    let (certificate, key) = pki.authority().issue_server(&config().advertise_addresses, &[], validity, now).unwrap();
    let mut secret = api.get(SERVER).unwrap();
    secret["data"]["cloudcoredata"] = STANDARD.encode(&certificate).into();
    secret["data"]["cloudcorekeydata"] = STANDARD.encode(key.sec1()).into();
    api.put(SERVER, secret);
    certificate
}

#[tokio::test]
async fn a_broken_ca_is_reported_and_never_replaced() {
    let (api, clock) = (FakeApi::new(), TestClock::new());
    load(&api, config(), &clock).await.unwrap();
    let mut broken = api.get(CA).unwrap();
    broken["data"]["cakeydata"] = json!("AAAA");
    api.put(CA, broken.clone());
    let err = load(&api, config(), &clock).await.unwrap_err();
    assert_eq!(err.to_string(), "secret kubeedge/casecret cannot be used");
    assert!(!err.is_transient());
    broken["data"]["cakeydata"] = json!("");
    api.put(CA, broken.clone());
    assert!(matches!(load(&api, config(), &clock).await, Err(PkiError::Unusable { .. })));
    assert_eq!(api.get(CA), Some(broken));
}

#[tokio::test]
async fn half_a_server_certificate_is_made_anew() {
    let (api, clock) = (FakeApi::new(), TestClock::new());
    load(&api, config(), &clock).await.unwrap();
    let mut broken = api.get(SERVER).unwrap();
    broken["data"]["cloudcorekeydata"] = json!("");
    api.put(SERVER, broken);
    let pki = load(&api, config(), &clock).await.unwrap();
    assert_eq!(data(&api, SERVER, "cloudcorekeydata"), pki.server_certificate().key().secret_der());
}

#[tokio::test]
async fn an_empty_ca_secret_is_filled() {
    let (api, clock) = (FakeApi::new(), TestClock::new());
    api.put(CA, json!({ "metadata": { "name": "casecret" }, "type": "Opaque" }));
    let pki = load(&api, config(), &clock).await.unwrap();
    assert_eq!(data(&api, CA, "cadata"), pki.authority().certificate().as_ref());
}

#[tokio::test]
async fn local_files_win_and_are_copied_into_the_secrets() {
    let (api, clock, folder) = (FakeApi::new(), TestClock::new(), tempfile::tempdir().unwrap());
    load(&api, config(), &clock).await.unwrap();
    let files = |name: &str| PkiFiles {
        certificate: folder.path().join(format!("{name}.crt")),
        key: folder.path().join(format!("{name}.key")),
    };
    let mut config = config();
    (config.ca_files, config.server_files) = (Some(files("ca")), Some(files("server")));
    let own = CertificateAuthority::generate(clock.now()).unwrap();
    let server = super::ServerCertificate::issue(&own, &config, clock.now()).unwrap();
    let write = |path: &std::path::Path, tag: &str, der: &[u8]| {
        std::fs::write(path, pem::encode(&pem::Pem::new(tag, der))).unwrap();
    };
    write(&files("ca").certificate, "CERTIFICATE", own.certificate());

    let err = load(&api, config.clone(), &clock).await.unwrap_err();
    let text =
        format!("{} is missing although {} is there", files("ca").key.display(), files("ca").certificate.display());
    assert_eq!(err.to_string(), text);

    write(&files("ca").key, "EC PRIVATE KEY", own.key_der());
    write(&files("server").certificate, "CERTIFICATE", &server.chain()[0]);
    write(&files("server").key, "EC PRIVATE KEY", server.key().secret_der());
    let pki = load(&api, config.clone(), &clock).await.unwrap();
    assert_eq!(pki.authority().certificate(), own.certificate());
    assert_eq!(leaf(&pki), server.chain()[0]);
    assert_eq!(data(&api, CA, "cadata"), own.certificate().as_ref());
    assert_eq!(data(&api, SERVER, "cloudcoredata"), server.chain()[0].as_ref());

    write(&files("server").key, "EC PRIVATE KEY", own.key_der());
    let err = load(&api, config.clone(), &clock).await.unwrap_err();
    assert!(err.to_string().contains("server.crt"), "{err}");

    std::fs::write(&files("ca").key, "no key").unwrap();
    let err = load(&api, config, &clock).await.unwrap_err();
    assert!(err.to_string().contains("ca.key"), "{err}");
}

#[tokio::test]
async fn an_api_that_is_away_may_be_tried_again() {
    let (api, clock) = (FakeApi::new(), TestClock::new());
    api.fail_next(1);
    let err = load(&api, config(), &clock).await.unwrap_err();
    assert!(err.is_transient());
    assert_eq!(err.to_string(), "cannot read namespace kubeedge");
    load(&api, config(), &clock).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_token_is_refreshed_through_failures() {
    let (api, clock) = (FakeApi::new(), TestClock::new());
    let pki = load(&api, config(), &clock).await.unwrap();
    let before = pki.join_token();
    clock.advance(Duration::from_secs(12 * 3600));
    let shutdown = CancellationToken::new();
    api.fail_next(3);
    api.remove(TOKEN);
    let mut tokens = pki.join_tokens();
    let started = tokio::time::Instant::now();
    let running = tokio::spawn(pki.token_refresher().run(shutdown.clone()));
    tokens.changed().await.unwrap();
    let waited = started.elapsed();
    let earliest = Duration::from_secs(12 * 3600).mul_f64(0.95) + Duration::from_secs(5);
    assert!(waited >= earliest && waited < Duration::from_secs(12 * 3600 + 10), "{waited:?}");
    shutdown.cancel();
    running.await.unwrap();
    let after = data(&api, TOKEN, "tokendata");
    assert_ne!(after, before.as_str().as_bytes());
    assert_eq!(after, pki.join_token().as_str().as_bytes());
}

#[tokio::test(start_paused = true)]
async fn instances_share_the_token_that_one_of_them_has_written() {
    let (api, clock) = (FakeApi::new(), TestClock::new());
    let (one, two) = (load(&api, config(), &clock).await.unwrap(), load(&api, config(), &clock).await.unwrap());
    let shutdown = CancellationToken::new();
    clock.advance(Duration::from_secs(12 * 3600));
    // An hour later, the second one finds that the first has been there.
    let mut tokens = one.join_tokens();
    let running = tokio::spawn(one.token_refresher().run(shutdown.clone()));
    tokens.changed().await.unwrap();
    clock.advance(Duration::from_secs(3600));
    let mut tokens = two.join_tokens();
    let other = tokio::spawn(two.token_refresher().run(shutdown.clone()));
    tokens.changed().await.unwrap();
    assert_eq!(two.join_token(), one.join_token());
    assert_eq!(data(&api, TOKEN, "tokendata"), one.join_token().as_str().as_bytes());

    // Of another CA, or nonsense: replaced.
    let foreign = CertificateAuthority::generate(clock.now()).unwrap();
    let forever = UnixMillis(clock.now().0 * 2);
    for bad in [foreign.mint_token(forever).unwrap().as_str(), "nonsense"] {
        let mut secret = api.get(TOKEN).unwrap();
        secret["data"]["tokendata"] = STANDARD.encode(bad).into();
        api.put(TOKEN, secret);
        clock.advance(Duration::from_secs(1));
        tokens.changed().await.unwrap();
        let written = String::from_utf8(data(&api, TOKEN, "tokendata")).unwrap();
        assert!(written.starts_with(one.authority().fingerprint()), "{written}");
    }
    shutdown.cancel();
    running.await.unwrap();
    other.await.unwrap();
}

/// What Go cloudcore's own packages have made, in place of what it would have stored.
fn secrets_of_go(api: &FakeApi) -> serde_json::Value {
    let made: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/go-secrets.json")).unwrap();
    let secret = |name: &str, data: serde_json::Value| {
        let path = format!("/api/v1/namespaces/kubeedge/secrets/{name}");
        api.put(&path, json!({ "metadata": { "name": name }, "type": "Opaque", "data": data }));
    };
    secret("casecret", json!({ "cadata": made["Cadata"], "cakeydata": made["Cakeydata"] }));
    let server = json!({ "cloudcoredata": made["Cloudcoredata"], "cloudcorekeydata": made["Cloudcorekeydata"] });
    secret("cloudcoresecret", server);
    secret("tokensecret", json!({ "tokendata": made["Tokendata"] }));
    made
}

#[tokio::test]
async fn the_secrets_of_a_go_cloudcore_are_taken_over_as_they_are() {
    let (api, clock) = (FakeApi::new(), TestClock::new());
    let made = secrets_of_go(&api);
    let bytes = |key: &str| STANDARD.decode(made[key].as_str().unwrap()).unwrap();
    let before = (api.get(CA), api.get(SERVER));
    let pki = load(&api, config(), &clock).await.unwrap();
    assert_eq!(pki.authority().certificate().as_ref(), bytes("Cadata"));
    assert_eq!(pki.authority().key_der(), bytes("Cakeydata"), "the key of tokens is these very bytes");
    assert_eq!(leaf(&pki).as_ref(), bytes("Cloudcoredata"), "also with the empty name that Go puts in");
    assert_eq!((api.get(CA), api.get(SERVER)), before, "nothing was rewritten");
    // A token that Go has handed out lets nodes in.
    let token = String::from_utf8(bytes("Tokendata")).unwrap();
    let (hash, jwt) = token.split_once('.').unwrap();
    assert_eq!(hash, pki.authority().fingerprint());
    pki.authority().verify_token(jwt, clock.now()).unwrap();
}
