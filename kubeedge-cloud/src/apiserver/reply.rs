//! Answers on their way out.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use serde_json::Value;

use super::status::ApiError;

/// The body of an answer: whole, or the open end of a watch.
#[derive(Debug)]
pub struct ResponseBody(Kind);

enum Kind {
    Whole(Option<Bytes>),
    Watch(BoxStream<'static, Bytes>),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Whole(_) => "Whole",
            Self::Watch(_) => "Watch",
        })
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.0 {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Watch(stream) => stream.poll_next_unpin(cx).map(|next| next.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Watch(_) => SizeHint::default(),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    code: StatusCode,
    content_type: &'static str,
    warnings: Vec<String>,
    retry_after: Option<u32>,
    body: Kind,
}

impl Reply {
    pub(crate) fn bytes(code: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let body = Kind::Whole((!bytes.is_empty()).then_some(bytes));
        Self { code, content_type, warnings: Vec::new(), retry_after: None, body }
    }

    pub(crate) fn json(code: StatusCode, value: &Value) -> Self {
        Self::bytes(code, "application/json", serde_json::to_vec(value).unwrap_or_default())
    }

    pub(crate) fn ok(bytes: Bytes) -> Self {
        Self::bytes(StatusCode::OK, "application/json", bytes)
    }

    pub(crate) fn watch(stream: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        let body = Kind::Watch(stream.boxed());
        Self { body, ..Self::bytes(StatusCode::OK, "application/json", Bytes::new()) }
    }

    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    pub(crate) fn with_content_type(mut self, content_type: &'static str) -> Self {
        self.content_type = content_type;
        self
    }

    pub(crate) fn into_response(self) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody(self.body));
        *response.status_mut() = self.code;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        for warning in self.warnings {
            let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                headers.append(header::WARNING, value);
            }
        }
        response
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        Self { retry_after: error.retry_after(), ..Self::json(error.code(), &error.status()) }
    }
}
