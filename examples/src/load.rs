//! Something to do for a site: the boiler of the manifests behind a real Modbus TCP port, and the greeter.

use std::net::Ipv4Addr;

use kube::Client;
use kubeedge_mapper::simulator::{BoilerServer, BoilerView};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    manifests::{File, Manifest},
    one_line,
    site::Layout,
};

/// A running boiler. It ends when this is dropped.
#[derive(Debug)]
pub struct Boiler {
    port: u16,
    view: BoilerView,
    _running: DropGuard,
}

impl Boiler {
    /// Starts a boiler on a free port of loopback.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let server = BoilerServer::new(listener);
        let (port, view) = (server.local_addr()?.port(), server.view());
        let shutdown = CancellationToken::new();
        tokio::spawn(server.run(shutdown.clone()));
        Ok(Self { port, view, _running: shutdown.drop_guard() })
    }

    /// Its Modbus TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it holds, without asking over Modbus.
    pub fn view(&self) -> &BoilerView {
        &self.view
    }
}

/// Starts a boiler, and applies the manifests of boiler and greeter.
///
/// # Errors
/// One line with what went wrong.
pub async fn start(client: &Client, layout: &Layout) -> Result<Boiler, String> {
    let boiler = Boiler::start().await.map_err(|error| one_line(&error))?;
    for file in [File::Boiler, File::Greeter] {
        let manifest = Manifest::prepare(file, None, &layout.manifests(), boiler.port())?;
        manifest.apply(client).await.map_err(|error| one_line(&error))?;
    }
    Ok(boiler)
}
