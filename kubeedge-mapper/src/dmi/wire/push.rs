//! Where values go besides the twin.

use std::collections::BTreeMap;

use prost::Message;

use super::CustomizedValue;

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct PushMethod {
    #[prost(message, optional, tag = "1")]
    pub(in crate::dmi) http: Option<PushMethodHttp>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::dmi) mqtt: Option<PushMethodMqtt>,
    #[prost(message, optional, tag = "3")]
    pub(in crate::dmi) db_method: Option<DbMethod>,
    #[prost(message, optional, tag = "4")]
    pub(in crate::dmi) otel: Option<PushMethodOtel>,
    #[prost(message, optional, tag = "5")]
    pub(in crate::dmi) anomaly_detection: Option<CustomizedValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct PushMethodHttp {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) hostname: String,
    #[prost(int64, tag = "2")]
    pub(in crate::dmi) port: i64,
    #[prost(string, tag = "3")]
    pub(in crate::dmi) request_path: String,
    #[prost(int64, tag = "4")]
    pub(in crate::dmi) timeout: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct PushMethodMqtt {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) address: String,
    #[prost(string, tag = "2")]
    pub(in crate::dmi) topic: String,
    #[prost(int32, tag = "3")]
    pub(in crate::dmi) qos: i32,
    #[prost(bool, tag = "4")]
    pub(in crate::dmi) retained: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct PushMethodOtel {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) endpoint_url: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct DbMethod {
    #[prost(message, optional, tag = "1")]
    pub(in crate::dmi) influxdb2: Option<Influxdb2>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::dmi) redis: Option<Redis>,
    #[prost(message, optional, tag = "3")]
    pub(in crate::dmi) tdengine: Option<Tdengine>,
    #[prost(message, optional, tag = "4")]
    pub(in crate::dmi) mysql: Option<Mysql>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct Influxdb2 {
    #[prost(message, optional, tag = "1")]
    pub(in crate::dmi) client: Option<Influxdb2Client>,
    #[prost(message, optional, tag = "2")]
    pub(in crate::dmi) data: Option<Influxdb2Data>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct Influxdb2Client {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) url: String,
    #[prost(string, tag = "2")]
    pub(in crate::dmi) org: String,
    #[prost(string, tag = "3")]
    pub(in crate::dmi) bucket: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct Influxdb2Data {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) measurement: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(in crate::dmi) tag: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    pub(in crate::dmi) field_key: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct Redis {
    #[prost(message, optional, tag = "1")]
    pub(in crate::dmi) client: Option<RedisClient>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct RedisClient {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) addr: String,
    #[prost(int32, tag = "2")]
    pub(in crate::dmi) db: i32,
    #[prost(int32, tag = "3")]
    pub(in crate::dmi) pool_size: i32,
    #[prost(int32, tag = "4")]
    pub(in crate::dmi) min_idle_conns: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct Tdengine {
    #[prost(message, optional, tag = "1")]
    pub(in crate::dmi) client: Option<TdengineClient>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct TdengineClient {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) addr: String,
    #[prost(string, tag = "2")]
    pub(in crate::dmi) db_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct Mysql {
    #[prost(message, optional, tag = "1")]
    pub(in crate::dmi) client: Option<MysqlClient>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::dmi) struct MysqlClient {
    #[prost(string, tag = "1")]
    pub(in crate::dmi) addr: String,
    #[prost(string, tag = "2")]
    pub(in crate::dmi) database: String,
    #[prost(string, tag = "3")]
    pub(in crate::dmi) user_name: String,
}
