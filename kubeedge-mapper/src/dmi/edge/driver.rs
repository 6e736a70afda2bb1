use std::{collections::BTreeMap, fmt, sync::Arc};

use kubeedge_core::service::Causes;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    lane::Lane,
    persist::{self, MapperRecord},
    plan::Told,
    reports::ReportsDriver,
    server::Manager,
    state::{Mapper, Shared},
};
use crate::{
    backoff::Retry,
    dmi::{rpc::ManagerService, socket::Socket},
};

/// Serves mappers and calls them.
#[must_use = "no mapper is served unless it runs"]
pub struct DmiDriver {
    shared: Arc<Shared>,
    reports: ReportsDriver,
}

impl DmiDriver {
    pub(super) fn new(shared: Arc<Shared>, reports: ReportsDriver) -> Self {
        Self { shared, reports }
    }

    /// Runs until `shutdown`. A socket that cannot be listened at, and a store that cannot be read, are tried again with
    /// growing pauses. Calls under way have a second to end.
    ///
    /// # Cancel safety
    /// Dropping the future ends all calls; the next start goes on where this one was.
    pub async fn run(self, shutdown: CancellationToken) {
        let node = Node { shared: self.shared };
        let Some(()) = shutdown.run_until_cancelled(node.load()).await else { return };
        let mut lanes = JoinSet::new();
        tokio::select! {
            _ = async { tokio::join!(node.serve(&shutdown), node.lanes(&mut lanes, &shutdown)) } => {}
            () = self.reports.run() => {}
        }
        lanes.shutdown().await;
    }
}

impl fmt::Debug for DmiDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmiDriver").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

/// What runs besides the reports.
struct Node {
    shared: Arc<Shared>,
}

impl Node {
    /// Mappers of the last run.
    async fn load(&self) {
        let mut retry = Retry::default();
        let (mappers, told) = loop {
            match persist::load(&self.shared.config.store).await {
                Ok(loaded) => break loaded,
                Err(error) => {
                    tracing::warn!(error = %Causes(&error), "mappers of the last run cannot be read, trying again");
                    self.pause(&mut retry).await;
                }
            }
        };
        let mut by_protocol: BTreeMap<String, Told> = BTreeMap::new();
        for (protocol, id, device) in told {
            let told = by_protocol.entry(protocol).or_default();
            told.models.insert(device.model.clone(), None);
            told.devices.insert(id, device);
        }
        let mut state = self.shared.lock();
        for record in mappers {
            let Some(path) = record.path() else { continue };
            let told = by_protocol.remove(&record.protocol).unwrap_or_default();
            let MapperRecord { protocol, .. } = record.clone();
            state.mappers.insert(protocol, Mapper { record, path, epoch: 0, told });
        }
        drop(state);
        self.shared.changed();
    }

    async fn serve(&self, shutdown: &CancellationToken) {
        let path = &self.shared.config.socket;
        let mut retry = Retry::default();
        let socket = loop {
            match Socket::bind(path) {
                Ok(socket) => break socket,
                Err(error) => {
                    tracing::error!(error = %Causes(&error), "mappers cannot register, trying again");
                    if shutdown.run_until_cancelled(self.pause(&mut retry)).await.is_none() {
                        return;
                    }
                }
            }
        };
        tracing::info!(socket = %path.display(), "mappers can register");
        socket.serve(ManagerService::new(Arc::new(Manager(Arc::clone(&self.shared)))), shutdown.clone()).await;
    }

    /// Starts a lane for each mapper. Lanes end with the driver: a mapper is never unlearned.
    async fn lanes(&self, lanes: &mut JoinSet<()>, shutdown: &CancellationToken) {
        let mut changes: watch::Receiver<u64> = self.shared.changes();
        changes.mark_changed();
        let mut known = Vec::new();
        while let Some(Ok(())) = shutdown.run_until_cancelled(changes.changed()).await {
            let protocols: Vec<_> =
                self.shared.lock().mappers.keys().filter(|of| !known.contains(*of)).cloned().collect();
            for protocol in protocols {
                let lane = Lane::new(Arc::clone(&self.shared), protocol.clone());
                lanes.spawn(lane.run());
                known.push(protocol);
            }
        }
    }

    async fn pause(&self, retry: &mut Retry) {
        let now = Instant::now().into_std();
        retry.failed(self.shared.config.backoff, now);
        sleep_until(retry.at(now).into()).await;
    }
}
