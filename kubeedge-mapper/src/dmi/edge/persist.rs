//! What a restart has to know: where mappers are, and what they were told.

use std::{fmt, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kubeedge_core::{
    meta::{Collection, MetaError, MetaHandle, MetaKey, MetaWrite, Precondition, Record, Selector},
    names::DeviceId,
};
use serde::{Deserialize, Serialize};

use super::plan::{Digest, Has, ToldDevice};
use crate::dmi::{device::ModelId, wire};

/// Upstream keeps mappers under this literal namespace (`edge/pkg/devicetwin/dmiserver`).
const MAPPER_NAMESPACE: &str = "node/nodeID/namespace";

/// A mapper, as upstream stores it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct MapperRecord {
    pub(super) name: String,
    version: String,
    api_version: String,
    pub(super) protocol: String,
    /// Base64, as Go writes bytes.
    address: String,
    state: String,
}

impl MapperRecord {
    pub(super) fn new(info: wire::MapperInfo) -> Self {
        Self {
            name: info.name,
            version: info.version,
            api_version: info.api_version,
            protocol: info.protocol,
            address: BASE64_STANDARD.encode(info.address),
            state: info.state,
        }
    }

    /// Where it listens; `None` if that is no path.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let path = String::from_utf8(BASE64_STANDARD.decode(&self.address).ok()?).ok()?;
        (!path.is_empty() && !path.contains('\0')).then(|| path.into())
    }
}

/// Of one device at the mapper of one protocol: a device that changes its protocol is at two of them for a while.
#[derive(Serialize, Deserialize)]
struct ToldRecord {
    model: String,
    /// Hexadecimal; absent if it is not certain what the mapper has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

fn collection(name: &str) -> Result<Collection, MetaError> {
    Collection::new(name).map_err(|error| MetaError::Failed(error.into()))
}

fn mappers() -> Result<Collection, MetaError> {
    collection("devicemapper")
}

fn told() -> Result<Collection, MetaError> {
    collection("dmitold")
}

/// No name has a slash, but a protocol may have one.
fn told_key(protocol: &str, id: &DeviceId) -> Result<MetaKey, MetaError> {
    Ok(MetaKey::new(told()?, id.namespace().as_str(), format!("{}/{protocol}", id.name())))
}

pub(super) fn put_mapper(mapper: &MapperRecord) -> Result<MetaWrite, MetaError> {
    let key = MetaKey::new(mappers()?, MAPPER_NAMESPACE, mapper.name.as_str());
    put(key, mapper)
}

pub(super) fn delete_mapper(name: &str) -> Result<MetaWrite, MetaError> {
    Ok(MetaWrite::Delete(MetaKey::new(mappers()?, MAPPER_NAMESPACE, name), Precondition::Always))
}

/// What `protocol`'s mapper has of a device; `None` for nothing.
pub(super) fn set_told(protocol: &str, id: &DeviceId, told: Option<&ToldDevice>) -> Result<MetaWrite, MetaError> {
    let key = told_key(protocol, id)?;
    let Some(told) = told else { return Ok(MetaWrite::Delete(key, Precondition::Always)) };
    let digest = match told.has {
        Has::Surely(digest) => digest.map(|digest| format!("{:032x}", digest.0)),
        Has::Perhaps(_) => None,
    };
    put(key, &ToldRecord { model: told.model.name.to_string(), digest })
}

fn put(key: MetaKey, value: &impl Serialize) -> Result<MetaWrite, MetaError> {
    let value = serde_json::to_vec(value).map_err(|error| MetaError::Failed(error.into()))?;
    Ok(MetaWrite::Put(Record::new(key, value), Precondition::Always))
}

/// Mappers, and what each protocol's mapper was told. Damaged records are left out with a warning.
pub(super) async fn load(
    store: &MetaHandle,
) -> Result<(Vec<MapperRecord>, Vec<(String, DeviceId, ToldDevice)>), MetaError> {
    let records = store.list(Selector::all(mappers()?)).await?;
    let mappers = records.iter().filter_map(parse::<MapperRecord>).collect();
    let records = store.list(Selector::all(told()?)).await?;
    Ok((mappers, records.iter().filter_map(parse_told).collect()))
}

fn parse_told(record: &Record) -> Option<(String, DeviceId, ToldDevice)> {
    let told: ToldRecord = parse(record)?;
    let digest = told.digest.and_then(|digest| u128::from_str_radix(&digest, 16).ok()).map(Digest);
    let has = if digest.is_some() { Has::Surely(digest) } else { Has::Perhaps(None) };
    let (name, protocol) = check(record, record.key.name.split_once('/').ok_or("no protocol in its key"))?;
    let id = check(record, DeviceId::parse(&record.key.namespace, name))?;
    let model = check(record, ModelId::parse(&record.key.namespace, &told.model))?;
    Some((protocol.to_owned(), id, ToldDevice { has, model }))
}

fn parse<'a, T: Deserialize<'a>>(record: &'a Record) -> Option<T> {
    check(record, serde_json::from_slice(&record.value))
}

fn check<T, E: fmt::Display>(record: &Record, outcome: Result<T, E>) -> Option<T> {
    outcome.inspect_err(|error| tracing::warn!(key = %record.key, %error, "record of a mapper is damaged")).ok()
}
