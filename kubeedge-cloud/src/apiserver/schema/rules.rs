//! Value rules of a custom resource's schema: everything beyond types.

use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

use super::Schema;

/// Limits on a value.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) allowed: Option<Vec<Value>>,
    pub(crate) minimum: Option<(f64, bool)>,
    pub(crate) maximum: Option<(f64, bool)>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) length: (Option<u64>, Option<u64>),
    pub(crate) items: (Option<u64>, Option<u64>),
    pub(crate) properties: (Option<u64>, Option<u64>),
    pub(crate) pattern: Option<Regex>,
    pub(crate) unique: bool,
    pub(crate) all_of: Vec<Arc<Schema>>,
    pub(crate) any_of: Vec<Arc<Schema>>,
    pub(crate) one_of: Vec<Arc<Schema>>,
    pub(crate) not: Option<Arc<Schema>>,
}
