//! Modbus driver: TCP, and serial lines (RTU) with the feature `modbus-rtu`.
//!
//! Settings of a device (`spec.protocol.configData`; keys in any case, numbers also as text):
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `communicateMode` | `TCP`, or `RTU` with the feature `modbus-rtu` | by the other keys |
//! | `ip` | TCP: address or host name; needed | |
//! | `port` | TCP: port | 502 |
//! | `serialName` or `serialPort` | RTU: the serial line, as `/dev/ttyS0`; needed | |
//! | `baudRate` | RTU: bits per second | 9600 |
//! | `dataBits` | RTU: 5 to 8 | 8 |
//! | `parity` | RTU: `none`, `even` or `odd` | `none` |
//! | `stopBits` | RTU: 1 or 2 | 1 |
//! | `slaveID` | unit, 0 to 255 | 1 |
//! | `timeout` | milliseconds for one exchange, connecting included, 1 to 60000 | 1000 |
//!
//! Settings of a visitor (`visitors.configData`):
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `register` | `CoilRegister`, `DiscreteInputRegister`, `InputRegister` or `HoldingRegister`; needed | |
//! | `offset` | address of the first register, from 0 | 0 |
//! | `limit` | how many registers | as the data type needs |
//! | `dataType` | `int`, `float`, `double`, `boolean`, `string`, `bytes`, or with size and sign: `int16`, `uint16`, `int32`, `uint32`, `int64`, `uint64`, `float32`, `float64` | the type of the property |
//! | `isSwap`, `isRegisterSwap` | order of bytes and of registers, see [`RegisterFormat`](crate::convert::RegisterFormat) | false |
//! | `scale`, `valueOffset`, `bit`, `bits`, `mask`, `enum`, `min`, `max` | see [`Meaning`](crate::convert::Meaning) | none |
//!
//! `int` is unsigned and has 1, 2 or 4 registers. `float` and `double` are IEEE 754 in 2 or 4 registers; in 1 register
//! they are an unsigned number times `scale`. With `bit`, `bits`, `mask` or `enum` the registers are `int` if `dataType`
//! does not say otherwise; a write of some bits reads the others before, in one turn on the line. Coils and discrete inputs are truth values; more than one of them is a
//! whole number whose lowest bit comes first. Only coils and holding registers can be written.
//!
//! Devices with the same `ip` and `port`, or on the same serial line, share one connection and take turns on it, across
//! all clones of a [`Modbus`]. A serial line is opened for us alone; a device whose settings of the line differ from
//! those of the devices that are open on it is offline until they agree. The connection is made when it is first needed and dropped after every failed exchange, so a late
//! answer is never taken for that of another request.
//!
//! Upstream: `temperature-sensor-demo/modbus` of kubeedge/examples, `mappers/modbus` of mappers-go.

mod device;
mod line;
#[cfg(feature = "modbus-rtu")]
mod serial;
mod settings;

use std::sync::Arc;

use kubeedge_core::{
    device::DeviceInstance,
    mapper::{DriverError, DriverHandle, DriverMaker, driver_maker},
    names::SharedClock,
};

use self::{device::ModbusDevice, line::Lines, settings::DeviceSettings};

/// Opens Modbus devices. Clones share the connections.
#[derive(Clone)]
pub struct Modbus {
    clock: SharedClock,
    lines: Arc<Lines>,
}

impl Modbus {
    /// An opener without connections; `clock` dates the samples.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, lines: Arc::default() }
    }

    /// A [`DriverMaker`] for the protocol `modbus`.
    pub fn maker(clock: SharedClock) -> DriverMaker {
        let modbus = Self::new(clock);
        driver_maker(move |instance: DeviceInstance| {
            let opened = modbus.open(&instance);
            async move { opened }
        })
    }

    /// Opens a device: reads its settings, and connects when the first property is read or written.
    ///
    /// Settings of visitors are read with each call, so that one wrong visitor does not stop the other properties.
    ///
    /// # Errors
    /// [`DriverError::Config`] names the setting and what it says.
    pub fn open(&self, device: &DeviceInstance) -> Result<DriverHandle, DriverError> {
        let settings = DeviceSettings::read(&device.config)?;
        let line = self.lines.line(settings.medium.clone())?;
        Ok(DriverHandle::of(ModbusDevice { settings, line, clock: Arc::clone(&self.clock) }))
    }
}

impl std::fmt::Debug for Modbus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Modbus").finish_non_exhaustive()
    }
}
