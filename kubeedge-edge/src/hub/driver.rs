use std::{convert::Infallible, fmt, time::Duration};

use futures_util::{FutureExt as _, SinkExt as _};
use kubeedge_core::{
    names::SharedClock,
    service::Causes,
    transport::{Link, LinkError, TransportHandle},
    uplink::{Inbound, LinkState, UplinkHandle},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    calls::{Call, Calls},
    config::HubConfig,
    connection::{Connection, End, refuse},
};
use crate::backoff::Backoff;

/// How long a link may take to close before it is dropped.
const CLOSE: Duration = Duration::from_secs(1);

/// Dials the cloud, drives the session over the link, and dials again.
///
/// * The first dial is made at once; later ones after pauses that grow and are random, see [`HubConfig::reconnect`].
/// * Messages of the cloud go to the inbound service one at a time and in order. What it answers is sent; an error is
///   told to the cloud, which sends the message again. While it is not ready the socket is not read, so it must not wait
///   for an answer of the cloud.
/// * Answers that come too late for whoever asked are acknowledged, as the cloud repeats them otherwise.
/// * A call fails with [`Disconnected`] while there is no link, and when the link ends before the call is settled.
///
/// [`Disconnected`]: kubeedge_core::uplink::UplinkError::Disconnected
#[must_use = "nothing is dialed unless it runs"]
pub struct HubDriver {
    config: HubConfig,
    transport: TransportHandle,
    inbound: Inbound,
    clock: SharedClock,
    calls: mpsc::Receiver<Call>,
    state: watch::Sender<LinkState>,
}

impl HubDriver {
    /// A driver and the handle to what it will connect.
    pub fn new(
        config: HubConfig,
        transport: TransportHandle,
        inbound: Inbound,
        clock: SharedClock,
    ) -> (UplinkHandle, Self) {
        let (queue, calls) = mpsc::channel(config.calls);
        let (state, watched) = watch::channel(LinkState::Disconnected);
        let uplink = UplinkHandle::new(Calls::new(queue, watched.clone()), watched);
        (uplink, Self { config, transport, inbound, clock, calls, state })
    }

    /// Runs until `shutdown`: then what is being stored and written is finished, within the close timeout, and the link
    /// is closed.
    ///
    /// # Cancel safety
    /// May be dropped at any point: the link is cut, and what was not acknowledged comes again.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(self.config.first_pause, self.config.longest_pause);
        let mut session = 0;
        let mut complaint = String::new();
        loop {
            let Some(dialed) = shutdown.run_until_cancelled(self.dial()).await else { break };
            match dialed {
                Ok(link) => {
                    session += 1;
                    complaint.clear();
                    let begin = Instant::now();
                    let served = self.serve(link, session, &shutdown).await;
                    if served.heard && begin.elapsed() >= self.config.longest_pause {
                        backoff.reset();
                    }
                    if served.redial {
                        continue;
                    }
                }
                Err(error) => {
                    let (why, server) = (Causes(&error).to_string(), &self.config.endpoint.server);
                    // An offline week is one warning, unless the reason changes.
                    if why == complaint {
                        tracing::debug!(error = why, server, "still no link to the cloud");
                    } else {
                        tracing::warn!(error = why, server, "no link to the cloud, dialing until there is one");
                        complaint = why;
                    }
                }
            }
            let pause = backoff.pause();
            tracing::debug!(?pause, "next dial after a pause");
            let waited = tokio::select! {
                biased;
                waited = shutdown.run_until_cancelled(sleep(pause)) => waited,
                never = refuse_all(&mut self.calls) => match never {},
            };
            if waited.is_none() {
                break;
            }
        }
    }

    async fn dial(&mut self) -> Result<Box<dyn Link>, LinkError> {
        if let Some(signal) = &self.config.redial {
            // A signal of before this dial is answered by it.
            let _heard = signal.notified().now_or_never();
        }
        tokio::select! {
            biased;
            dialed = self.transport.dial(self.config.endpoint.clone()) => dialed,
            never = refuse_all(&mut self.calls) => match never {},
        }
    }

    /// Serves a link to its end.
    async fn serve(&mut self, link: Box<dyn Link>, session: u64, shutdown: &CancellationToken) -> Served {
        tracing::info!(server = self.config.endpoint.server, session, "connected to the cloud");
        self.state.send_replace(LinkState::Connected { session });
        let mut connection = Connection::new(&self.config, &self.clock, &mut self.inbound, &mut self.calls, link);
        let leave = async {
            let redial = async {
                match &self.config.redial {
                    Some(signal) => signal.notified().await,
                    None => std::future::pending().await,
                }
            };
            // To stop comes first.
            shutdown.run_until_cancelled(redial).await.is_some()
        };
        let (end, redial) = tokio::select! {
            biased;
            end = &mut connection => (Some(end), false),
            redial = leave => (None, redial),
        };
        let end = if let Some(end) = end {
            end
        } else {
            connection.begin_close();
            timeout(self.config.close_timeout, &mut connection).await.unwrap_or(End::Finished)
        };
        let heard = connection.heard();
        self.state.send_replace(LinkState::Disconnected);
        let mut link = connection.end();
        match end {
            End::Finished => tracing::info!(session, "link to the cloud closed"),
            end => tracing::warn!(error = &end as &dyn std::error::Error, session, "link to the cloud lost"),
        }
        // The old link first: a Go cloud lets the end of an old one end a new session of the same node.
        if !matches!(timeout(CLOSE, link.close()).await, Ok(Ok(()))) {
            tracing::debug!(session, "link was dropped without being closed");
        }
        Served { heard, redial }
    }
}

/// How a link was.
struct Served {
    /// Whether the cloud has sent anything.
    heard: bool,
    /// Whether it was closed for another one to be made.
    redial: bool,
}

impl fmt::Debug for HubDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubDriver").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Tells callers that there is no link.
async fn refuse_all(calls: &mut mpsc::Receiver<Call>) -> Infallible {
    while let Some(call) = calls.recv().await {
        refuse(call);
    }
    std::future::pending().await
}
