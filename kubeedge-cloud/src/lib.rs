//! kubeedge-cloud

pub mod crds;
pub mod hub;
pub mod pki;
pub mod apiserver;
