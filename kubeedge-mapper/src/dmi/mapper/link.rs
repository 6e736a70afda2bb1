use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kubeedge_core::{names::DeviceId, twin::TwinError};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::dmi::{rpc::ManagerCalls, socket::Dialed};

/// The connection to EdgeCore, while the mapper is registered.
#[derive(Debug)]
pub(super) struct Link {
    dialed: Mutex<Option<Arc<Dialed>>>,
    limit: Duration,
}

impl Link {
    pub(super) fn new(limit: Duration) -> Self {
        Self { dialed: Mutex::new(None), limit }
    }

    pub(super) fn set(&self, dialed: Option<Dialed>) {
        *self.dialed.lock().unwrap_or_else(PoisonError::into_inner) = dialed.map(Arc::new);
    }

    /// Makes a call about the device `subject`, if there is anybody to call.
    pub(super) async fn call<T>(
        &self,
        subject: &DeviceId,
        call: impl AsyncFnOnce(ManagerCalls<'_>) -> Result<T, Status>,
    ) -> Result<T, TwinError> {
        let dialed = self.dialed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(dialed) = dialed else { return Err(TwinError::Failed("EdgeCore is not there".into())) };
        let answer = timeout(self.limit, call(ManagerCalls(&dialed.calls))).await.map_err(|_| TwinError::TimedOut)?;
        answer.map_err(|status| match status.code() {
            // Which property it was is for the caller to find out.
            Code::InvalidArgument => {
                TwinError::Invalid { property: String::new(), reason: status.message().to_owned() }
            }
            Code::NotFound => TwinError::UnknownDevice(subject.clone()),
            Code::ResourceExhausted => TwinError::Busy,
            // Upstream has one code for everything, and takes one call per second.
            Code::Unknown if status.message().contains("too many request") => TwinError::Busy,
            Code::DeadlineExceeded => TwinError::TimedOut,
            _ => TwinError::Failed(status.into()),
        })
    }
}
