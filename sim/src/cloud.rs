//! The software of the cloud: the real one, with a listener of the simulation for a door.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use kubeedge_cloud::{
    cloud::CloudCore,
    hub::{HubConfig, HubDoor},
    pki::PkiConfig,
};
use kubeedge_core::transport::stream;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use turmoil::net::{TcpListener, TcpStream};

use crate::{
    api::Api,
    clock::HostClock,
    link::{LIMIT, PORT},
};

const HANDSHAKE: Duration = Duration::from_secs(2);

/// Runs the cloud until it crashes.
pub(crate) async fn run(api: Api, clock: Arc<HostClock>) -> turmoil::Result {
    let hub = HubConfig::default()
        .keepalive(Duration::from_secs(3))
        .resend(Duration::from_secs(1), 5)
        .write_timeout(Duration::from_secs(3))
        .message_limit(LIMIT);
    let cloud = CloudCore::builder(api.client())
        .pki(PkiConfig::new(vec![Ipv4Addr::LOCALHOST.into()]))
        .without_websocket()
        .without_https()
        .hub(hub)
        .clock(clock)
        .spawn()
        .await?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    let guests = TaskTracker::new();
    loop {
        tokio::select! {
            biased;
            why = cloud.stopped() => return Err(why.into()),
            accepted = listener.accept() => {
                let (socket, _) = accepted?;
                guests.spawn(converse(cloud.door().clone(), socket));
            }
        }
    }
}

async fn converse(door: HubDoor, socket: TcpStream) {
    let shake = async {
        let dialed = stream::accept(socket, "edge").await.ok()?;
        // There are no certificates here.
        let node = dialed.hello().node.clone();
        match door.admit(dialed.hello(), &node) {
            Ok(admitted) => Some((dialed.welcome(admitted.extensions(), LIMIT).await.ok()?, admitted)),
            Err(refusal) => {
                dialed.refuse(&refusal).await.ok()?;
                None
            }
        }
    };
    if let Ok(Some((mut link, admitted))) = timeout(HANDSHAKE, Box::pin(shake)).await {
        door.converse(admitted, &mut link, &"edge", &CancellationToken::new()).await;
    }
}
