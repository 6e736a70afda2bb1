//! Reports on their way to the twins: those of one device that wait at the same time share a commit.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use kubeedge_core::{
    names::{DeviceId, PropertyName},
    service::Causes,
    twin::{TwinError, TwinPatch},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};
use tonic::Status;

use super::DmiConfig;

/// Most reports of one commit.
const MAX_BATCH: usize = 64;

/// A report, and who waits for it. It is carried out even if nobody does any more.
struct Report {
    device: DeviceId,
    desired: TwinPatch,
    /// Has all properties that the report is about.
    reported: TwinPatch,
    answer: oneshot::Sender<Result<(), Status>>,
    _slot: OwnedSemaphorePermit,
}

/// Where reports are left.
#[derive(Debug)]
pub(super) struct Reports {
    slots: Arc<Semaphore>,
    queue: mpsc::Sender<Report>,
}

/// Carries out what is left at [`Reports`].
pub(super) struct ReportsDriver {
    config: DmiConfig,
    queue: mpsc::Receiver<Report>,
}

pub(super) fn channel(config: &DmiConfig) -> (Reports, ReportsDriver) {
    let most = config.reports.clamp(1, Semaphore::MAX_PERMITS);
    let (sender, receiver) = mpsc::channel(most);
    let reports = Reports { slots: Arc::new(Semaphore::new(most)), queue: sender };
    (reports, ReportsDriver { config: config.clone(), queue: receiver })
}

impl Reports {
    /// A place for one report or state, or the refusal.
    pub(super) fn slot(&self) -> Result<OwnedSemaphorePermit, Status> {
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        slot.map_err(|_| Status::resource_exhausted("too many reports are under way"))
    }

    /// Resolves when the values are at the twins. Of one device reports are carried out in their order.
    pub(super) async fn tell(
        &self,
        slot: OwnedSemaphorePermit,
        device: DeviceId,
        desired: TwinPatch,
        reported: TwinPatch,
    ) -> Result<(), Status> {
        let (answer, answered) = oneshot::channel();
        // There are as many places in the queue as slots. Where nobody takes the report the answer is dropped with it.
        let _ = self.queue.send(Report { device, desired, reported, answer, _slot: slot }).await;
        answered.await.unwrap_or_else(|_| Err(Status::unavailable("the node is stopping")))
    }
}

impl ReportsDriver {
    /// Runs as long as anybody can leave reports.
    pub(super) async fn run(mut self) {
        // A device is here while it is busy.
        let mut waiting: HashMap<DeviceId, VecDeque<Report>> = HashMap::new();
        let mut busy = FuturesUnordered::new();
        loop {
            tokio::select! {
                report = self.queue.recv() => {
                    let Some(report) = report else { return };
                    match waiting.entry(report.device.clone()) {
                        Entry::Vacant(idle) => {
                            idle.insert(VecDeque::new());
                            busy.push(carry_out(&self.config, vec![report]));
                        }
                        Entry::Occupied(mut queue) => queue.get_mut().push_back(report),
                    }
                }
                Some(device) = busy.next(), if !busy.is_empty() => {
                    let batch = waiting.get_mut(&device).map(next_batch).unwrap_or_default();
                    if batch.is_empty() {
                        waiting.remove(&device);
                    } else {
                        busy.push(carry_out(&self.config, batch));
                    }
                }
            }
        }
    }
}

/// Reports about properties of their own: two values of one property are two changes.
fn next_batch(queue: &mut VecDeque<Report>) -> Vec<Report> {
    let mut batch: Vec<Report> = Vec::new();
    while let Some(next) = queue.front() {
        let known = |report: &Report| report.reported.keys().any(|name| next.reported.contains_key(name));
        if batch.len() >= MAX_BATCH || batch.iter().any(known) {
            break;
        }
        batch.extend(queue.pop_front());
    }
    batch
}

/// Carries out the reports and answers them; tells whose they were.
async fn carry_out(config: &DmiConfig, batch: Vec<Report>) -> DeviceId {
    let device = batch[0].device.clone();
    let all =
        |of: fn(&Report) -> &TwinPatch| batch.iter().flat_map(of).map(|(name, value)| (name.clone(), value.clone()));
    let (desired, reported) = (all(|report| &report.desired).collect(), all(|report| &report.reported).collect());
    match write(config, &device, desired, reported).await {
        // One is at fault, and the others are not to suffer.
        Err(TwinError::Invalid { .. }) if batch.len() > 1 => {
            for Report { device, desired, reported, answer, .. } in batch {
                let outcome = write(config, &device, desired, reported).await;
                // Nobody waiting is fine, here and below.
                let _ = answer.send(outcome.map_err(|error| status(&error)));
            }
        }
        outcome => {
            let outcome = outcome.map_err(|error| status(&error));
            for report in batch {
                let _ = report.answer.send(outcome.clone());
            }
        }
    }
    device
}

async fn write(
    config: &DmiConfig,
    device: &DeviceId,
    desired: TwinPatch,
    reported: TwinPatch,
) -> Result<(), TwinError> {
    let write = async {
        // What is desired is for the cloud and for applications to say: a mapper repeats what it was told last, and may be
        // late. It counts where nobody has said anything. The desired value first: a value that has reached it is then no
        // difference to tell of.
        if !desired.is_empty() {
            let known = config.twins.get(device.clone()).await?.properties;
            let unsaid = |name: &PropertyName| known.get(name).is_none_or(|property| property.desired.is_none());
            let desired: TwinPatch = desired.into_iter().filter(|(name, _)| unsaid(name)).collect();
            if !desired.is_empty() {
                config.twins.desire(device.clone(), desired).await?;
            }
        }
        if !reported.is_empty() {
            config.twins.report(device.clone(), reported).await?;
        }
        Ok(())
    };
    timeout(config.call_timeout, write).await.unwrap_or(Err(TwinError::TimedOut))
}

pub(super) fn status(error: &TwinError) -> Status {
    let text = Causes(error).to_string();
    match error {
        TwinError::UnknownDevice(_) => Status::not_found(text),
        TwinError::Invalid { .. } => Status::invalid_argument(text),
        TwinError::Busy => Status::resource_exhausted(text),
        TwinError::TimedOut => Status::deadline_exceeded(text),
        _ => Status::unavailable(text),
    }
}
