#![allow(clippy::unwrap_used)]
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kubeedge_core::names::WallClock as _;
use tempfile::tempdir;
use tokio::time::{Instant, timeout};

use super::*;
use crate::pki::{
    Pki, PkiFiles,
    fake_api::FakeApi,
    tests::{TestClock, config, short_server_certificate},
};

const SECRET: &str = "/api/v1/namespaces/kubeedge/secrets/cloudcoresecret";
const DAY: Duration = Duration::from_secs(86_400);

struct Cloud {
    api: FakeApi,
    clock: Arc<TestClock>,
}

impl Cloud {
    fn new() -> Self {
        Self { api: FakeApi::new(), clock: TestClock::new() }
    }

    async fn instance(&self, config: PkiConfig) -> Pki {
        Pki::load_or_create(&self.api.client(), config, self.clock.clone() as SharedClock).await.unwrap()
    }

    /// The first certificate is due to be renewed after a day.
    async fn make_short(&self) {
        let pki = self.instance(config()).await;
        short_server_certificate(&self.api, &pki, DAY * 31, self.clock.now());
    }

    fn stored(&self) -> Vec<u8> {
        STANDARD.decode(self.api.get(SECRET).unwrap()["data"]["cloudcoredata"].as_str().unwrap()).unwrap()
    }
}

fn leaf(pki: &Pki) -> Vec<u8> {
    pki.server_certificate().chain()[0].to_vec()
}

/// Runs the renewal of `pki` until it shows another certificate, or for an hour.
async fn changes(pki: &Pki) -> bool {
    let mut server = pki.server_renewal().server.subscribe();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(pki.server_renewal().run(shutdown.clone()));
    let changed = timeout(Duration::from_secs(3_600), server.changed()).await.is_ok();
    shutdown.cancel();
    running.await.unwrap();
    changed
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_before_it_ends_and_by_one_instance_only() {
    let cloud = Cloud::new();
    cloud.make_short().await;
    let (one, two) = (cloud.instance(config()).await, cloud.instance(config()).await);
    let first = leaf(&one);
    assert_eq!(leaf(&two), first);
    assert!(!changes(&one).await);
    cloud.clock.advance(DAY * 2);
    assert!(changes(&one).await);
    assert_ne!(leaf(&one), first);
    assert_eq!(cloud.stored(), leaf(&one));
    // The other one sees it, and does not make one of its own.
    assert!(changes(&two).await);
    assert_eq!(leaf(&two), leaf(&one));
    assert_eq!(cloud.stored(), leaf(&one));
}

#[tokio::test(start_paused = true)]
async fn instances_with_other_addresses_do_not_fight() {
    let cloud = Cloud::new();
    let one = cloud.instance(config()).await;
    let mut elsewhere = config();
    elsewhere.advertise_addresses = vec!["192.0.2.9".parse().unwrap()];
    let two = cloud.instance(elsewhere).await;
    assert_ne!(leaf(&one), leaf(&two));
    assert!(!changes(&one).await && !changes(&two).await);
    assert_eq!(cloud.stored(), leaf(&two));
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again() {
    let cloud = Cloud::new();
    cloud.make_short().await;
    let pki = cloud.instance(config()).await;
    cloud.clock.advance(DAY * 2);
    cloud.api.fail_next(3);
    let started = Instant::now();
    assert!(changes(&pki).await);
    assert!(started.elapsed() > PERIOD.mul_f64(4.0 * 0.8), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_from_files_is_never_replaced_but_followed() {
    let (cloud, folder) = (Cloud::new(), tempdir().unwrap());
    let mut config = config();
    let files = PkiFiles { certificate: folder.path().join("server.crt"), key: folder.path().join("server.key") };
    config.server_files = Some(files.clone());
    let plain = cloud.instance(crate::pki::tests::config()).await;
    let write = |certificate: &ServerCertificate| {
        let pem = |tag: &str, der: &[u8]| pem::encode(&pem::Pem::new(tag, der));
        std::fs::write(&files.certificate, pem("CERTIFICATE", &certificate.chain()[0])).unwrap();
        std::fs::write(&files.key, pem("EC PRIVATE KEY", certificate.key().secret_der())).unwrap();
    };
    // For other addresses, and about to end: as the operator wants it.
    let mut odd = crate::pki::tests::config();
    odd.dns_names = vec!["odd.example".into()];
    write(&ServerCertificate::issue(plain.authority(), &odd, cloud.clock.now()).unwrap());
    let pki = cloud.instance(config).await;
    let first = leaf(&pki);
    assert_eq!(pki.server_certificate().check(plain.authority(), &odd, cloud.clock.now()), Ok(()));
    cloud.clock.advance(DAY * (36_400 - 29));
    assert!(!changes(&pki).await);
    assert_eq!((leaf(&pki), cloud.stored()), (first.clone(), first));

    let second = ServerCertificate::issue(plain.authority(), &odd, cloud.clock.now()).unwrap();
    std::fs::write(&files.certificate, "half written").unwrap();
    assert!(!changes(&pki).await);
    write(&second);
    assert!(changes(&pki).await);
    assert_eq!(leaf(&pki), second.chain()[0].as_ref());
    assert_eq!(cloud.stored(), leaf(&pki));
}
