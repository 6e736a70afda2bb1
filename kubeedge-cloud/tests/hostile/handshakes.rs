use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    MIB, resident,
    support::{Credentials, Edge, SOON, Site},
};

/// Ten thousand connections that never finish a handshake: half of them say nothing, half begin a TLS record.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_half_open_handshakes_keep_nobody_out() {
    let site = Site::new().await;
    let cloud = site.cloud().await;
    let credentials = Credentials::of(&site.client, "edge-1").await;
    let mut inside = Edge::connect(&cloud, "edge-2").await;
    let before = resident();

    let address = cloud.websocket_addr();
    let mut crowd = Vec::new();
    for count in 0..10_000_u32 {
        // When the backlog is full the kernel lets a connection wait, so not all of them get as far as this.
        let Ok(Ok(mut stream)) = timeout(Duration::from_millis(500), TcpStream::connect(address)).await else {
            continue;
        };
        if count % 2 == 0 {
            let _ = stream.write_all(&[0x16, 0x03, 0x01, 0x40, 0x00, 0x01]).await;
        }
        crowd.push(stream);
        if count % 1000 == 999 {
            let answer = inside.ask("query", "kube-node-lease/lease/edge-2", Value::Null).await;
            assert_eq!(answer["content"]["Err"]["ErrStatus"]["code"], 404, "who is inside does not notice");
        }
    }
    assert!(crowd.len() > 8_000, "{} of the crowd connected", crowd.len());

    let begin = Instant::now();
    let mut newcomer = timeout(SOON * 3, Edge::connect_as(&cloud, &credentials, "edge-1")).await.expect("gets in");
    let answer = newcomer.ask("query", "kube-node-lease/lease/edge-1", Value::Null).await;
    assert_eq!(answer["content"]["Err"]["ErrStatus"]["code"], 404);
    println!("a newcomer got in after {:?}, past a crowd of {}", begin.elapsed(), crowd.len());
    let more = resident().saturating_sub(before) / MIB;
    assert!(more < 128, "{more} MiB for the crowd, which includes its own end");
    cloud.shutdown(SOON).await;
}
