//! Devices for those who have none: a boiler that serves Modbus TCP, and values that move by themselves.
//!
//! * [`Boiler`]: the physics, a pure function of time.
//! * [`BoilerServer`]: the boiler behind a real Modbus TCP port.
//! * [`Simulated`]: a driver without a device, for the protocol `simulator`.

mod boiler;
mod faults;
mod generator;
mod registers;
mod server;
mod simulated;

pub use self::{boiler::Boiler, registers::BoilerView, server::BoilerServer, simulated::Simulated};
