//! Patches that know the schema: strategic merge and server-side apply.

mod apply;
mod fields;
mod strategic;

pub(crate) use apply::{Applied, apply, track};
pub(crate) use strategic::strategic;
