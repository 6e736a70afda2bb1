//! `pushMethod` of a property. The CRD and the messages spell some keys differently, so case does not count here.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{any, wire};

type Object = Map<String, Value>;

/// An object read by keys in any case.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a Object);

impl<'a> Fields<'a> {
    fn of(value: &'a Value) -> Option<Self> {
        value.as_object().map(Self)
    }

    fn value(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).or_else(|| self.0.iter().find(|(other, _)| other.eq_ignore_ascii_case(key)).map(|(_, of)| of))
    }

    fn fields(self, key: &str) -> Option<Self> {
        self.value(key).and_then(Self::of)
    }

    fn text(self, key: &str) -> String {
        self.value(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn long(self, key: &str) -> i64 {
        self.value(key).and_then(Value::as_i64).unwrap_or_default()
    }

    fn int(self, key: &str) -> i32 {
        i32::try_from(self.long(key)).unwrap_or_default()
    }

    fn flag(self, key: &str) -> bool {
        self.value(key).and_then(Value::as_bool).unwrap_or_default()
    }

    fn texts(self, key: &str) -> BTreeMap<String, String> {
        let object = self.value(key).and_then(Value::as_object);
        let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        object.into_iter().flatten().filter_map(text).collect()
    }
}

/// `None` for what is no object.
pub(super) fn from_json(push: &Value) -> Option<wire::PushMethod> {
    let push = Fields::of(push)?;
    Some(wire::PushMethod {
        http: push.fields("http").map(|http| wire::PushMethodHttp {
            hostname: http.text("hostName"),
            port: http.long("port"),
            request_path: http.text("requestPath"),
            timeout: http.long("timeout"),
        }),
        mqtt: push.fields("mqtt").map(|mqtt| wire::PushMethodMqtt {
            address: mqtt.text("address"),
            topic: mqtt.text("topic"),
            qos: mqtt.int("qos"),
            retained: mqtt.flag("retained"),
        }),
        db_method: push.fields("dbMethod").map(database),
        otel: push.fields("otel").map(|otel| wire::PushMethodOtel { endpoint_url: otel.text("endpointURL") }),
        anomaly_detection: push.value("anomalyDetection").and_then(Value::as_object).map(any::from_config),
    })
}

fn database(of: Fields<'_>) -> wire::DbMethod {
    wire::DbMethod {
        influxdb2: of.fields("influxdb2").map(|influxdb2| wire::Influxdb2 {
            client: influxdb2.fields("influxdb2ClientConfig").map(|client| wire::Influxdb2Client {
                url: client.text("url"),
                org: client.text("org"),
                bucket: client.text("bucket"),
            }),
            data: influxdb2.fields("influxdb2DataConfig").map(|data| wire::Influxdb2Data {
                measurement: data.text("measurement"),
                tag: data.texts("tag"),
                field_key: data.text("fieldKey"),
            }),
        }),
        redis: of.fields("redis").map(|redis| wire::Redis {
            client: redis.fields("redisClientConfig").map(|client| wire::RedisClient {
                addr: client.text("addr"),
                db: client.int("db"),
                pool_size: client.int("poolsize"),
                min_idle_conns: client.int("minIdleConns"),
            }),
        }),
        tdengine: of.fields("TDEngine").map(|tdengine| wire::Tdengine {
            client: tdengine
                .fields("TDEngineClientConfig")
                .map(|client| wire::TdengineClient { addr: client.text("addr"), db_name: client.text("dbName") }),
        }),
        mysql: of.fields("mysql").map(|mysql| wire::Mysql {
            client: mysql.fields("mysqlClientConfig").map(|client| wire::MysqlClient {
                addr: client.text("addr"),
                database: client.text("database"),
                user_name: client.text("userName"),
            }),
        }),
    }
}

/// As the CRD spells it.
pub(super) fn to_json(push: &wire::PushMethod) -> Value {
    let mut all = Object::new();
    if let Some(http) = &push.http {
        let http = json!({
            "hostName": http.hostname, "port": http.port, "requestPath": http.request_path, "timeout": http.timeout
        });
        all.insert("http".into(), http);
    }
    if let Some(mqtt) = &push.mqtt {
        let mqtt = json!({"address": mqtt.address, "topic": mqtt.topic, "qos": mqtt.qos, "retained": mqtt.retained});
        all.insert("mqtt".into(), mqtt);
    }
    if let Some(of) = &push.db_method {
        all.insert("dbMethod".into(), database_to_json(of));
    }
    if let Some(otel) = &push.otel {
        all.insert("otel".into(), json!({"endpointURL": otel.endpoint_url}));
    }
    if let Some(detection) = &push.anomaly_detection {
        all.insert("anomalyDetection".into(), any::to_config(Some(detection)).into());
    }
    all.into()
}

fn database_to_json(of: &wire::DbMethod) -> Value {
    let mut all = Object::new();
    if let Some(influxdb2) = &of.influxdb2 {
        let (client, data) = (influxdb2.client.clone().unwrap_or_default(), influxdb2.data.clone().unwrap_or_default());
        let influxdb2 = json!({
            "influxdb2ClientConfig": {"url": client.url, "org": client.org, "bucket": client.bucket},
            "influxdb2DataConfig": {"measurement": data.measurement, "tag": data.tag, "fieldKey": data.field_key},
        });
        all.insert("influxdb2".into(), influxdb2);
    }
    if let Some(client) = of.redis.as_ref().map(|redis| redis.client.clone().unwrap_or_default()) {
        let client = json!({
            "addr": client.addr, "db": client.db, "poolsize": client.pool_size, "minIdleConns": client.min_idle_conns
        });
        all.insert("redis".into(), json!({"redisClientConfig": client}));
    }
    if let Some(client) = of.tdengine.as_ref().map(|tdengine| tdengine.client.clone().unwrap_or_default()) {
        let client = json!({"addr": client.addr, "dbName": client.db_name});
        all.insert("TDEngine".into(), json!({"TDEngineClientConfig": client}));
    }
    if let Some(client) = of.mysql.as_ref().map(|mysql| mysql.client.clone().unwrap_or_default()) {
        let client = json!({"addr": client.addr, "database": client.database, "userName": client.user_name});
        all.insert("mysql".into(), json!({"mysqlClientConfig": client}));
    }
    all.into()
}
