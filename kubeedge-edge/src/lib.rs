//! kubeedge-edge

pub mod bus;
pub mod pki;
