//! DMI v1beta1, the gRPC over Unix sockets between EdgeCore and mappers, in both roles.
//!
//! * [`DmiHost`]: EdgeCore's side. Mappers register and report there, and are told of their devices.
//! * [`Mapper`]: a mapper's side, for an EdgeCore of ours or in Go. It feeds a [`MapperHost`](crate::MapperHost).
//!
//! Peers in Go work unchanged: their `:authority` that is none is put right, no part that they look into is left out, and
//! numbers are sent as the types that they know.
//!
//! Upstream: `staging/src/github.com/kubeedge/api/apis/dmi/v1beta1/api.proto`.

mod any;
mod authority;
mod device;
mod edge;
mod hpack;
mod mapper;
mod rpc;
mod socket;
mod wire;

pub use self::{
    device::DmiDevice,
    edge::{DmiConfig, DmiDriver, DmiHost},
    mapper::{Catalog, DmiMapperConfig, Mapper},
};

#[cfg(test)]
mod tests;
