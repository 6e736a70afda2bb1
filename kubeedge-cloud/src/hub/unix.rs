//! A Unix socket for nodes on the same machine.

use kubeedge_core::transport::stream;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::door::{Guests, HubDoor, Rejected, accepted};

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
        let guests = Guests::of_sockets(self.clone(), shutdown);
        guests
            .serve(async |guests: &Guests| {
                loop {
                    let room = guests.room().await;
                    let Some((socket, _)) = accepted(listener.accept().await).await else { continue };
                    let (door, admit) = (self.clone(), guests.admission());
                    let knock = async move {
                        // An error shows again when it is read.
                        let _ = socket.readable().await;
                        socket
                    };
                    let shake = async move |socket| {
                        let dialed = stream::accept(socket, PEER).await?;
                        let node = dialed.hello().node.clone();
                        match admit(dialed.hello(), &node) {
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
                    guests.spawn(room, PEER, knock, shake, |(mut link, admitted, door), shutdown| async move {
                        door.converse(admitted, &mut link, &PEER, &shutdown).await;
                    });
                }
            })
            .await;
    }
}
