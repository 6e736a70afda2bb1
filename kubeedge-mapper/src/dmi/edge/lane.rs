//! The calls to one mapper, one after the other.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use kubeedge_core::{meta::MetaWrite, names::DeviceId, service::Causes};
use tokio::{
    sync::watch,
    time::{sleep_until, timeout},
};
use tonic::{Code, Status};

use super::{
    persist,
    plan::{Call, Subject, ToldDevice},
    state::{Shared, Target},
};
use crate::{
    backoff::Retry,
    dmi::{
        rpc::MapperCalls,
        socket::{Dialed, dial},
        wire,
    },
};

/// So often a mapper may answer that it will not let a device or model go; then it counts as gone.
const REMOVALS: u32 = 3;

pub(super) struct Lane {
    shared: Arc<Shared>,
    protocol: String,
    changes: watch::Receiver<u64>,
    target: Option<Target>,
    dialed: Option<Dialed>,
    /// Of the connection as a whole.
    line: Retry,
    /// Of what the mapper refused or did not answer, with the call and how often. Others go before it meanwhile.
    failed: BTreeMap<Subject, (Call, u32, Retry)>,
}

/// How a call went.
enum Outcome {
    Done,
    /// The mapper answered, but not as wished.
    Refused(Status),
    /// No answer: nobody knows whether it was done.
    Lost(String),
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, protocol: String) -> Self {
        let changes = shared.changes();
        let (line, failed) = (Retry::default(), BTreeMap::new());
        Self { shared, protocol, changes, target: None, dialed: None, line, failed }
    }

    /// Runs until the host is gone.
    pub(super) async fn run(mut self) {
        loop {
            self.changes.borrow_and_update();
            let target = self.shared.lock().target(&self.protocol);
            if target != self.target {
                // Another process, or at least one that knows nothing of what was asked before.
                self.target = target;
                self.dialed = None;
                self.line.clear();
                self.failed.clear();
            }
            if let Some(call) = self.next() {
                self.carry_out(call).await;
                continue;
            }
            let wake = self.wake();
            let sleep = async {
                match wake {
                    Some(wake) => sleep_until(wake.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.changes.changed() => if changed.is_err() { return },
                () = sleep => {}
            }
        }
    }

    fn next(&self) -> Option<Call> {
        let now = now();
        if self.target.is_none() || !self.line.is_ready(now) {
            return None;
        }
        let ready = |call: &Call| match self.failed.get(&call.subject()) {
            // Something newer is tried at once.
            Some((failed, _, retry)) => failed != call || retry.is_ready(now),
            None => true,
        };
        let state = self.shared.lock();
        let fresh = state.next_call(&self.protocol, |call| !self.failed.contains_key(&call.subject()));
        fresh.or_else(|| state.next_call(&self.protocol, ready))
    }

    /// When something that failed is tried again.
    fn wake(&self) -> Option<Instant> {
        let now = now();
        if !self.line.is_ready(now) {
            return Some(self.line.at(now));
        }
        self.failed.values().filter(|(.., retry)| !retry.is_ready(now)).map(|(.., retry)| retry.at(now)).min()
    }

    async fn carry_out(&mut self, call: Call) {
        let Some(Target { path, epoch }) = self.target.clone() else { return };
        let limit = self.shared.config.call_timeout;
        if self.dialed.as_ref().is_none_or(|dialed| dialed.calls.is_closed()) {
            self.dialed = match timeout(limit, dial(&path)).await {
                Ok(Ok(dialed)) => Some(dialed),
                Ok(Err(error)) => return self.lost(&error.to_string()),
                Err(_) => return self.lost("it does not answer"),
            };
        }
        let Some(before) = self.note(epoch, |told| told.begin(&call), &call).await else { return };
        let outcome = tokio::select! {
            outcome = self.ask(&call) => outcome,
            // Nobody waits for the answer of a mapper that is no more.
            () = self.replaced(epoch) => return,
        };
        match outcome {
            Outcome::Done => {
                self.line.clear();
                self.failed.remove(&call.subject());
                let of = call.clone();
                self.note(epoch, |told| told.finish(of), &call).await;
            }
            Outcome::Refused(status) => {
                self.line.clear();
                self.refuse(epoch, call, before, &status).await;
            }
            Outcome::Lost(why) => {
                self.fail(call);
                self.lost(&why);
            }
        }
    }

    /// Changes what the mapper was told, here and in the store; `None` if it is not that mapper any more.
    async fn note<T>(&self, epoch: u64, change: impl FnOnce(&mut super::plan::Told) -> T, call: &Call) -> Option<T> {
        let (result, write) = {
            let mut state = self.shared.lock();
            let told = state.told(&self.protocol, epoch)?;
            let result = change(told);
            (result, device_of(call).map(|id| persist::set_told(&self.protocol, id, told.devices.get(id))))
        };
        if let Some(write) = write {
            self.store(write).await;
        }
        Some(result)
    }

    /// A full disk must not keep a device from its mapper; the worst that follows is one call too many or too few after
    /// a restart.
    async fn store(&self, write: Result<MetaWrite, kubeedge_core::meta::MetaError>) {
        let stored = match write {
            Ok(write) => self.shared.config.store.commit(vec![write]).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = stored {
            tracing::warn!(protocol = self.protocol, error = %Causes(&error), "what a mapper was told is not stored");
        }
    }

    async fn ask(&self, call: &Call) -> Outcome {
        let Some(dialed) = &self.dialed else { return Outcome::Lost("no connection".to_owned()) };
        match timeout(self.shared.config.call_timeout, perform(&MapperCalls(&dialed.calls), call.clone())).await {
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(status)) if dialed.calls.is_closed() || status.code() == Code::Unavailable => {
                Outcome::Lost(status.message().to_owned())
            }
            Ok(Err(status)) => Outcome::Refused(status),
            Err(_) => Outcome::Lost("no answer in time".to_owned()),
        }
    }

    async fn replaced(&self, epoch: u64) {
        let mut changes = self.changes.clone();
        loop {
            if self.shared.lock().target(&self.protocol).is_none_or(|target| target.epoch != epoch) {
                return;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn refuse(&mut self, epoch: u64, call: Call, before: Option<ToldDevice>, status: &Status) {
        let subject = call.subject();
        tracing::warn!(protocol = self.protocol, ?subject, code = ?status.code(), message = status.message(), "mapper refuses");
        let count = self.fail(call.clone());
        let removal = matches!(call, Call::Remove(_) | Call::RemoveModel(_));
        if removal && (status.code() == Code::NotFound || count >= REMOVALS) {
            self.failed.remove(&subject);
            let of = call.clone();
            self.note(epoch, |told| told.finish(of), &call).await;
        } else {
            self.note(epoch, |told| told.refuse(&call, before), &call).await;
        }
    }

    /// Puts the call off; tells how often it has failed.
    fn fail(&mut self, call: Call) -> u32 {
        let subject = call.subject();
        let (count, mut retry) = match self.failed.remove(&subject) {
            Some((known, count, retry)) if known == call => (count + 1, retry),
            _ => (1, Retry::default()),
        };
        retry.failed(self.shared.config.backoff, now());
        self.failed.insert(subject, (call, count, retry));
        count
    }

    fn lost(&mut self, why: &str) {
        // The call may still be under way there: on a new connection nothing old is answered.
        self.dialed = None;
        if !self.line.is_running() {
            tracing::warn!(protocol = self.protocol, why, "mapper cannot be reached, it is tried again and again");
        }
        self.line.failed(self.shared.config.backoff, now());
    }
}

fn device_of(call: &Call) -> Option<&DeviceId> {
    match call {
        Call::Register(id, ..) | Call::Update(id, ..) | Call::Remove(id) => Some(id),
        Call::CreateModel(..) | Call::UpdateModel(..) | Call::RemoveModel(_) => None,
    }
}

async fn perform(mapper: &MapperCalls<'_>, call: Call) -> Result<(), Status> {
    match call {
        Call::CreateModel(_, _, model) => {
            mapper.create_device_model(wire::ModelRequest { model: Some(model) }).await.map(drop)
        }
        Call::UpdateModel(_, _, model) => {
            mapper.update_device_model(wire::ModelRequest { model: Some(model) }).await.map(drop)
        }
        Call::RemoveModel(model) => {
            let (name, namespace) = (model.name.to_string(), model.namespace.to_string());
            mapper.remove_device_model(wire::ModelName { name, namespace }).await.map(drop)
        }
        Call::Register(_, _, device) => {
            mapper.register_device(wire::DeviceRequest { device: Some(device) }).await.map(drop)
        }
        Call::Update(_, _, device) => {
            mapper.update_device(wire::DeviceRequest { device: Some(device) }).await.map(drop)
        }
        Call::Remove(id) => {
            let (device_name, device_namespace) = (id.name().to_string(), id.namespace().to_string());
            mapper.remove_device(wire::DeviceName { device_name, device_namespace }).await.map(drop)
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
