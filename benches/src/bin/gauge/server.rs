//! A Modbus server with many ports, whose registers count seconds.

use std::{
    future::{Ready, ready},
    time::Instant,
};

use kubeedge_core::service::BoxError;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_modbus::{
    ExceptionCode, Request, Response,
    server::{
        Service,
        tcp::{Server, accept_tcp_connection},
    },
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many ports; they are printed, one a line
    #[arg(long, default_value_t = 100)]
    ports: usize,
}

#[derive(Clone)]
struct Registers(Instant);

impl Service for Registers {
    type Request = Request<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        let seconds = self.0.elapsed().as_secs();
        ready(match request {
            Request::ReadHoldingRegisters(address, count) => {
                let value = |at: u16| u16::try_from((u64::from(address + at) + seconds) & 0x7fff).unwrap_or_default();
                Ok(Response::ReadHoldingRegisters((0..count).map(value).collect()))
            }
            _ => Err(ExceptionCode::IllegalFunction),
        })
    }
}

pub(crate) async fn run(options: Options) -> Result<(), BoxError> {
    let registers = Registers(Instant::now());
    let mut ports = JoinSet::new();
    for _ in 0..options.ports {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        let registers = registers.clone();
        ports.spawn(async move {
            let server = Server::new(listener);
            let connected = |stream, peer| {
                let service = registers.clone();
                async move { accept_tcp_connection(stream, peer, move |_| Ok(Some(service.clone()))) }
            };
            server.serve(&connected, |error| eprintln!("modbus: {error}")).await
        });
    }
    while let Some(ended) = ports.join_next().await {
        ended??;
    }
    Ok(())
}
