//! Codecs between messages and bytes.
//!
//! Only this module knows how strings and keys are spelled. The form of the WebSocket is [`json`]; two of ours may agree
//! on [`batch`].

pub mod batch;
pub mod json;
