//! A mapper as its own process: all drivers of `kubeedge-mapper`, over DMI with an EdgeCore of ours or in Go.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use kubeedge_core::{
    device::{DeviceMethod, DeviceModelSpec},
    mapper::DriverMaker,
    names::{DeviceId, SharedClock, SystemClock},
};
use kubeedge_examples::{cli, mapper::MapperFile};
use kubeedge_mapper::{
    MapperConfig, MapperHost,
    dmi::{Catalog, DmiMapperConfig, Mapper},
    http::HttpDevices,
    modbus::Modbus,
    mqtt::MqttDevices,
    push::{HttpPublisher, MqttPublisher},
    rest::{Catalogue, RestApi},
    simulator::Simulated,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(about = "A mapper: devices of one protocol for an EdgeCore")]
struct Args {
    /// File with the configuration
    #[arg(long = "config-file", default_value = "./config.yaml")]
    config: PathBuf,
    /// Number for the log level verbosity
    #[arg(long, short, default_value_t = 0)]
    v: u8,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    cli::log(args.v);
    cli::exit_code("mapper", run(&args).await)
}

async fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let file = MapperFile::load(&args.config)?;
    let clock: SharedClock = Arc::new(SystemClock);
    let protocol = file.common.protocol.as_str();
    let mut dmi = DmiMapperConfig::new(&file.common.name, protocol, &file.grpc_server.socket_path, clock.clone());
    for (of_file, ours) in [(&file.common.version, &mut dmi.version), (&file.common.api_version, &mut dmi.api_version)]
    {
        if !of_file.is_empty() {
            ours.clone_from(of_file);
        }
    }
    if !file.common.edgecore_sock.is_empty() {
        dmi.edgecore = file.common.edgecore_sock.clone().into();
    }
    let mapper = Mapper::new(dmi);
    let mut config = MapperConfig::new(mapper.twins());
    config.publishers = vec![Arc::new(HttpPublisher::new()), Arc::new(MqttPublisher::new())];
    let (host, driver) = MapperHost::new(config, drivers(&clock));
    let listener = TcpListener::bind(file.listen()?).await?;
    tracing::info!(protocol, rest = %listener.local_addr()?, "mapper runs");
    let rest = RestApi::new(host.clone(), OfEdgeCore(mapper.catalog()), clock);
    let shutdown = CancellationToken::new();
    let asked = async {
        let asked = cli::asked_to_end().await;
        shutdown.cancel();
        asked
    };
    let (asked, ..) = tokio::join!(
        asked,
        driver.run(shutdown.clone()),
        rest.serve(listener, shutdown.clone()),
        mapper.serve(host, shutdown.clone()),
    );
    Ok(asked?)
}

fn drivers(clock: &SharedClock) -> [(String, DriverMaker); 4] {
    [
        ("modbus".to_owned(), Modbus::maker(clock.clone())),
        ("mqtt".to_owned(), MqttDevices::maker(clock.clone())),
        ("http".to_owned(), HttpDevices::maker(clock.clone())),
        ("simulator".to_owned(), Simulated::maker(clock.clone())),
    ]
}

/// What EdgeCore told of devices and models.
struct OfEdgeCore(Catalog);

impl Catalogue for OfEdgeCore {
    fn methods(&self, device: &DeviceId) -> Option<Vec<DeviceMethod>> {
        self.0.device(device).map(|device| device.spec.methods.clone())
    }

    fn model(&self, device: &DeviceId) -> Option<(String, Arc<DeviceModelSpec>)> {
        let device = self.0.device(device)?;
        let name = device.spec.device_model_ref.as_ref().map(|model| model.name.clone()).unwrap_or_default();
        Some((name, Arc::clone(&device.model)))
    }
}
