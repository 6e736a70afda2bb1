//! A Unix socket for nodes on the same machine.

use std::time::Duration;

use kubeedge_core::transport::stream;
use tokio::{net::UnixListener, time::sleep};
use tokio_util::sync::CancellationToken;

use super::door::{Guests, HubDoor, Rejected};

/// Pause after a failed `accept`, which happens when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What the log and errors call such a peer.
const PEER: &str = "peer on a Unix socket";

impl HubDoor {
    /// Accepts nodes on `listener` until `shutdown`; then says farewell to all.
    ///
    /// Whoever may open the socket may be any node: the permissions of its file are all that is checked.
    ///
    /// # Cancel safety
    /// Dropping the future ends all sessions.
    pub async fn unix(&self, listener: UnixListener, shutdown: CancellationToken) {
        let guests = Guests::new(self.clone(), shutdown);
        guests
            .serve(async |guests: &Guests| {
                loop {
                    let guest = guests.room().await;
                    match listener.accept().await {
                        Ok((socket, _)) => {
                            let door = self.clone();
                            let shake = async move |socket| {
                                let dialed = stream::accept(socket, PEER).await?;
                                let node = dialed.hello().node.clone();
                                match door.admit(dialed.hello(), &node) {
                                    Ok(admitted) => {
                                        let link = dialed.welcome(admitted.extensions(), door.message_limit()).await?;
                                        Ok((link, admitted, door))
                                    }
                                    Err(refusal) => {
                                        dialed.refuse(&refusal).await?;
                                        Err(Rejected::Refused(refusal, node))
                                    }
                                }
                            };
                            guests.spawn(
                                guest,
                                PEER,
                                std::future::ready(socket),
                                shake,
                                |(mut link, admitted, door), shutdown| async move {
                                    door.converse(admitted, &mut link, &PEER, &shutdown).await;
                                },
                            );
                        }
                        Err(err) => {
                            tracing::warn!(%err, "cannot accept connections on a Unix socket");
                            sleep(ACCEPT_PAUSE).await;
                        }
                    }
                }
            })
            .await;
    }
}
