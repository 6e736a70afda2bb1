//! kubeedge-edge

pub mod bus;
pub mod devices;
pub mod dispatch;
pub mod edged;
pub mod hub;
pub mod meta;
pub mod node;
pub mod pki;
