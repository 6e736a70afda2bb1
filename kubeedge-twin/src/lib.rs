//! Device twins of a KubeEdge node: what every device should be (desired) and what it is (reported).
//!
//! * [`reduce`]: the pure heart. A twin and a [`Change`] give the next twin, what to tell and to whom; no clock, no
//!   store, no bus.
//! * [`DeviceTwins`]: the [`Twins`](kubeedge_core::twin::Twins) of a node. It keeps every twin in memory, commits each
//!   change to the metadata store together with the message for the cloud, and only then tells anybody.
//! * [`TwinsDriver`]: serves the MQTT topics under `$hw/events/` and publishes what changed. Without it, or without a
//!   broker, twins still work.
//!
//! Invariants:
//! * A change that was answered is durable, and so is its message to the cloud. What could not be stored did not happen.
//! * Per device, changes are stored, told and published in one order.
//! * Nothing here waits for the bus: publications lie in a bounded queue that drops its oldest entry.
//! * The crate spawns no task, reads no clock but the one that it is given, and knows no protocol of a device.
//!
//! ```
//! use kubeedge_core::{names::UnixMillis, twin::{PropertyPatch, TwinPatch}};
//! use kubeedge_twin::{Change, TwinState, reduce};
//!
//! let patch = PropertyPatch { value: "21.5".into(), value_type: Some("float".into()) };
//! let change = Change::Report(TwinPatch::from([("temperature".parse()?, Some(patch))]));
//! let twin = TwinState::default();
//! let reduced = reduce(&twin, change, UnixMillis(0))?;
//! assert!(reduced.delta.is_empty(), "nothing is desired yet");
//! assert!(reduced.is_changed());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where this differs from upstream
//!
//! Wire shapes, topics and versions are those of `edge/pkg/devicetwin`; these are the differences, each because the
//! original only hurts:
//! * Values may be any printable text of up to 64 KiB, not only `[A-Za-z0-9-_.,:/@#]{1,512}`.
//! * Errors about a body that cannot be used go to the result topic of the device that the topic names, with the event
//!   id if it can be read; upstream publishes them for all devices under an empty device id, where no sender can tell
//!   whether it is meant. Applications that know their device subscribe to the result topic anyway.
//! * `state/update` that cannot be carried out is answered with an error result (400, 404 or 500) instead of silence;
//!   the state `disconnected` is accepted. Words of states are normalised to lower case.
//! * Types `double` and `bytes` are accepted. A type that the device model declares wins over any other.
//! * `null` for a property that cannot be deleted, or does not exist, does not stop the rest of the request.
//! * An accepted `cloud_updated` is told to the cloud like every other change, so that what waits for the cloud is never
//!   older than the twin; one without `metadata` or without versions is no crash.
//! * Values of a Device's `spec` become desired values: applications see them on MQTT without help of a mapper.
//! * A mapper that reports what is known already changes nothing: no write, no message.

#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod lanes;
mod listen;
mod membership;
mod payload;
mod persist;
mod reduce;
mod service;
mod state;
pub mod upstream;
mod value;

pub use self::{
    listen::listen,
    membership::{InvalidMembership, MembershipError},
    reduce::{
        Change, LAST_ONLINE_REFRESH, PropertySync, PropertyUpdate, Reduced, Rejected, SyncedValue, Transition, Written,
        delta, reduce,
    },
    service::{DeviceTwins, MembershipChange, TwinsConfig, TwinsDriver},
    state::{SpecProperty, Tombstone, TwinState},
    value::{MAX_KEY_LEN, MAX_PROPERTIES, MAX_TOMBSTONES, MAX_TWIN_LEN, MAX_VALUE_LEN},
};
