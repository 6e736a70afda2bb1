use std::{
    future::{Ready, ready},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_modbus::{
    ExceptionCode, Request, Response,
    server::{Service, tcp::Server},
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{Boiler, BoilerView};

/// A boiler behind a real Modbus TCP port.
///
/// | table | address | what | unit |
/// |---|---|---|---|
/// | coil | 0 | heater enabled (read, write) | |
/// | discrete input | 0 | heater on | |
/// | holding register | 0 | setpoint (read, write), 0 to 950 | 0.1 °C |
/// | input register | 0 | temperature of the water | 0.1 °C |
/// | input register | 1 | power of the heater | W |
///
/// It answers as any unit. Functions 1 to 6, 15 and 16 are served; other functions are exception 1, other addresses
/// exception 2, other values exception 3. At most 32 clients are served at a time, more are turned away.
#[derive(Debug)]
pub struct BoilerServer {
    listener: TcpListener,
    view: BoilerView,
}

impl BoilerServer {
    /// Time passes so many times faster for the boiler: the water warms by about 1 °C a second.
    pub const ACCELERATION: u32 = 20;
    const CLIENTS: usize = 32;

    /// A boiler that starts to live now, in time that is [`BoilerServer::ACCELERATION`] times faster.
    pub fn new(listener: TcpListener) -> Self {
        Self::with(listener, Boiler::default(), Self::ACCELERATION)
    }

    /// Serves `boiler`, in time that is `acceleration` times faster than the clock of tokio.
    pub fn with(listener: TcpListener, boiler: Boiler, acceleration: u32) -> Self {
        Self { listener, view: BoilerView::new(boiler, acceleration) }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The boiler itself, to look at without Modbus.
    pub fn view(&self) -> BoilerView {
        self.view.clone()
    }

    /// Serves until `shutdown`, and returns when every connection is closed.
    ///
    /// # Cancel safety
    /// Dropping the future closes the port and every connection.
    pub async fn run(self, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(Self::CLIENTS));
        let server = Server::new(self.listener);
        let accept = |stream: TcpStream, _| {
            let accepted = Arc::clone(&slots).try_acquire_owned().ok().map(|slot| {
                let connection = Connection { view: self.view.clone(), _token: connections.token(), _slot: slot };
                (connection, stream)
            });
            ready(Ok(accepted))
        };
        let serve = async {
            loop {
                // It ends only when a connection cannot be accepted, for want of file descriptors for example.
                if let Err(error) = server.serve(&accept, |_| ()).await {
                    tracing::warn!(%error, "boiler cannot accept connections");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        shutdown.run_until_cancelled(serve).await;
        // The tasks of the connections end with the future above; each holds a token until it is gone.
        connections.close();
        connections.wait().await;
    }
}

struct Connection {
    view: BoilerView,
    _token: TaskTrackerToken,
    _slot: OwnedSemaphorePermit,
}

impl Service for Connection {
    type Request = Request<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        ready(self.view.answer(request))
    }
}
