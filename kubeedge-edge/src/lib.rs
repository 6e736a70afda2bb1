//! The edge agent of KubeEdge as parts, and the builder that puts them together.
//!
//! * [`node`]: an edge node from parts of one's own choice; start here.
//! * [`hub`]: the link to the cloud: TLS WebSocket, session, reconnect, outbox.
//! * [`pki`]: the certificate of the node: join token, files, renewal.
//! * [`meta`]: the metadata store in SQLite, which everything else hangs on.
//! * [`dispatch`]: what becomes of the cloud's messages: stored, then acknowledged.
//! * [`devices`]: from Devices and DeviceModels to twins and drivers.
//! * [`commands`]: reads and writes of devices on demand, for applications and for a cloud of ours.
//! * [`bus`]: MQTT, as a client of any broker and as a broker of our own.
//! * [`edged`]: the node object and its pods, run by a pod runtime such as native processes.
//! * [`config`]: `edgecore.yaml`, and the reference agent that it describes.
//!
//! # What holds everywhere
//! * A message of the cloud is acknowledged after its effect is on the disk, and never otherwise.
//! * What must reach the cloud lies in the store until it is answered: over lost links, crashes and power cuts.
//! * Parts know the store, not each other: what they do after a restart without cloud is what they always do.
//! * Every queue has a limit. TLS is always verified.
//! * The caller owns the runtime, the clock and the shutdown. Libraries here read no environment, install no signal
//!   handler, and start no task that a handle does not stop. (The SQLite store has a thread, which its handle ends.)

mod backoff;
pub mod bus;
pub mod commands;
pub mod config;
pub mod devices;
pub mod dispatch;
pub mod edged;
pub mod hub;
pub mod meta;
pub mod node;
pub mod pki;
