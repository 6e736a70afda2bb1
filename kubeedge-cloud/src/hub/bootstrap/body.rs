//! Bodies of requests, bounded in size and time.

use axum::{body::Body, http::StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::PATIENCE;

/// Reads a body of at most `limit` bytes; otherwise what to answer.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Vec<u8>, (StatusCode, String)> {
    match tokio::time::timeout(PATIENCE, Limited::new(body, limit).collect()).await {
        Ok(Ok(read)) => Ok(read.to_bytes().to_vec()),
        Ok(Err(err)) if err.is::<LengthLimitError>() => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, format!("request body is longer than {limit} bytes")))
        }
        Ok(Err(err)) => Err((StatusCode::BAD_REQUEST, format!("request body cannot be read: {err}"))),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "request body did not arrive in time".into())),
    }
}
