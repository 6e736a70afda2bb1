//! A TCP balancer: round robin, and the connections of an instance that is killed are cut.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

struct Backend {
    address: SocketAddr,
    cut: CancellationToken,
}

pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
    backends: Arc<Mutex<Vec<Backend>>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Balancer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let backends = Arc::new(Mutex::new(Vec::<Backend>::new()));
        let all = backends.clone();
        let accepting = tokio::spawn(async move {
            let mut turn = 0;
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let next = {
                    let backends = all.lock().unwrap();
                    turn += 1;
                    (!backends.is_empty()).then(|| &backends[turn % backends.len()]).map(|b| (b.address, b.cut.clone()))
                };
                let Some((address, cut)) = next else { continue };
                tokio::spawn(cut.run_until_cancelled_owned(async move {
                    if let Ok(mut server) = TcpStream::connect(address).await {
                        let _over = copy_bidirectional(&mut client, &mut server).await;
                    }
                }));
            }
        });
        Self { address, backends, _accepting: AbortOnDropHandle::new(accepting) }
    }

    pub(crate) fn add(&self, address: SocketAddr) {
        self.backends.lock().unwrap().push(Backend { address, cut: CancellationToken::new() });
    }

    /// As when the machine dies: its connections break, and new ones go elsewhere.
    pub(crate) fn remove(&self, address: SocketAddr) {
        self.backends.lock().unwrap().retain(|backend| {
            if backend.address == address {
                backend.cut.cancel();
            }
            backend.address != address
        });
    }
}
