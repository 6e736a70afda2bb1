//! What is said to the twins, and heard from them.

use std::time::Duration;

use kubeedge_core::{service::Causes, twin::TwinError};
use tokio::time::timeout;

use super::{DeviceTask, now};

impl DeviceTask {
    pub(super) async fn read_twin(&mut self) {
        if !self.twin_stale || !self.twin_retry.is_ready(now()) {
            return;
        }
        let twins = self.shared.config.twins.clone();
        match self.ask(twins.get(self.instance.id.clone())).await {
            Ok(mut twin) => {
                self.twin_stale = false;
                self.twin_retry.clear();
                self.twin_complaint = None;
                for (name, property) in &mut self.properties {
                    property.wish.desire(twin.properties.remove(name).and_then(|twin| twin.desired));
                }
            }
            Err(error) => {
                self.twin_retry.failed(self.shared.config.backoff, now());
                self.complain_of_twins(&error);
            }
        }
    }

    pub(super) async fn report(&mut self) {
        let batch = self.reports.pending().clone();
        if batch.is_empty() || !self.report_retry.is_ready(now()) {
            return;
        }
        let twins = self.shared.config.twins.clone();
        match self.ask(twins.report(self.instance.id.clone(), batch.clone())).await {
            Ok(_) => {
                self.report_retry.clear();
                self.twin_complaint = None;
                self.reports.settle(batch, now());
            }
            Err(error) => {
                let refused = match &error {
                    TwinError::Invalid { property, .. } => batch.keys().find(|name| name.as_str() == property),
                    _ => None,
                };
                match refused {
                    // The others are not to suffer: they are sent again at once, without it.
                    Some(name) => self.reports.refuse(name, now()),
                    None => self.report_retry.failed(self.shared.config.backoff, now()),
                }
                self.complain_of_twins(&error);
            }
        }
    }

    pub(super) async fn report_state(&mut self) {
        let Some(state) = self.health.to_tell(self.state_cycle(), now()) else { return };
        if !self.state_retry.is_ready(now()) {
            return;
        }
        let twins = self.shared.config.twins.clone();
        match self.ask(twins.report_state(self.instance.id.clone(), state.clone())).await {
            Ok(()) => {
                self.state_retry.clear();
                self.health.told(state, now());
            }
            Err(error) => {
                self.state_retry.failed(self.shared.config.backoff, now());
                self.complain_of_twins(&error);
            }
        }
    }

    pub(super) fn state_cycle(&self) -> Option<Duration> {
        let cycle = self.instance.state_cycle.unwrap_or(self.shared.config.state_cycle);
        self.instance.report_state.then_some(cycle)
    }

    async fn ask<T>(&mut self, call: impl Future<Output = Result<T, TwinError>>) -> Result<T, TwinError> {
        timeout(self.shared.config.call_timeout, call).await.unwrap_or(Err(TwinError::TimedOut))
    }

    fn complain_of_twins(&mut self, error: &TwinError) {
        let error = Causes(error).to_string();
        if self.twin_complaint.as_ref() != Some(&error) {
            tracing::warn!(device = %self.instance.id, error, "twins do not do their part, it is tried again");
            self.twin_complaint = Some(error);
        }
    }
}
