//! Messages, sessions, device model and seams of KubeEdge.
//!
//! The crate has no sockets, spawns no tasks and reads no clock: state machines are fed with input and the present
//! time, and the seams are traits that others implement.
//!
//! * [`message`], [`words`], [`resource`], [`names`], [`answer`]: what flows between edge and cloud, typed.
//! * [`wire`]: the only place that knows how it is spelled.
//! * [`session`]: acknowledgements, retries, keepalive and timeouts of a link, as data.
//! * [`device`]: devices and their models.
//! * [`transport`], [`meta`], [`bus`], [`twin`], [`mapper`]: the five seams, each a trait, a tower service made of it,
//!   and a typed handle.
//! * [`inventory`]: whether an edge has what the cloud remembers.
//! * [`uplink`], [`outbox`]: calls to the cloud now, and messages for it that survive a power cut.
//! * [`layer`]: what is put around a seam.
//! * [`config`]: a file of settings, laid over the defaults.
//! * `testing` (a feature): the seams in memory, and the conformance suites that every implementation has to pass.
//!
//! ```
//! use kubeedge_core::wire::json;
//!
//! let message = json::decode(
//!     r#"{"header":{"msg_id":"1","timestamp":0},"route":{"operation":"update","resource":"default/pod/web"},"content":{}}"#,
//! )?;
//! let path = message.resource.object().expect("an object");
//! assert_eq!(path.name.as_ref().map(|name| name.as_str()), Some("web"));
//! # Ok::<(), json::DecodeError>(())
//! ```

pub mod answer;
pub mod bus;
pub mod config;
pub mod device;
pub mod inventory;
pub mod layer;
pub mod mapper;
pub mod message;
pub mod meta;
pub mod names;
pub mod outbox;
pub mod resource;
pub mod service;
pub mod session;
#[cfg(feature = "testing")]
pub mod testing;
pub mod topic;
pub mod transport;
pub mod twin;
pub mod uplink;
pub mod wire;
pub mod words;
