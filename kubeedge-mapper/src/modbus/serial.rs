use std::{io, path::PathBuf, time::Duration};

use kubeedge_core::mapper::DriverError;
use tokio::{io::AsyncReadExt as _, time::timeout};
use tokio_modbus::{
    Slave,
    client::{Context, rtu},
};
use tokio_serial::{DataBits, Parity, SerialPortBuilderExt as _, StopBits};

use crate::settings::Settings;

/// A serial line. Settings in the spelling of either generation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SerialSettings {
    pub(super) path: String,
    pub(super) baud_rate: u32,
    pub(super) data_bits: DataBits,
    pub(super) parity: Parity,
    pub(super) stop_bits: StopBits,
}

impl SerialSettings {
    pub(super) fn read(settings: Settings<'_>) -> Result<Self, DriverError> {
        let path = match settings.text("serialName")? {
            Some(path) => Some(path),
            None => settings.text("serialPort")?,
        };
        let path = path.ok_or_else(|| settings.wrong("serialName", "the serial line is needed, as in /dev/ttyS0"))?;
        Ok(Self {
            path,
            baud_rate: settings.whole("baudRate", 50, 4_000_000_u32)?.unwrap_or(9600),
            data_bits: match settings.whole("dataBits", 5, 8_u8)? {
                Some(5) => DataBits::Five,
                Some(6) => DataBits::Six,
                Some(7) => DataBits::Seven,
                _ => DataBits::Eight,
            },
            parity: match settings.text("parity")?.map(|word| word.to_ascii_lowercase()).as_deref() {
                None | Some("none" | "n") => Parity::None,
                Some("even" | "e") => Parity::Even,
                Some("odd" | "o") => Parity::Odd,
                Some(_) => return Err(settings.wrong("parity", "must be none, even or odd")),
            },
            stop_bits: match settings.whole("stopBits", 1, 2_u8)? {
                Some(2) => StopBits::Two,
                _ => StopBits::One,
            },
        })
    }

    /// One line may have several names.
    pub(super) fn resolved(&self) -> PathBuf {
        std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone().into())
    }

    /// Opens the line for us alone, when nobody speaks on it.
    pub(super) async fn open(&self) -> io::Result<Context> {
        let mut port = tokio_serial::new(&self.path, self.baud_rate)
            .data_bits(self.data_bits)
            .parity(self.parity)
            .stop_bits(self.stop_bits)
            .open_native_async()?;
        // The answer to a question that was given up may still be on its way, and would be taken for the next one.
        let mut late = [0; 256];
        while let Ok(read) = timeout(self.silence(), port.read(&mut late)).await {
            if read? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        tracing::debug!(path = self.path, baud_rate = self.baud_rate, "serial line opened");
        Ok(rtu::attach_slave(port, Slave(0)))
    }

    /// What ends a frame, 3.5 characters of 11 bits, and a scheduler's delay.
    fn silence(&self) -> Duration {
        Duration::from_secs_f64(38.5 / f64::from(self.baud_rate.max(1))) + Duration::from_millis(5)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn read(config: &serde_json::Value) -> Result<SerialSettings, String> {
        SerialSettings::read(Settings::new(config.as_object().unwrap())).map_err(|error| error.to_string())
    }

    #[test]
    fn both_generations_spell_their_lines() {
        let now =
            json!({"serialName": "/dev/ttyS0", "baudRate": 19200, "dataBits": 7, "stopBits": "2", "parity": "Even"});
        let expected = SerialSettings {
            path: "/dev/ttyS0".into(),
            baud_rate: 19_200,
            data_bits: DataBits::Seven,
            parity: Parity::Even,
            stop_bits: StopBits::Two,
        };
        assert_eq!(read(&now), Ok(expected.clone()));
        let then =
            json!({"serialPort": "/dev/ttyS0", "baudRate": "19200", "dataBits": 7, "stopBits": 2, "parity": "even"});
        assert_eq!(read(&then), Ok(expected));
        let least = read(&json!({"serialPort": "/dev/ttyUSB0"})).unwrap();
        assert_eq!((least.baud_rate, least.data_bits, least.parity), (9600, DataBits::Eight, Parity::None));
        assert_eq!(
            read(&json!({"serialName": "x", "parity": "mark"})),
            Err("setting parity is \"mark\": must be none, even or odd".into())
        );
        assert!(read(&json!({})).unwrap_err().starts_with("setting serialName is missing"));
    }
}
