//! Lists.

use base64::Engine as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Call;
use crate::apiserver::{
    reply::Reply,
    request::Form,
    selector::{FieldSelector, LabelSelector},
    status::ApiError,
    store::{Key, Listing, Object},
};

/// Where the next page begins.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    version: u64,
    namespace: String,
    name: String,
}

impl Continue {
    fn encode(&self) -> String {
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, ApiError> {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok();
        let token = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        token.ok_or_else(|| ApiError::bad_request("continue key is not valid"))
    }
}

/// The selectors of a request.
pub(super) fn selectors(call: &Call) -> Result<(LabelSelector, FieldSelector), ApiError> {
    let query = &call.request.query;
    let labels = LabelSelector::parse(query.text("labelSelector").unwrap_or_default())?;
    let fields = query.text("fieldSelector").unwrap_or_default();
    let fields = FieldSelector::parse(fields, &call.resource().selectable())?;
    Ok((labels, fields))
}

pub(super) fn selects(labels: &LabelSelector, fields: &FieldSelector, object: &Object) -> bool {
    labels.matches(&object.labels) && fields.matches(&object.key.namespace, &object.key.name, &object.fields)
}

pub(super) fn list(call: &Call) -> Result<Reply, ApiError> {
    let query = &call.request.query;
    let (labels, fields) = selectors(call)?;
    let limit = query.number::<usize>("limit")?.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let token = query.text("continue").map(Continue::decode).transpose()?;
    let Listing { version, objects } = snapshot(call, &fields, token.as_ref())?;
    let mut selected = objects.into_iter().filter(|object| selects(&labels, &fields, object));
    let mut page: Vec<_> = Vec::new();
    while page.len() < limit {
        let Some(object) = selected.next() else { break };
        page.push(object);
    }
    let left = selected.count();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let Some(last) = page.last().filter(|_| left > 0) {
        let next = Continue { version, namespace: (*last.key.namespace).into(), name: (*last.key.name).into() };
        metadata["continue"] = next.encode().into();
        if labels.is_empty() && fields.is_empty() {
            metadata["remainingItemCount"] = left.into();
        }
    }
    if call.view.form == Form::Table {
        return Ok(call.table(&page, Some(metadata)));
    }
    let items = page.iter().map(|object| call.view.render(object));
    Ok(Reply::ok(envelope(call, &metadata, items)))
}

fn snapshot(call: &Call, fields: &FieldSelector, token: Option<&Continue>) -> Result<Listing, ApiError> {
    let query = &call.request.query;
    let state = call.store.state();
    let id = &call.resource().id;
    let namespace = call.namespace.as_deref();
    if let Some(token) = token {
        let last = Key::new(&token.namespace, &token.name);
        return state.list_at(id, namespace, Some(&last), token.version).ok_or_else(ApiError::continue_expired);
    }
    let asked = query.number::<u64>("resourceVersion")?;
    let matching = query.text("resourceVersionMatch");
    if let Some(unknown) = matching.filter(|m| !matches!(*m, "Exact" | "NotOlderThan")) {
        return Err(ApiError::bad_request(format!("resourceVersionMatch: Unsupported value: {unknown:?}")));
    }
    match (asked, matching) {
        (None, Some(_)) => {
            Err(ApiError::bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided"))
        }
        (Some(0), Some("Exact")) => {
            Err(ApiError::bad_request("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\""))
        }
        (Some(asked), _) if asked > state.version() => Err(ApiError::version_too_large(asked, state.version())),
        (Some(asked), Some("Exact")) => {
            state.list_at(id, namespace, None, asked).ok_or_else(|| ApiError::expired(asked, state.version()))
        }
        _ => Ok(state.list(id, namespace, fields)),
    }
}

/// Puts ready-made items into a list without parsing them.
fn envelope(call: &Call, metadata: &Value, items: impl Iterator<Item = Bytes>) -> Bytes {
    let (kind, version) = match call.view.form {
        Form::Partial => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
        _ => (call.resource().list_kind.clone(), call.target().api_version()),
    };
    let mut out = BytesMut::new();
    let head =
        format!("{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[", json!(kind), json!(version));
    out.put(head.as_bytes());
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        out.put(item);
    }
    out.put(&b"]}"[..]);
    out.freeze()
}
