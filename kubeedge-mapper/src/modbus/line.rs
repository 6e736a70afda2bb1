use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use kubeedge_core::mapper::DriverError;
use tokio::{net::TcpStream, sync::Mutex as AsyncMutex, time::timeout};
use tokio_modbus::{
    Error, ExceptionCode, Request, Response, Slave,
    client::{Client as _, Context, tcp},
    slave::SlaveContext as _,
};

/// The lines in use, by address. A line goes when the last device on it does.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<HashMap<(String, u16), Weak<Line>>>);

impl Lines {
    pub(super) fn line(&self, host: &str, port: u16) -> Arc<Line> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|_, line| line.strong_count() > 0);
        let key = (host.to_ascii_lowercase(), port);
        if let Some(line) = lines.get(&key).and_then(Weak::upgrade) {
            return line;
        }
        let line = Arc::new(Line { host: key.0.clone(), port, connection: AsyncMutex::new(None) });
        lines.insert(key, Arc::downgrade(&line));
        line
    }
}

/// One address: a connection at most, and one exchange at a time.
pub(super) struct Line {
    host: String,
    port: u16,
    /// Taken out for the time of an exchange: whatever ends that early, a dropped future included, also drops the
    /// connection, and with it answers that are still on their way.
    connection: AsyncMutex<Option<Context>>,
}

impl Line {
    /// One exchange with `unit`. Waiting for others on the line is not counted by `limit`.
    pub(super) async fn exchange(
        &self,
        unit: u8,
        limit: Duration,
        request: Request<'static>,
    ) -> Result<Response, DriverError> {
        let mut slot = self.connection.lock().await;
        let kept = slot.take();
        let attempt = async {
            if let Some(context) = kept {
                match call(context, unit, request.clone()).await {
                    // The device closed the connection since: that says nothing about now, so it gets a new one.
                    Err(Error::Transport(_)) => {}
                    other => return other,
                }
            }
            call(self.connect().await?, unit, request).await
        };
        match timeout(limit, attempt).await {
            Ok(Ok((context, answer))) => {
                *slot = Some(context);
                answer.map_err(refusal)
            }
            Ok(Err(Error::Transport(why))) => Err(DriverError::Offline(transport(why).into())),
            Ok(Err(Error::Protocol(why))) => Err(DriverError::Offline(why.into())),
            Err(_) => Err(DriverError::TimedOut),
        }
    }

    async fn connect(&self) -> io::Result<Context> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        tracing::debug!(host = self.host, port = self.port, "modbus connection made");
        Ok(tcp::attach(stream))
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

type Answered = (Context, Result<Response, ExceptionCode>);

/// Gives the connection back only if it is still in step.
async fn call(mut context: Context, unit: u8, request: Request<'static>) -> Result<Answered, Error> {
    context.set_slave(Slave(unit));
    let answer = context.call(request).await?;
    Ok((context, answer))
}

fn transport(error: io::Error) -> io::Error {
    // The end of a stream comes as the last error of the system, which says that nothing went wrong.
    if error.raw_os_error() == Some(0) {
        return io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed by the device");
    }
    error
}

fn refusal(code: ExceptionCode) -> DriverError {
    match code {
        ExceptionCode::Acknowledge | ExceptionCode::ServerDeviceBusy => DriverError::Busy,
        // A gateway answers for a unit behind it that does not.
        ExceptionCode::GatewayPathUnavailable | ExceptionCode::GatewayTargetDevice => {
            DriverError::Offline(Box::new(code))
        }
        code => DriverError::Refused(format!("{} (exception {})", code.to_string().to_lowercase(), u8::from(code))),
    }
}
