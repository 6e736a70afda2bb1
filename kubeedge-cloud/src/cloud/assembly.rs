//! Putting the parts together.

use std::{convert::Infallible, sync::Arc};

use kube::Client;
use kubeedge_core::{
    message::{Content, Message},
    names::{NodeName, SharedClock},
    resource::ResourceType,
    words::{Group, Operation, Source},
};
use tokio_util::sync::CancellationToken;
use tower::{Service, service_fn};

use super::{
    CloudCoreBuilder, CloudCoreError, CloudCoreHandle,
    builder::{LedgerSource, bind, bind_udp},
    handle::Addresses,
    stage::{Alarm, Stage},
};
use crate::{
    admission::Admission,
    commands::DeviceCommands,
    crds::{self, InstallError},
    device::DeviceController,
    edge::{EdgeController, Keepers},
    hub::{Destination, FromNode, Hub, Uplinks, bootstrap},
    object::{Kind, Pause},
    ownership::NodeLeases,
    pki::{Pki, PkiError},
    sync::{Alone, CrdLedger, DELIVERED, DeliveryLog, Owners, SqliteLedger, SyncController, SyncLedger, Truth},
};

pub(super) async fn spawn(builder: CloudCoreBuilder) -> Result<CloudCoreHandle, CloudCoreError> {
    let (abort, alarm) = (CancellationToken::new(), Alarm::new());
    // Until the handle has it: whoever drops this future ends what was started.
    let abort_on_drop = abort.clone().drop_guard();
    let stage = || Stage::new(abort.clone(), alarm.clone());
    let (intake, controllers, records, leases, storage) = (stage(), stage(), stage(), stage(), stage());

    // First the ports: if they cannot be had, nothing else need be tried.
    let websocket = match builder.websocket {
        Some(endpoint) => Some(endpoint.listen("the WebSocket of CloudHub").await?),
        None => None,
    };
    let quic = builder.quic.map(|address| bind_udp("the QUIC of CloudHub", address)).transpose()?;
    let https = match builder.https {
        Some(endpoint) => Some(endpoint.listen("the HTTPS of CloudHub").await?),
        None => None,
    };
    let admission = match builder.admission {
        Some(address) => Some(bind("the admission webhook", address).await?),
        None => None,
    };
    let commands = match builder.commands {
        Some(address) if DeviceCommands::is_exposed(address) => {
            let why = "other machines can reach it, and nobody is asked who he is";
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, why);
            return Err(CloudCoreError::Bind { what: "the commands to devices", address, source });
        }
        Some(address) => Some(bind("the commands to devices", address).await?),
        None => None,
    };
    let addresses = Addresses {
        websocket: websocket.as_ref().and_then(|listener| listener.local_addr().ok()),
        quic: quic.as_ref().and_then(|socket| socket.local_addr().ok()),
        https: https.as_ref().and_then(|listener| listener.local_addr().ok()),
        admission: admission.as_ref().and_then(|listener| listener.local_addr().ok()),
        commands: commands.as_ref().and_then(|listener| listener.local_addr().ok()),
    };

    let names: Vec<String> = builder.pki.advertise_addresses.iter().map(ToString::to_string).collect();
    let access = builder.source.open(&names, &storage).await?;
    let client = access.client;
    install(&client).await?;
    let advertise = names.into_iter().next();
    let clock = builder.clock;
    let pki = Arc::new(load_pki(&client, &builder.pki, &clock).await?);

    let ledger: Arc<dyn SyncLedger> = match builder.ledger {
        LedgerSource::Given(ledger) => ledger,
        LedgerSource::Sqlite(path) => Arc::new(SqliteLedger::open(path).await?),
        LedgerSource::Crd => {
            let ledger = CrdLedger::new(client.clone());
            let (part, token) = (ledger.clone(), records.token());
            records.spawn("ledger", async move { part.run(token).await });
            Arc::new(ledger)
        }
    };
    let hub = Hub::new(builder.hub, clock.clone());
    let handle = hub.handle();
    let owners: Arc<dyn Owners> = match builder.instance.clone() {
        None => Arc::new(Alone),
        Some(me) => {
            let owners = NodeLeases::new(client.clone(), me, handle.clone(), clock.clone(), builder.lease_times);
            let (part, token) = (owners.clone(), leases.token());
            leases.spawn("node leases", async move { part.run(token).await });
            Arc::new(owners)
        }
    };
    let log = DeliveryLog::owned(ledger, owners.clone());
    let hub = hub.deliveries(Arc::new(log.clone()));
    let truth = Truth::new(client.clone(), handle.clone());
    let edge = Arc::new(EdgeController::new(
        client.clone(),
        truth.clone(),
        handle.clone(),
        Keepers { log: log.clone(), owners, sweep: builder.sweep },
        advertise,
        builder.authorization,
        clock.clone(),
    ));
    let device = Arc::new(DeviceController::new(
        client.clone(),
        truth.clone(),
        handle.clone(),
        clock.clone(),
        builder.status_interval,
    ));

    let mut router = builder.router;
    if builder.edge_controller && !router.has(Destination::Edge) {
        router = router.route(Destination::Edge, edge.uplinks());
    }
    if builder.device_controller && !router.has(Destination::Device) {
        router = router.route(Destination::Device, device.uplinks());
    }

    if let Some(ca) = access.ca
        && !router.has(Destination::Hub)
    {
        router = router.route(Destination::Hub, kubernetes_ca(&ca, clock.clone()));
    }

    if let Some(listener) = https {
        let tls = pki.https_config()?;
        let mut routes = bootstrap::Bootstrap::new(&pki, client.clone())?;
        if let Some(part) = router.part(Destination::Tasks) {
            routes = routes.tasks(part);
        }
        intake.spawn("HTTPS of CloudHub", bootstrap::serve(listener, tls, routes.router(), intake.token()));
    }
    if let Some(listener) = admission {
        let (tls, router) = (pki.https_config()?, Admission::new(client.clone()).router());
        intake.spawn("admission webhook", bootstrap::serve(listener, tls, router, intake.token()));
    }
    let device_commands = DeviceCommands::new(client.clone(), handle.clone(), clock.clone());
    if let Some(listener) = commands {
        intake.spawn("commands to devices", device_commands.clone().serve(listener, intake.token()));
    }
    let tls = pki.websocket_config()?;
    let door = hub.open(builder.authorization.guard(Uplinks::new(router), clock.clone()));
    if let Some(listener) = websocket {
        let (part, tls, token) = (door.clone(), tls.clone(), intake.token());
        intake.spawn("WebSocket of CloudHub", async move { part.websocket(listener, tls, token).await });
    }
    if let Some(socket) = quic {
        let (part, token) = (door.clone(), intake.token());
        intake.spawn("QUIC of CloudHub", async move {
            if let Err(err) = part.quic(socket, tls, token).await {
                tracing::error!(%err, "QUIC cannot be served");
            }
        });
    }

    let mut kinds = DELIVERED.to_vec();
    if builder.edge_controller {
        let (part, token) = (edge.clone(), controllers.token());
        controllers.spawn("EdgeController", async move { Box::pin(part.run(token)).await });
    } else {
        kinds.retain(is_of_devices);
    }
    if builder.device_controller {
        let (part, token) = (device.clone(), controllers.token());
        controllers.spawn("DeviceController", async move { part.run(token).await });
    } else {
        kinds.retain(|kind| !is_of_devices(kind));
    }
    if builder.resync {
        let (edge, device) = (edge, builder.device_controller.then_some(device));
        let greet = move |node: NodeName| {
            let (edge, device) = (edge.clone(), device.clone());
            async move {
                if let Some(device) = device {
                    device.tell_members(&node);
                }
                edge.annotate(&node).await;
            }
        };
        let keeper =
            SyncController { truth, log: log.clone(), hub: handle.clone(), clock, kinds, sweep: builder.sweep };
        let part = keeper.run(greet, controllers.token());
        controllers.spawn("SyncController", part);
    }
    let refresher = pki.token_refresher();
    controllers.spawn("token refresher", refresher.run(controllers.token()));
    controllers.spawn("renewal of the server certificate", pki.server_renewal().run(controllers.token()));

    let (part, token) = (log, records.token());
    records.spawn("delivery log", async move { part.run(token).await });

    Ok(CloudCoreHandle {
        addresses,
        door,
        api_url: access.url,
        kubeconfig: access.kubeconfig,
        client,
        hub: handle,
        device_commands,
        pki,
        alarm,
        abort,
        instance: builder.instance,
        stages: vec![intake, controllers, records, leases, storage],
        abort_on_drop,
    })
}

/// Tells nodes the CA of the Kubernetes API.
///
/// Upstream: `cloud/pkg/cloudhub/dispatcher`.
fn kubernetes_ca(
    ca: &str,
    clock: SharedClock,
) -> impl Service<FromNode, Response = Option<Message>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
    let content = Content::text(ca);
    service_fn(move |from: FromNode| {
        let asked = from.message;
        let answer =
            Message::new(clock.now(), Source::CloudHub, Group::Resource, Operation::Response, asked.resource.clone());
        let answer = answer.answering(&asked.id).content(content.clone());
        std::future::ready(Ok((asked.operation == Operation::Query).then_some(answer)))
    })
}

fn is_of_devices(kind: &ResourceType) -> bool {
    Kind::delivered(kind).is_some_and(|kind| kind.group == kubeedge_core::device::GROUP)
}

/// Tries until the API answers.
async fn install(client: &Client) -> Result<(), CloudCoreError> {
    for pause in Pause::default() {
        match crds::install(client).await {
            Ok(installed) => {
                tracing::info!(created = ?installed.created, "custom resources are installed");
                break;
            }
            Err(err) if may_pass(&err) => {
                tracing::warn!(err = &err as &dyn std::error::Error, "custom resources not yet installed");
                tokio::time::sleep(pause).await;
            }
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}

fn may_pass(err: &InstallError) -> bool {
    match err {
        InstallError::Api { source, .. } => match &**source {
            kube::Error::Api(status) => status.code >= 500 || matches!(status.code, 409 | 429),
            _ => true,
        },
        InstallError::NotEstablished { .. } => true,
        _ => false,
    }
}

/// Tries until the API answers.
async fn load_pki(client: &Client, config: &crate::pki::PkiConfig, clock: &SharedClock) -> Result<Pki, PkiError> {
    let mut pauses = Pause::default();
    loop {
        match Pki::load_or_create(client, config.clone(), clock.clone()).await {
            Err(err) if err.is_transient() => {
                tracing::warn!(err = &err as &dyn std::error::Error, "certificates not yet loaded");
                tokio::time::sleep(pauses.next().unwrap_or_default()).await;
            }
            loaded => return loaded,
        }
    }
}
