use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use kubeedge_core::{
    device::DeviceInstance,
    mapper::DriverMaker,
    names::{DeviceId, PropertyName},
    twin::{Twin, TwinValue},
};
use tokio::{
    sync::{mpsc, watch as newest},
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    MapperConfig, Wanted,
    demand::{Demand, DemandError},
    device::DeviceTask,
    directive::Directive,
    watch::{Change, TwinWatch},
};
use crate::push::Targets;

/// Runs a mapper host.
#[derive(Debug)]
pub struct MapperHostDriver {
    shared: Arc<Shared>,
    wanted: newest::Receiver<Wanted>,
    demands: mpsc::Receiver<(DeviceId, Demand)>,
}

/// What all devices have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: MapperConfig,
    pub(super) drivers: BTreeMap<String, DriverMaker>,
    pub(super) targets: Targets,
}

/// A device task as the host sees it.
struct Running {
    directive: newest::Sender<Directive>,
    demands: mpsc::Sender<Demand>,
    /// The desired values of the last event: events that change none do not disturb the task.
    desired: BTreeMap<PropertyName, TwinValue>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MapperHostDriver {
    /// Longest time for the device tasks to end at shutdown.
    const GRACE: Duration = Duration::from_secs(1);
    /// Demands that wait for one device at most.
    const DEMANDS: usize = 16;

    pub(super) fn new(
        config: MapperConfig,
        drivers: BTreeMap<String, DriverMaker>,
        wanted: newest::Receiver<Wanted>,
        demands: mpsc::Receiver<(DeviceId, Demand)>,
    ) -> Self {
        Self { shared: Arc::new(Shared { config, drivers, targets: Targets::default() }), wanted, demands }
    }

    /// Keeps the devices polled until `shutdown`; the tasks of the devices end with it, within one second.
    ///
    /// What a device was asked in that moment is left unanswered, and reports that the twins have not taken are left
    /// unsent: the next start reads and reports everything anew.
    ///
    /// # Cancel safety
    /// Dropping the future ends all tasks.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut tasks = JoinSet::new();
        let mut running = HashMap::new();
        let config = &self.shared.config;
        let mut twins = TwinWatch::new(config.twins.clone(), config.call_timeout, config.backoff);
        self.wanted.mark_changed();
        let mut handles_left = true;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                changed = self.wanted.changed(), if handles_left => match changed {
                    Ok(()) => self.reconcile(&mut tasks, &mut running),
                    // Nobody can change the devices any more; those that there are go on.
                    Err(_) => handles_left = false,
                },
                Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                    self.restart(&mut tasks, &mut running, ended);
                }
                Some((device, demand)) = self.demands.recv() => self.forward(&running, &device, demand),
                change = twins.next() => match change {
                    Change::Twin(twin) => twin_changed(&mut running, &twin),
                    Change::All => running.values_mut().for_each(read_twin_again),
                },
            }
        }
        running.clear();
        if timeout(Self::GRACE, tasks.shutdown()).await.is_err() {
            tracing::warn!("a driver blocks its thread: its device did not end in time");
        }
    }

    fn reconcile(&mut self, tasks: &mut JoinSet<()>, running: &mut HashMap<DeviceId, Running>) {
        let wanted = self.wanted.borrow_and_update().clone();
        running.retain(|device, _| {
            let stays = wanted.contains_key(device);
            if !stays {
                tracing::info!(%device, "device removed");
            }
            stays
        });
        for (device, instance) in wanted {
            if let Some(running) = running.get(&device) {
                running.directive.send_if_modified(|directive| {
                    let differs = directive.instance != instance;
                    directive.instance = instance;
                    differs
                });
            } else {
                tracing::info!(%device, protocol = instance.protocol, "device added");
                let started = self.start(tasks, instance, Duration::ZERO);
                running.insert(device, started);
            }
        }
    }

    fn forward(&self, running: &HashMap<DeviceId, Running>, device: &DeviceId, demand: Demand) {
        let refused = match running.get(device) {
            Some(running) => running.demands.try_send(demand).map_err(|error| (error.into_inner(), DemandError::Busy)),
            None => Err((demand, DemandError::UnknownDevice(device.clone()))),
        };
        if let Err((demand, why)) = refused {
            demand.answer(device, self.shared.config.audit.as_ref(), Err(why));
        }
    }

    fn start(&self, tasks: &mut JoinSet<()>, instance: Arc<DeviceInstance>, delay: Duration) -> Running {
        let (directive, receiver) = newest::channel(Directive { instance, twin_changes: 0 });
        let (demands, demanded) = mpsc::channel(Self::DEMANDS);
        let shared = Arc::clone(&self.shared);
        let task = tasks.spawn(async move {
            tokio::time::sleep(delay).await;
            DeviceTask::new(shared, receiver, demanded).run().await;
        });
        Running { directive, demands, desired: BTreeMap::new(), task }
    }

    /// A task ends by itself only when a driver panics.
    fn restart(
        &self,
        tasks: &mut JoinSet<()>,
        running: &mut HashMap<DeviceId, Running>,
        ended: Result<(Id, ()), JoinError>,
    ) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let Some((device, entry)) = running.iter_mut().find(|(_, running)| running.task.id() == id) else { return };
        tracing::error!(%device, "driver failed badly, it is opened again: {:?}", ended.err().map(|err| err.to_string()));
        let instance = Arc::clone(&entry.directive.borrow().instance);
        *entry = self.start(tasks, instance, self.shared.config.backoff.most);
    }
}

fn read_twin_again(running: &mut Running) {
    running.directive.send_modify(|directive| directive.twin_changes += 1);
}

/// An event only says that there may be something new: the task reads the twin itself, so that events that come late or
/// twice cannot bring back an old wish.
fn twin_changed(running: &mut HashMap<DeviceId, Running>, twin: &Twin) {
    let Some(running) = running.get_mut(&twin.device) else { return };
    let desired: BTreeMap<_, _> =
        twin.properties.iter().filter_map(|(name, property)| Some((name.clone(), property.desired.clone()?))).collect();
    if running.desired != desired {
        running.desired = desired;
        read_twin_again(running);
    }
}
