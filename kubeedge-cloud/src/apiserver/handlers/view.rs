//! How objects are shown: in which version and form.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::apiserver::{
    lifecycle::Target,
    request::{Form, Include},
    store::{Clock, Object},
    table,
};

/// The version and form that a request asks for.
#[derive(Clone)]
pub(super) struct View {
    pub(super) target: Target,
    pub(super) form: Form,
    pub(super) include: Include,
    pub(super) clock: Clock,
}

impl View {
    /// Whether objects are shown as they are stored.
    pub(super) fn is_plain(&self) -> bool {
        !matches!(self.form, Form::Partial | Form::Table)
            && self.target.version == self.target.resource.storage_version()
    }

    /// An object, but not as a table.
    pub(super) fn render(&self, object: &Object) -> Bytes {
        if self.is_plain() { object.json.clone() } else { self.bytes(object.value()) }
    }

    /// A stored tree, but not as a table.
    pub(super) fn bytes(&self, value: Value) -> Bytes {
        let mut value = self.present(value);
        if self.form == Form::Partial {
            value = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": value["metadata"].take()});
        }
        serde_json::to_vec(&value).unwrap_or_default().into()
    }

    /// A stored tree under the version that was asked for.
    pub(super) fn present(&self, mut value: Value) -> Value {
        if let Some(object) = value.as_object_mut() {
            object.insert("apiVersion".to_owned(), self.target.api_version().into());
        }
        value
    }

    /// Stored trees as rows of a table.
    pub(super) fn table(&self, values: impl Iterator<Item = Value>) -> Value {
        let values = values.map(|value| self.present(value));
        table::of(&self.target.resource, &self.target.version, values, self.include, (self.clock)())
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("target", &self.target).field("form", &self.form).finish_non_exhaustive()
    }
}
