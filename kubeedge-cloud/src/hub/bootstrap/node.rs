//! `GET /node/{name}`: whether a node is registered. `keadm join` asks it and goes on only at 404.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kubeedge_core::names::NodeName;

use super::{Bootstrap, PATIENCE};

/// Answers without authentication, as upstream, with nothing but yes or no.
pub(super) async fn look_up(State(state): State<Bootstrap>, Path(name): Path<String>) -> Response {
    let absent = (StatusCode::NOT_FOUND, "Node not found").into_response();
    if name.trim().is_empty() {
        return (StatusCode::BAD_REQUEST, "nodename parameter is required").into_response();
    }
    // No node can have such a name, and it must not get into the path of a request.
    let Ok(node) = NodeName::new(&name) else { return absent };
    let api: Api<Node> = Api::all(state.client);
    let failed = (StatusCode::INTERNAL_SERVER_ERROR, "Failed to query node information").into_response();
    let answer = tokio::time::timeout(PATIENCE, api.get_opt(node.as_str())).await;
    match answer {
        Ok(Ok(Some(_))) => (StatusCode::OK, "Node found").into_response(),
        Ok(Ok(None)) => absent,
        Ok(Err(err)) => {
            tracing::warn!(%node, err = &err as &dyn std::error::Error, "node not looked up");
            failed
        }
        Err(_) => {
            tracing::warn!(%node, "no answer to a node's look-up in time");
            failed
        }
    }
}
