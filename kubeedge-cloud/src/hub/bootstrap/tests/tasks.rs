//! Reports of node tasks: who may send them, and where they go.

use std::sync::Mutex;

use kubeedge_core::{
    resource::Resource,
    service::BoxError,
    words::{Group, Source},
};

use super::*;
use crate::hub::{FromNode, Uplinks, bootstrap::MAX_REPORT};

/// A part that keeps what it is given.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<FromNode>>>);

impl Taken {
    fn part(&self) -> Uplinks {
        let taken = self.0.clone();
        crate::hub::served_by(move |from| {
            taken.lock().unwrap().push(from);
            std::future::ready(None)
        })
    }

    fn all(&self) -> Vec<FromNode> {
        self.0.lock().unwrap().clone()
    }
}

impl Port {
    async fn post(&self, shown: Option<&Shown>, path: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        self.send(shown, &[head.as_bytes(), body].concat()).await
    }

    fn shown(&self, node: &str) -> Shown {
        shown(self.pki.authority(), node, self.clock.now())
    }
}

const STATUS: &str = "/task/prepull/name/job-1/node/edge-1/status";
const REPORT: &str = r#"{"NodeName":"edge-1","State":"Pulling","Event":"Pull","Action":"Success","Reason":"","Time":"2026-11-21T03:27:06Z","ExternalMessage":"[]"}"#;
const UPGRADE: &str = r#"{"UpgradeID":"u1","HistoryID":"h1","NodeName":"edge-1","FromVersion":"v1.22.0","ToVersion":"v1.23.0","Status":"upgrade_success","Reason":""}"#;

#[tokio::test]
async fn the_recorded_reports_are_answered_as_recorded_if_they_come_from_their_node() {
    let taken = Taken::default();
    let port = Port::open_with(|routes| routes.tasks(taken.part())).await;
    let node = port.shown("edge-h");
    let mut seen = 0;
    for Recorded { note, request, answer: theirs } in recorded() {
        if !note.starts_with("POST /nodeupgrade") && !note.starts_with("POST /task/") {
            continue;
        }
        seen += 1;
        let answer = port.send(Some(&node), &request).await;
        assert_eq!(answer.status, theirs.status, "{note}: {}", answer.text());
        assert_eq!(fields(&answer.head, "content-type:"), fields(&theirs.head, "content-type:"), "{note}");
        // Behind the colon are the words of Go's JSON parser.
        let end = theirs.text().find("task info: ").map_or(theirs.text().len(), |at| at + 11);
        assert_eq!(answer.text().get(..end), theirs.text().get(..end), "{note}");
    }
    assert_eq!((seen, taken.all().len()), (4, 2));
    port.close().await;
}

#[tokio::test]
async fn a_report_becomes_the_message_that_upstream_makes_of_it() {
    let taken = Taken::default();
    let port = Port::open_with(|routes| routes.tasks(taken.part())).await;
    let node = port.shown("edge-1");
    assert_eq!(port.post(Some(&node), STATUS, REPORT.as_bytes()).await.text(), "ok");
    assert_eq!(port.post(Some(&node), "/nodeupgrade", UPGRADE.as_bytes()).await.text(), "ok");
    let taken = taken.all();
    let shown: Vec<_> =
        taken.iter().map(|from| (from.message.resource.to_string(), from.message.operation.as_str())).collect();
    assert_eq!(
        shown,
        [("task/job-1/node/edge-1".to_owned(), "prepull"), ("task/u1/node/edge-1".to_owned(), "upgrade")]
    );
    for (from, sent) in taken.iter().zip([REPORT, UPGRADE]) {
        let FromNode { node, message } = from;
        assert_eq!(node.as_str(), "edge-1");
        assert_eq!((&message.source, &message.group), (&Source::CloudHub, &Group::CloudHub));
        assert!(matches!(&message.resource, Resource::NodeTask { node, .. } if node.as_str() == "edge-1"));
        let (passed, sent): (Value, Value) = (message.content.parse().unwrap(), serde_json::from_str(sent).unwrap());
        assert_eq!(passed, sent);
    }
    port.close().await;
}

/// CVE-2026-82473: anybody could report in the name of any node.
#[tokio::test]
async fn a_node_reports_for_itself_alone() {
    let taken = Taken::default();
    let port = Port::open_with(|routes| routes.tasks(taken.part())).await;
    let node = port.shown("edge-1");
    let foreign_ca = CertificateAuthority::generate(port.clock.now()).unwrap();
    let foreign = shown(&foreign_ca, "edge-1", port.clock.now());
    let server = port.pki.server_certificate();
    let server = Shown(server.chain()[0].clone(), server.key().clone_key());
    for path in [STATUS, "/nodeupgrade"] {
        let body = if path == STATUS { REPORT } else { UPGRADE };
        for (who, status) in [(None, 401), (Some(&foreign), 401), (Some(&server), 401)] {
            assert_eq!(port.post(who, path, body.as_bytes()).await.status, status, "{path}");
        }
        let denied = port.post(Some(&node), path, body.replace("edge-1", "edge-2").as_bytes()).await;
        assert_eq!(denied.text(), "NodeName edge-2 is not node edge-1 of the certificate");
        assert_eq!(denied.status, 403);
    }
    let denied = port.post(Some(&node), &STATUS.replace("edge-1", "edge-2"), REPORT.as_bytes()).await;
    assert_eq!((denied.status, denied.text()), (403, "nodeID edge-2 is not node edge-1 of the certificate".into()));
    // A join token is no certificate.
    let head = format!(
        "POST {STATUS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        port.good_jwt()
    );
    assert_eq!(port.send(None, head.as_bytes()).await.status, 401);
    port.clock.advance(Duration::from_secs(86_401));
    assert_eq!(port.post(Some(&node), STATUS, REPORT.as_bytes()).await.status, 401, "the certificate has expired");
    assert_eq!(taken.all(), []);
    port.close().await;
}

#[tokio::test]
async fn a_report_that_cannot_be_used_is_answered_with_what_is_wrong() {
    let taken = Taken::default();
    let port = Port::open_with(|routes| routes.tasks(taken.part())).await;
    let node = port.shown("edge-1");
    let ask = async |path: &str, body: &[u8]| {
        let answer = port.post(Some(&node), path, body).await;
        (answer.status, answer.text())
    };
    let wrong = "failed to unmarshal task info: Reason is 7: it must be text".to_owned();
    assert_eq!(ask(STATUS, br#"{"NodeName":"edge-1","Reason":7}"#).await, (400, wrong));
    let wrong = r#"taskType is "rm -rf": it must be one of upgrade, rollback, backup, prepull"#.to_owned();
    assert_eq!(ask("/task/rm%20-rf/name/j/node/edge-1/status", REPORT.as_bytes()).await, (400, wrong));
    let wrong = r#"taskID is "../x": it must be a lower-case DNS subdomain"#.to_owned();
    assert_eq!(ask("/task/upgrade/name/..%2Fx/node/edge-1/status", REPORT.as_bytes()).await, (400, wrong));
    assert_eq!(ask("/task/upgrade/name/%FF/node/edge-1/status", REPORT.as_bytes()).await.0, 400);
    assert_eq!(ask(STATUS, &[0xff; 64]).await.0, 400);
    assert_eq!(ask(STATUS, &vec![b'['; MAX_REPORT]).await.0, 400);
    assert_eq!(ask(STATUS, &vec![b'['; MAX_REPORT + 1]).await.0, 413);
    assert_eq!(port.post(None, STATUS, &vec![b'['; MAX_BODY + 1]).await.status, 401, "a stranger's is not read so far");
    assert_eq!(ask("/task/upgrade/name/j/node/edge-1", REPORT.as_bytes()).await.0, 404);
    let head = format!("GET {STATUS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let get = port.send(Some(&node), head.as_bytes()).await;
    assert_eq!((get.status, fields(&get.head, "allow:")), (405, vec!["allow: post".to_owned()]));
    assert_eq!(taken.all(), []);
    port.close().await;
}

#[tokio::test]
async fn what_nobody_has_taken_is_not_acknowledged() {
    let port = Port::open().await;
    let node = port.shown("edge-1");
    let answer = port.post(Some(&node), STATUS, REPORT.as_bytes()).await;
    assert_eq!((answer.status, answer.text()), (503, "no part of this cloud takes reports of node tasks".into()));
    port.close().await;

    let failing = tower::service_fn(|_: FromNode| std::future::ready(Err::<_, BoxError>("disk full".into())));
    let refusing = tower::service_fn(|from: FromNode| {
        let told = from.message.refusal(UnixMillis(0), Source::TaskManager, &"no such task");
        std::future::ready(Ok::<_, BoxError>(Some(told)))
    });
    let answering = tower::service_fn(|from: FromNode| {
        std::future::ready(Ok::<_, BoxError>(Some(from.message.acknowledgement(UnixMillis(0)))))
    });
    for (part, status, text) in [
        (Uplinks::new(failing), 503, "the report was not taken: disk full"),
        (Uplinks::new(refusing), 503, "the report was not taken: no such task"),
        (Uplinks::new(answering), 200, "ok"),
    ] {
        let port = Port::open_with(|routes| routes.tasks(part)).await;
        let answer = port.post(Some(&port.shown("edge-1")), STATUS, REPORT.as_bytes()).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, text));
        port.close().await;
    }
}
