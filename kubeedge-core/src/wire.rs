//! Codecs between messages and bytes.
//!
//! Only this module knows how strings and keys are spelled. The form of the WebSocket is [`json`].

pub mod json;
