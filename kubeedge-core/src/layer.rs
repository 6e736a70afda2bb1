//! Layers for the seams, to be stacked with tower's own.

mod observe;
mod retry;

pub use self::{
    observe::{Observe, ObserveLayer},
    retry::{ReadRetries, Repeatable},
};
