use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use kubeedge_core::names::UnixMillis;
use serde_json::{Map, Value as Json, json};

/// What is answered.
pub(super) enum Answer {
    /// 200, and these members beside the common ones.
    Json(Map<String, Json>),
    Text(StatusCode, String),
}

impl Answer {
    pub(super) fn message(text: impl Into<String>) -> Self {
        Self::Json(Map::from_iter([("Message".to_owned(), Json::String(text.into()))]))
    }

    pub(super) fn data(data: Json) -> Self {
        Self::Json(Map::from_iter([("Data".to_owned(), data)]))
    }

    pub(super) fn not_found() -> Self {
        Self::Text(StatusCode::NOT_FOUND, "404 page not found".to_owned())
    }

    /// `what` is how errors of this route begin.
    pub(super) fn of(outcome: Result<Self, String>, what: &str) -> Self {
        outcome.unwrap_or_else(|why| Self::Text(StatusCode::INTERNAL_SERVER_ERROR, format!("{what}: {why}")))
    }

    pub(super) fn into_response(self, now: UnixMillis) -> Response<Full<Bytes>> {
        let (status, kind, body) = match self {
            Self::Json(mut members) => {
                let at = jiff::Timestamp::from_millisecond(now.0).unwrap_or_default();
                members.insert("apiVersion".to_owned(), json!("v1"));
                members.insert("statusCode".to_owned(), json!(200));
                members.insert("timeStamp".to_owned(), json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
                (StatusCode::OK, "application/json", Json::Object(members).to_string())
            }
            Self::Text(status, text) => (status, "text/plain; charset=utf-8", text),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}
