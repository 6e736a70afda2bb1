//! What is played, and measured.

mod devices;
mod downlink;
mod hostile;
mod reconnect;
mod storm;

use std::time::Duration;

use kube::Client;
use kubeedge_core::{service::BoxError, transport::CloudEndpoint};
use kubeedge_edge::hub::{DialSettings, WebSocket};

use crate::{
    credentials::Credentials,
    edge::Manner,
    fleet::{Fleet, names},
    options::{FleetOptions, Scenario},
    process::Snapshot,
    report::Report,
    uplink::UplinkPlan as Uplinks,
};

/// What all scenarios need.
pub(crate) struct Stage {
    pub(crate) options: FleetOptions,
    pub(crate) client: Option<Client>,
    credentials: Credentials,
}

impl Stage {
    pub(crate) async fn open(options: FleetOptions, client: Option<Client>) -> Result<Self, BoxError> {
        let credentials = Credentials::open(&options, client.as_ref()).await?;
        Ok(Self { options, client, credentials })
    }

    /// Edges that are not connected yet, from number `first` on.
    pub(crate) async fn fleet(
        &self,
        first: usize,
        nodes: usize,
        manner: Manner,
        ping: Duration,
    ) -> Result<Fleet, BoxError> {
        self.spawn(&self.options.cloud, first, nodes, manner, Uplinks { ping, ..Uplinks::default() }).await
    }

    /// Good edges that connect to somewhere else.
    pub(crate) async fn fleet_at(&self, cloud: String, first: usize, nodes: usize) -> Result<Fleet, BoxError> {
        self.spawn(&cloud, first, nodes, Manner::Good, Uplinks::default()).await
    }

    /// Good edges that report each device that they get, once per `every`.
    pub(crate) async fn reporting(&self, first: usize, nodes: usize, every: Duration) -> Result<Fleet, BoxError> {
        let uplinks = Uplinks { report: every, ..Uplinks::default() };
        self.spawn(&self.options.cloud, first, nodes, Manner::Good, uplinks).await
    }

    async fn spawn(
        &self,
        cloud: &str,
        first: usize,
        nodes: usize,
        manner: Manner,
        uplinks: Uplinks,
    ) -> Result<Fleet, BoxError> {
        let names = names(&self.options, first, nodes)?;
        let identities = self.credentials.identities(&names).await?;
        Fleet::spawn(&self.options, cloud, identities, manner, uplinks)
    }

    /// A dialer that is no part of a fleet, as node `number`.
    pub(crate) async fn websocket(&self, number: usize) -> Result<(WebSocket, CloudEndpoint), BoxError> {
        let names = names(&self.options, number, 1)?;
        let identity = self.credentials.identities(&names).await?.pop().ok_or("no identity")?;
        let endpoint = CloudEndpoint::new(self.options.cloud.clone(), identity.node().clone());
        Ok((WebSocket::new(identity).settings(DialSettings::new().timeout(Duration::from_secs(300))), endpoint))
    }

    pub(crate) fn client(&self) -> Result<Client, BoxError> {
        self.client.clone().ok_or_else(|| "this scenario needs --kubeconfig".into())
    }

    /// The process of the cloud now, if it is known.
    pub(crate) fn server(&self) -> Result<Option<Snapshot>, BoxError> {
        let snapshot = |pid| Snapshot::of(pid).map_err(|error| format!("cannot look at process {pid}: {error}"));
        Ok(self.options.server_pid.map(snapshot).transpose()?)
    }

    pub(crate) fn report(&self, scenario: &str) -> Report {
        Report::new(scenario, &self.options.label).with("nodes", self.options.nodes)
    }
}

pub(crate) async fn play(stage: &Stage, scenario: Scenario) -> Result<(), BoxError> {
    match scenario {
        Scenario::Storm => storm::play(stage, None).await,
        Scenario::Idle { hold } => storm::play(stage, Some(hold)).await,
        Scenario::Devices { devices } => devices::play(stage, devices).await,
        Scenario::Downlink { objects, rounds } => downlink::play(stage, objects, rounds).await,
        Scenario::Reconnect { objects } => reconnect::play(stage, objects).await,
        Scenario::Hostile { hostile, objects } => hostile::play(stage, hostile, objects).await,
    }
}
