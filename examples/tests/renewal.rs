//! A node whose certificate is renewed, or has ended, against a whole cloud. The clock of both ends is moved by hand.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use kubeedge_cloud::{
    apiserver::EmbeddedApi,
    cloud::{CloudCore, CloudCoreHandle},
    hub::{Destination, FromNode},
    pki::{Pki, PkiConfig},
};
use kubeedge_core::{
    message::{Content, Message},
    meta::MetaHandle,
    names::{UnixMillis, WallClock as _},
    outbox::{self, Subject},
    resource::{ObjectPath, ResourceType},
    testing::{ManualClock, MemoryStore},
    transport::TransportHandle,
    uplink::LinkState,
    words::{Group, Operation, Source},
};
use kubeedge_edge::{
    config::{EdgeCore, EdgeCoreConfig, EdgeCoreHandle},
    hub::WebSocket,
    node::EdgeNode,
    pki::{CertificateConfig, CertificateFiles, EdgeCertificates},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const DAY: Duration = Duration::from_secs(86_400);
/// For anything that takes no longer than a few pauses between dials.
const SOON: Duration = Duration::from_secs(30);

/// A cloud whose certificates are good for ten days, and what it has got of its node.
struct Field {
    cloud: CloudCoreHandle,
    clock: Arc<ManualClock>,
    got: Arc<Mutex<BTreeSet<String>>>,
}

impl Field {
    async fn start() -> Self {
        let clock = Arc::new(ManualClock::new(UnixMillis::from_system(std::time::SystemTime::now())));
        let api = EmbeddedApi::builder().in_memory().build().await.unwrap();
        let mut pki = PkiConfig::new(vec![Ipv4Addr::LOCALHOST.into()]);
        pki.edge_certificate_validity = 10 * DAY;
        let got: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let (any, kept, time) = ((Ipv4Addr::LOCALHOST, 0).into(), got.clone(), clock.clone());
        let part = tower::service_fn(move |from: FromNode| {
            kept.lock().unwrap().insert(from.message.content.as_text().unwrap_or_default());
            std::future::ready(Ok::<_, std::convert::Infallible>(Some(from.message.acknowledgement(time.now()))))
        });
        let builder = CloudCore::builder(api.client("default")).pki(pki).websocket(any).https(any);
        let cloud = builder.clock(clock.clone()).route(Destination::Edge, part).spawn().await.unwrap();
        Self { cloud, clock, got }
    }

    fn certificates(&self, folder: &Path, token: Option<String>) -> EdgeCertificates {
        let url = format!("https://{}", self.cloud.https_addr());
        let mut config = CertificateConfig::new("edge-1".parse().unwrap(), url, CertificateFiles::in_dir(folder));
        config.token = token;
        EdgeCertificates::new(config, self.clock.clone()).unwrap()
    }

    /// The agent as the reference binary makes it, without pods and MQTT.
    async fn agent(&self, folder: &Path) -> EdgeCoreHandle {
        let path = |name: &str| folder.join(name).display().to_string();
        let mut config = EdgeCoreConfig::default();
        config.database.data_source = path("edgecore.db");
        config.modules.event_bus.enable = false;
        config.modules.edged.enable = false;
        config.modules.device_twin.dmi_sock_path = path("");
        config.modules.edged.hostname_override = "edge-1".into();
        let hub = &mut config.modules.edge_hub;
        hub.http_server = format!("https://{}", self.cloud.https_addr());
        hub.websocket.server = self.cloud.websocket_addr().to_string();
        (hub.tls_ca_file, hub.tls_cert_file) = (path("rootCA.crt"), path("server.crt"));
        hub.tls_private_key_file = path("server.key");
        let core =
            EdgeCore::from_config(&config).unwrap().token_file(Some(folder.join("token"))).clock(self.clock.clone());
        core.start().await.unwrap()
    }

    /// As an operator gets it from the cloud.
    async fn fresh_token(&self) -> String {
        let config = PkiConfig::new(vec![Ipv4Addr::LOCALHOST.into()]);
        let pki = Pki::load_or_create(&self.cloud.client(), config, self.clock.clone()).await.unwrap();
        pki.join_token().as_str().to_owned()
    }
}

async fn connected(mut state: watch::Receiver<LinkState>, session: u64) {
    let reached = state.wait_for(|state| matches!(state, LinkState::Connected { session: now } if *now >= session));
    timeout(SOON, reached).await.expect("a session in time").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_used_at_once_and_nothing_is_lost_meanwhile() {
    let (field, folder) = (Field::start().await, tempfile::tempdir().unwrap());
    let certificates = field.certificates(folder.path(), Some(field.fresh_token().await));
    let first = certificates.obtain().await.unwrap();
    let (identity, watched) = watch::channel(Some(first.clone()));
    let (redial, store) = (Arc::new(Notify::new()), MetaHandle::of(MemoryStore::new()));
    let signal = redial.clone();
    let node = EdgeNode::builder("edge-1")
        .endpoint(field.cloud.websocket_addr().to_string())
        .transport(TransportHandle::of(WebSocket::following(watched)))
        .meta_store(store.clone())
        .clock(field.clock.clone())
        .hub(move |config| config.redial(signal).rate(None))
        .spawn()
        .await
        .unwrap();
    connected(node.link_state(), 1).await;

    let leave = async |numbers: std::ops::Range<u32>| {
        for number in numbers {
            let path = ObjectPath::namespaced("default", ResourceType::PodPatch, &format!("pod-{number}")).unwrap();
            let message = Message::new(field.clock.now(), Source::Edged, Group::Meta, Operation::Patch, path);
            let message = message.content(Content::text(&number.to_string()));
            let subject = Subject::new(format!("pod-{number}")).unwrap();
            store.commit(vec![outbox::leave(&subject, &message)]).await.unwrap();
        }
    };
    leave(0..100).await;
    field.clock.advance(9 * DAY);
    let renewal = certificates.renewal(first);
    let mut renewed = renewal.watch();
    let stop = CancellationToken::new();
    let renewing = tokio::spawn(renewal.run(stop.clone()));
    timeout(SOON, renewed.changed()).await.unwrap().unwrap();
    identity.send_replace(Some(renewed.borrow_and_update().clone()));
    redial.notify_one();
    leave(100..200).await;
    connected(node.link_state(), 2).await;
    leave(200..300).await;
    // Days after the first one has ended the node still gets in, for instance after a restart of the network.
    field.clock.advance(2 * DAY);
    redial.notify_one();
    connected(node.link_state(), 3).await;
    let all: BTreeSet<String> = (0..300).map(|number| number.to_string()).collect();
    let arrived = async {
        while *field.got.lock().unwrap() != all {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, arrived).await.expect("everything arrives");
    stop.cancel();
    renewing.await.unwrap();
    node.shutdown(SOON).await.unwrap();
    field.cloud.shutdown(SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_certificate_has_ended_recovers_when_it_gets_a_token() {
    let (field, folder) = (Field::start().await, tempfile::tempdir().unwrap());
    let token = folder.path().join("token");
    std::fs::write(&token, field.fresh_token().await).unwrap();
    let agent = field.agent(folder.path()).await;
    connected(agent.node().link_state(), 1).await;
    agent.shutdown(SOON).await.unwrap();

    // It sleeps for too long. The token that it joined with has ended as well.
    field.clock.advance(11 * DAY);
    let agent = field.agent(folder.path()).await;
    let state = agent.node().link_state();
    assert!(!state.borrow().is_connected());
    // An operator puts a fresh one there; nobody restarts anything.
    std::fs::write(&token, field.fresh_token().await).unwrap();
    connected(state, 1).await;
    agent.shutdown(SOON).await.unwrap();
    field.cloud.shutdown(SOON).await;
}
