use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use kubeedge_core::mapper::DriverError;
use tokio::{
    net::TcpStream,
    sync::{Mutex as AsyncMutex, MutexGuard},
    time::timeout,
};
use tokio_modbus::{
    Error, ExceptionCode, Request, Response, Slave,
    client::{Client as _, Context, tcp},
    slave::SlaveContext as _,
};

#[cfg(feature = "modbus-rtu")]
use super::serial::SerialSettings;

/// What a line is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Medium {
    Tcp {
        host: String,
        port: u16,
    },
    #[cfg(feature = "modbus-rtu")]
    Serial(SerialSettings),
}

impl Medium {
    /// The same for all devices on one line.
    fn key(&self) -> String {
        match self {
            Self::Tcp { host, port } => format!("tcp {} {port}", host.to_ascii_lowercase()),
            #[cfg(feature = "modbus-rtu")]
            Self::Serial(serial) => format!("serial {}", serial.resolved().display()),
        }
    }

    async fn connect(&self) -> io::Result<Context> {
        match self {
            Self::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                tracing::debug!(host, port, "modbus connection made");
                Ok(tcp::attach(stream))
            }
            #[cfg(feature = "modbus-rtu")]
            Self::Serial(serial) => serial.open().await,
        }
    }
}

/// The lines in use. A line goes when the last device on it does.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<HashMap<String, Weak<Line>>>);

impl Lines {
    /// The line of `medium`.
    ///
    /// # Errors
    /// [`DriverError::Offline`] while devices are open on the same line with other settings of the line.
    #[cfg_attr(not(feature = "modbus-rtu"), expect(clippy::unnecessary_wraps, reason = "a serial line may not open"))]
    pub(super) fn line(&self, medium: Medium) -> Result<Arc<Line>, DriverError> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|_, line| line.strong_count() > 0);
        let key = medium.key();
        if let Some(line) = lines.get(&key).and_then(Weak::upgrade) {
            return match (&line.medium, &medium) {
                (Medium::Tcp { .. }, _) => Ok(line),
                #[cfg(feature = "modbus-rtu")]
                (open, wanted) if open == wanted => Ok(line),
                #[cfg(feature = "modbus-rtu")]
                (open, _) => {
                    Err(DriverError::Offline(format!("the line is in use with other settings: {open:?}").into()))
                }
            };
        }
        let line = Arc::new(Line { medium, connection: AsyncMutex::new(None) });
        lines.insert(key, Arc::downgrade(&line));
        Ok(line)
    }
}

/// One line: a connection at most, and one exchange at a time.
pub(super) struct Line {
    medium: Medium,
    /// Taken out for the time of an exchange: whatever ends that early, a dropped future included, also drops the
    /// connection, and with it answers that are still on their way.
    connection: AsyncMutex<Option<Context>>,
}

/// A turn on a line: nobody else is on it.
pub(super) struct Turn<'a> {
    line: &'a Line,
    slot: MutexGuard<'a, Option<Context>>,
}

impl Line {
    /// Waits for its turn.
    pub(super) async fn hold(&self) -> Turn<'_> {
        Turn { line: self, slot: self.connection.lock().await }
    }
}

impl Turn<'_> {
    /// One exchange with `unit`.
    pub(super) async fn exchange(
        &mut self,
        unit: u8,
        limit: Duration,
        request: Request<'static>,
    ) -> Result<Response, DriverError> {
        let kept = self.slot.take();
        let medium = &self.line.medium;
        let attempt = async {
            if let Some(context) = kept {
                match call(context, unit, request.clone()).await {
                    // The device closed the connection since: that says nothing about now, so it gets a new one.
                    Err(Error::Transport(_)) => {}
                    other => return other,
                }
            }
            call(medium.connect().await?, unit, request).await
        };
        match timeout(limit, attempt).await {
            Ok(Ok((context, answer))) => {
                *self.slot = Some(context);
                answer.map_err(refusal)
            }
            Ok(Err(Error::Transport(why))) => Err(DriverError::Offline(transport(why).into())),
            Ok(Err(Error::Protocol(why))) => Err(DriverError::Offline(why.into())),
            Err(_) => Err(DriverError::TimedOut),
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("medium", &self.medium).finish_non_exhaustive()
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
