//! Reports of node tasks of the first generation, which edges send here and not over the channel.

use axum::{
    Extension,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use kubeedge_core::{
    message::{Content, Message},
    names::{NodeName, ObjectName},
    resource::Resource,
    words::{Group, Operation, Source},
};
use serde::Serialize;
use tower::ServiceExt as _;

use super::{
    Bootstrap, MAX_BODY, MAX_REPORT, PATIENCE, PeerCertificates,
    authenticate::Denied,
    body::read,
    report::{BadReport, TaskReport, UpgradeReport, node_name, task_name, task_type},
};
use crate::hub::FromNode;

/// Why a report is not taken, and what the node is answered.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("{0}")]
    Denied(Denied),
    #[error("{0}")]
    Body(StatusCode, String),
    #[error("{0}")]
    Path(BadReport),
    #[error("failed to unmarshal task info: {0}")]
    Task(BadReport),
    /// Spelled as upstream spells it.
    #[error("failed to marshal task info: {0}")]
    Upgrade(BadReport),
    #[error("{what} {named} is not node {certified} of the certificate")]
    OtherNode { what: &'static str, named: NodeName, certified: NodeName },
    #[error("no part of this cloud takes reports of node tasks")]
    Nobody,
    #[error("the report was not taken: {0}")]
    Failed(String),
}

impl NotTaken {
    fn status(&self) -> StatusCode {
        match self {
            Self::Denied(_) => StatusCode::UNAUTHORIZED,
            Self::Body(status, _) => *status,
            Self::Path(_) | Self::Task(_) | Self::Upgrade(_) => StatusCode::BAD_REQUEST,
            Self::OtherNode { .. } => StatusCode::FORBIDDEN,
            Self::Nobody | Self::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// `POST /task/{taskType}/name/{taskID}/node/{nodeID}/status`.
pub(super) async fn report(
    State(state): State<Bootstrap>,
    Path((kind, task, node)): Path<(String, String, String)>,
    peer: Option<Extension<PeerCertificates>>,
    body: Body,
) -> Response {
    let taken = async {
        let (certified, body) = state.certified(peer, body).await?;
        let kind = task_type(&kind).map_err(NotTaken::Path)?;
        let task = task_name("taskID", &task).map_err(NotTaken::Path)?;
        let named = node_name("nodeID", &node).map_err(NotTaken::Path)?;
        agree("nodeID", named, &certified)?;
        let report = TaskReport::parse(&body).map_err(NotTaken::Task)?;
        agree("NodeName", report.node_name.clone(), &certified)?;
        state.pass_on(certified, task, kind, &report).await
    };
    answer(taken.await)
}

/// `POST /nodeupgrade`. Upstream loses the task and the node of such a report on its way.
pub(super) async fn upgraded(
    State(state): State<Bootstrap>,
    peer: Option<Extension<PeerCertificates>>,
    body: Body,
) -> Response {
    let taken = async {
        let (certified, body) = state.certified(peer, body).await?;
        let report = UpgradeReport::parse(&body).map_err(NotTaken::Upgrade)?;
        agree("NodeName", report.node_name.clone(), &certified)?;
        state.pass_on(certified, report.upgrade_id.clone(), "upgrade", &report).await
    };
    answer(taken.await)
}

fn answer(taken: Result<(), NotTaken>) -> Response {
    match taken {
        Ok(()) => "ok".into_response(),
        Err(why) => {
            tracing::warn!(%why, "report of a node task not taken");
            (why.status(), why.to_string()).into_response()
        }
    }
}

fn agree(what: &'static str, named: NodeName, certified: &NodeName) -> Result<(), NotTaken> {
    if named == *certified { Ok(()) } else { Err(NotTaken::OtherNode { what, named, certified: certified.clone() }) }
}

impl Bootstrap {
    /// The node of the certificate, and the body that it may send. What a stranger sends is read as well, but no more of
    /// it than of any request: an answer to a request that was not read to its end may never reach the peer.
    async fn certified(
        &self,
        peer: Option<Extension<PeerCertificates>>,
        body: Body,
    ) -> Result<(NodeName, Vec<u8>), NotTaken> {
        let peer = peer.map(|Extension(peer)| peer).unwrap_or_default();
        let certified = self.certified_node(&peer, self.clock.now());
        let limit = if certified.is_ok() { MAX_REPORT } else { MAX_BODY };
        let body = read(body, limit).await;
        let certified = certified.map_err(NotTaken::Denied)?;
        body.map(|body| (certified, body)).map_err(|(status, why)| NotTaken::Body(status, why))
    }

    /// Hands a report to the part that takes it, as the message that upstream makes of it.
    async fn pass_on(
        &self,
        node: NodeName,
        task: ObjectName,
        kind: &'static str,
        report: &(impl Serialize + Sync),
    ) -> Result<(), NotTaken> {
        let part = self.tasks.clone().ok_or(NotTaken::Nobody)?;
        let resource = Resource::NodeTask { task, node: node.clone() };
        let content = Content::json(report).map_err(|err| NotTaken::Failed(err.to_string()))?;
        let (group, operation) = (Group::CloudHub, Operation::from_word(kind));
        let message = Message::new(self.clock.now(), Source::CloudHub, group, operation, resource).content(content);
        match tokio::time::timeout(PATIENCE, part.oneshot(FromNode { node, message })).await {
            Ok(Ok(Some(answer))) if answer.operation == Operation::Error => {
                Err(NotTaken::Failed(answer.content.as_text().unwrap_or_default()))
            }
            Ok(Ok(_)) => Ok(()),
            Ok(Err(err)) => Err(NotTaken::Failed(err.to_string())),
            Err(_) => Err(NotTaken::Failed("no answer in time".into())),
        }
    }
}
