//! Where values of a property go besides the twin.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ConfigData, null_is_default};

/// `pushMethod` of a property: all that upstream's CRD has, whoever can carry it out.
///
/// Both spellings of its keys are read: that of the CRD (`hostName`) and that of the messages of DMI (`hostname`).
///
/// Upstream: `PushMethod` of `api/apis/devices/v1beta1/device_instance_types.go`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PushMethod {
    /// To an HTTP server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpPush>,
    /// To an MQTT broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<MqttPush>,
    /// To an OpenTelemetry collector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otel: Option<OtelPush>,
    /// To a database, whatever the others are.
    #[serde(skip_serializing_if = "Option::is_none", alias = "dbmethod")]
    pub db_method: Option<DbMethod>,
    /// To a detector of anomalies, in words of its own.
    #[serde(skip_serializing_if = "Option::is_none", alias = "anomalydetection")]
    pub anomaly_detection: Option<ConfigData>,
}

/// Push to an HTTP server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpPush {
    /// Scheme and host, as in `http://10.0.0.1`.
    #[serde(alias = "hostname")]
    pub host_name: String,
    /// Port.
    pub port: i64,
    /// Path, with its slash.
    #[serde(alias = "requestpath")]
    pub request_path: String,
    /// Timeout, in seconds; 0 for the pusher's default.
    pub timeout: i64,
}

/// Push to an MQTT broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MqttPush {
    /// URL of the broker, as in `tcp://10.0.0.1:1883`.
    pub address: String,
    /// Topic.
    pub topic: String,
    /// QoS.
    pub qos: i32,
    /// Whether the broker keeps the last message.
    pub retained: bool,
}

/// Push to an OpenTelemetry collector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OtelPush {
    /// URL of the collector.
    #[serde(rename = "endpointURL", alias = "endpointUrl", alias = "endpointurl")]
    pub endpoint_url: String,
}

/// Push to databases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DbMethod {
    /// InfluxDB 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub influxdb2: Option<Influxdb2Push>,
    /// Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisPush>,
    /// TDengine.
    #[serde(rename = "TDEngine", alias = "tdengine", skip_serializing_if = "Option::is_none")]
    pub tdengine: Option<TdenginePush>,
    /// MySQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mysql: Option<MysqlPush>,
}

/// Push to InfluxDB 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Influxdb2Push {
    /// The database. Go senders write `null` if it is left out.
    #[serde(rename = "influxdb2ClientConfig", deserialize_with = "null_is_default")]
    pub client: Influxdb2Client,
    /// The point. Go senders write `null` if it is left out.
    #[serde(rename = "influxdb2DataConfig", deserialize_with = "null_is_default")]
    pub data: Influxdb2Data,
}

/// An InfluxDB 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Influxdb2Client {
    /// URL.
    pub url: String,
    /// Organization.
    pub org: String,
    /// Bucket.
    pub bucket: String,
}

/// Points of InfluxDB 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Influxdb2Data {
    /// Measurement.
    pub measurement: String,
    /// Tags.
    #[serde(deserialize_with = "null_is_default")]
    pub tag: BTreeMap<String, String>,
    /// Key of the field.
    pub field_key: String,
}

/// Push to Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RedisPush {
    /// The database.
    #[serde(rename = "redisClientConfig", deserialize_with = "null_is_default")]
    pub client: RedisClient,
}

/// A Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RedisClient {
    /// `host:port`.
    pub addr: String,
    /// Number of the database.
    pub db: i64,
    /// Connections.
    pub poolsize: i64,
    /// Connections that stay.
    pub min_idle_conns: i64,
}

/// Push to TDengine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TdenginePush {
    /// The database.
    #[serde(rename = "TDEngineClientConfig", deserialize_with = "null_is_default")]
    pub client: TdengineClient,
}

/// A TDengine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TdengineClient {
    /// `host:port`.
    pub addr: String,
    /// Name of the database.
    pub db_name: String,
}

/// Push to MySQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MysqlPush {
    /// The database.
    #[serde(rename = "mysqlClientConfig", deserialize_with = "null_is_default")]
    pub client: MysqlClient,
}

/// A MySQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MysqlClient {
    /// `host:port`.
    pub addr: String,
    /// Name of the database.
    pub database: String,
    /// User.
    pub user_name: String,
}

impl PushMethod {
    /// The fields that are set, as the CRD spells them.
    pub fn fields(&self) -> Vec<&'static str> {
        let db = self.db_method.as_ref();
        let set = [
            ("http", self.http.is_some()),
            ("mqtt", self.mqtt.is_some()),
            ("otel", self.otel.is_some()),
            ("anomalyDetection", self.anomaly_detection.is_some()),
            ("dbMethod.influxdb2", db.is_some_and(|db| db.influxdb2.is_some())),
            ("dbMethod.redis", db.is_some_and(|db| db.redis.is_some())),
            ("dbMethod.TDEngine", db.is_some_and(|db| db.tdengine.is_some())),
            ("dbMethod.mysql", db.is_some_and(|db| db.mysql.is_some())),
        ];
        set.into_iter().filter_map(|(field, is_set)| is_set.then_some(field)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn every_method_of_the_crd_is_read_and_written_back() {
        let method = json!({
            "http": {"hostName": "http://h", "port": 8080, "requestPath": "/p", "timeout": 3},
            "mqtt": {"address": "tcp://h:1883", "topic": "t", "qos": 1, "retained": true},
            "otel": {"endpointURL": "http://o"},
            "dbMethod": {
                "influxdb2": {"influxdb2ClientConfig": {"url": "u", "org": "o", "bucket": "b"},
                    "influxdb2DataConfig": {"measurement": "m", "tag": {"a": "b"}, "fieldKey": "f"}},
                "redis": {"redisClientConfig": {"addr": "r:1", "db": 1, "poolsize": 2, "minIdleConns": 3}},
                "TDEngine": {"TDEngineClientConfig": {"addr": "t:1", "dbName": "d"}},
                "mysql": {"mysqlClientConfig": {"addr": "m:1", "database": "d", "userName": "u"}}},
            "anomalyDetection": {"x": 1}});
        let read: PushMethod = serde_json::from_value(method.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), method);
        let all = [
            "http",
            "mqtt",
            "otel",
            "anomalyDetection",
            "dbMethod.influxdb2",
            "dbMethod.redis",
            "dbMethod.TDEngine",
            "dbMethod.mysql",
        ];
        assert_eq!(read.fields(), all);
    }

    #[test]
    fn other_spellings_and_nulls_are_read() {
        let read: PushMethod = serde_json::from_value(json!({
            "http": {"hostname": "h", "requestpath": "/p"},
            "dbMethod": {"influxdb2": {"influxdb2ClientConfig": null, "influxdb2DataConfig": null}}}))
        .unwrap();
        let http = read.http.clone().unwrap();
        assert_eq!((http.host_name.as_str(), http.request_path.as_str()), ("h", "/p"));
        assert_eq!(read.fields(), ["http", "dbMethod.influxdb2"]);
        assert!(serde_json::from_value::<PushMethod>(json!({"http": {"port": "x"}})).is_err());
    }
}
