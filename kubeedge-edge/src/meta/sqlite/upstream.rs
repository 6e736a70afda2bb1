//! The tables of EdgeCore in Go.
//!
//! Upstream: `edge/pkg/metamanager/dao/models`.

use std::collections::BTreeMap;

use bytes::Bytes;
use kubeedge_core::{
    meta::{Collection, MetaError, MetaKey, MetaWrite, Precondition, Record},
    names::{Namespace, ResourceVersion, Uid, UnixMillis},
    resource::{ObjectPath, Resource, ResourceType},
    words::Group,
};
use kubeedge_twin::upstream::{DeviceRow, SideRow, TwinRow, take_over};
use rusqlite::{Connection, Row};
use serde::Deserialize;

/// Rows of its tables.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    /// Keys and values of `meta`.
    objects: Vec<(String, String)>,
    devices: Vec<DeviceRow>,
    twins: Vec<TwinRow>,
}

#[derive(Deserialize)]
struct Identity {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    uid: Option<String>,
    resource_version: Option<String>,
}

impl Upstream {
    /// `None` if the tables are not there.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let tables: u32 = connection.query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('meta', 'device', 'device_twin')",
            [],
            |row| row.get(0),
        )?;
        if tables < 3 {
            return Ok(None);
        }
        let text = |row: &Row<'_>, column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
        let objects = connection
            .prepare("SELECT key, value FROM meta WHERE key IS NOT NULL AND value IS NOT NULL")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let devices = connection
            .prepare("SELECT id, description, state FROM device")?
            .query_map([], |row| Ok(DeviceRow { id: text(row, 0)?, description: text(row, 1)?, state: text(row, 2)? }))?
            .collect::<Result<_, _>>()?;
        let side = |row: &Row<'_>, first| {
            Ok::<_, rusqlite::Error>(SideRow {
                value: row.get(first)?,
                metadata: text(row, first + 1)?,
                version: text(row, first + 2)?,
            })
        };
        let twins = connection
            .prepare(
                "SELECT deviceid, name, optional, attr_type, expected, expected_meta, expected_version, actual,
                 actual_meta, actual_version FROM device_twin",
            )?
            .query_map([], |row| {
                Ok(TwinRow {
                    device: text(row, 0)?,
                    name: text(row, 1)?,
                    optional: row.get::<_, Option<bool>>(2)?.unwrap_or(true),
                    attr_type: text(row, 3)?,
                    expected: side(row, 4)?,
                    actual: side(row, 7)?,
                })
            })?
            .collect::<Result<_, _>>()?;
        Ok(Some(Self { objects, devices, twins }))
    }

    /// The records that they become.
    pub(super) fn into_writes(self, now: UnixMillis) -> Result<Vec<MetaWrite>, MetaError> {
        let mut writes: Vec<_> = self.objects.into_iter().filter_map(|(key, value)| object(&key, value)).collect();
        let mut twins: BTreeMap<&str, Vec<&TwinRow>> = BTreeMap::new();
        for row in &self.twins {
            twins.entry(&row.device).or_default().push(row);
        }
        for device in &self.devices {
            let rows = twins.remove(device.id.as_str()).into_iter().flatten();
            if let Some(taken) = take_over(device, rows, now)? {
                writes.extend(taken);
            } else {
                tracing::warn!(device = device.id, "device of EdgeCore is not taken over: its id is not one");
            }
        }
        Ok(writes)
    }
}

/// The write of an object; `None` for what is none: patches, answers that were errors, and rows that a write over the local
/// API has left under a name that is not the object's.
fn object(key: &str, value: String) -> Option<MetaWrite> {
    let Resource::Object(ObjectPath { namespace, kind, name: Some(name), .. }) = Resource::parse(key, &Group::Resource)
    else {
        return None;
    };
    let own = matches!(
        kind,
        ResourceType::PodStatus
            | ResourceType::PodPatch
            | ResourceType::NodePatch
            | ResourceType::NodeStatus
            | ResourceType::Event
            | ResourceType::CertificateSigningRequest
            | ResourceType::Lease
            | ResourceType::ServiceAccountToken
            | ResourceType::Other(_)
    );
    let Identity { metadata } = serde_json::from_str(&value).ok()?;
    if own || metadata.name != name.as_str() {
        return None;
    }
    let namespace = namespace.as_ref().map_or("", Namespace::as_str);
    let mut record = Record::new(MetaKey::new(Collection::from(&kind), namespace, name.as_str()), Bytes::from(value));
    record.uid = metadata.uid.and_then(|uid| Uid::new(uid).ok());
    record.version = metadata.resource_version.and_then(|version| version.parse::<ResourceVersion>().ok());
    Some(MetaWrite::Put(record, Precondition::Always))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use kubeedge_core::meta::{MetaStore as _, Selector};

    use super::*;
    use crate::meta::SqliteStore;

    /// As EdgeCore creates them.
    const TABLES: &str = "
        CREATE TABLE `device` (`id` text,`name` text,`description` text,`state` text,`last_online` text,PRIMARY KEY (`id`));
        CREATE TABLE `device_twin` (`id` integer PRIMARY KEY AUTOINCREMENT,`deviceid` text,`name` text,`description` text,
            `expected` text,`actual` text,`expected_meta` text,`actual_meta` text,`expected_version` text,
            `actual_version` text,`optional` numeric,`attr_type` text,`metadata` text);
        CREATE TABLE `meta` (`key` text,`type` text,`value` text,PRIMARY KEY (`key`));
        CREATE TABLE `sub_topics` (`topic` text,PRIMARY KEY (`topic`));";

    fn database(folder: &tempfile::TempDir) -> std::path::PathBuf {
        let path = folder.path().join("edgecore.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(TABLES).unwrap();
        let meta = |key: &str, value: &str| {
            let kind = key.split('/').nth(1).unwrap();
            connection.execute("INSERT INTO meta VALUES (?1, ?2, ?3)", [key, kind, value]).unwrap();
        };
        meta(
            "default/pod/web",
            r#"{"metadata":{"name":"web","namespace":"default","uid":"u-1","resourceVersion":"41"}}"#,
        );
        meta("default/podpatch/web", r#"{"metadata":{"name":"web"},"status":{}}"#);
        meta("default/configmap/gone", r#"{"ErrStatus":{"code":404,"message":"configmaps \"gone\" not found"}}"#);
        meta("default/device/updated", r#"{"metadata":{"name":"boiler"}}"#);
        meta("null/node/edge-1", r#"{"metadata":{"name":"edge-1","uid":"u-2","resourceVersion":"7"}}"#);
        connection
            .execute_batch(
                r#"INSERT INTO device VALUES ('default/boiler', 'boiler', 'in the cellar', 'online', '');
                   INSERT INTO device_twin VALUES (NULL, 'default/boiler', 'temperature', '', NULL, '25.5', '',
                       '{"timestamp":17}', '', '{"cloud":0,"edge":9}', 1, 'float', '');"#,
            )
            .unwrap();
        path
    }

    #[tokio::test]
    async fn objects_and_twins_of_edgecore_in_go_are_taken_over_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(database(&folder)).unwrap();
        assert_eq!(
            store.import_upstream(UnixMillis(1)).await.unwrap(),
            4,
            "pod, node, twin, and a message to the cloud"
        );
        let all = async |name: &str| store.list(Selector::all(Collection::new(name).unwrap())).await.unwrap();
        let pods = all("pod").await;
        assert_eq!((pods.len(), pods[0].uid.as_ref().unwrap().as_str(), &*pods[0].key.name), (1, "u-1", "web"));
        assert_eq!(pods[0].version, ResourceVersion::new(41));
        assert_eq!((all("node").await.len(), all("configmap").await.len(), all("device").await.len()), (1, 0, 0));
        assert_eq!((all("twin").await.len(), all("outbox").await.len()), (1, 1));

        assert_eq!(store.import_upstream(UnixMillis(2)).await.unwrap(), 0);
        store.close().await;
        let again = SqliteStore::open(folder.path().join("edgecore.db")).unwrap();
        assert_eq!(again.import_upstream(UnixMillis(3)).await.unwrap(), 0, "not after a restart either");
        again.close().await;
        let rows: i64 = Connection::open(folder.path().join("edgecore.db"))
            .unwrap()
            .query_row("SELECT count(*) FROM meta", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 5, "the way back is open");
    }

    #[tokio::test]
    async fn a_file_of_ours_has_nothing_to_take_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("edge.db")).unwrap();
        assert_eq!(store.import_upstream(UnixMillis(1)).await.unwrap(), 0);
        store.close().await;
    }
}
