//! Layers for the seams, to be stacked with tower's own.

mod observe;
mod outbox;
mod retry;

pub use self::{
    observe::{Observe, ObserveLayer},
    outbox::{OutboxDrops, OutboxLayer, OutboxLimited},
    retry::{ReadRetries, Repeatable},
};
