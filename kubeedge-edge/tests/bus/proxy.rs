//! A TCP proxy whose connections can be cut.

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) struct Proxy {
    pub(crate) url: String,
    cut: tokio::sync::watch::Sender<()>,
    _stop: DropGuard,
}

impl Proxy {
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let (cut, cuts) = tokio::sync::watch::channel(());
        let stop = CancellationToken::new();
        let stop_on_drop = stop.clone().drop_guard();
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            let mut pipes = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                pipes.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        }));
        Self { url, cut, _stop: stop_on_drop }
    }

    /// Cuts all connections that stand.
    pub(crate) fn cut(&self) {
        self.cut.send(()).unwrap();
    }
}
