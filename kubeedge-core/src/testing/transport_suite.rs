use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};

use crate::{
    message::{Content, Message},
    names::UnixMillis,
    resource::{ObjectPath, ResourceType},
    transport::Link,
    words::{Group, Operation, Source},
};

fn message(payload: &str) -> Message {
    let path = ObjectPath::namespaced("default", ResourceType::ConfigMap, "suite").expect("a path");
    Message::new(UnixMillis(1), Source::EdgeController, Group::Resource, Operation::Update, path)
        .content(Content::text(payload))
}

async fn next(link: &mut (impl Link + ?Sized)) -> Message {
    let item = tokio::time::timeout(Duration::from_secs(5), link.next()).await;
    item.expect("a link delivers what was sent").expect("a link does not end by itself").expect("an intact message")
}

/// What the two ends of every [`Link`] have to do.
///
/// # Panics
/// With the rule that is broken.
pub async fn transport_suite(mut ours: Box<dyn Link>, mut theirs: Box<dyn Link>) {
    for payload in ["", "<&>", "ü\u{1F525}\n", &"x".repeat(100_000)] {
        let sent = message(payload);
        let (sending, arrived) = tokio::join!(ours.send(sent.clone()), next(&mut *theirs));
        sending.expect("send");
        assert_eq!(arrived, sent, "a message arrives as it was sent, whatever its size");
        let (sending, arrived) = tokio::join!(theirs.send(sent.clone()), next(&mut *ours));
        sending.expect("send");
        assert_eq!(arrived, sent, "both directions carry");
    }
    let sent: Vec<_> = (0..50).map(|count| message(&count.to_string())).collect();
    let send_all = async {
        for message in &sent {
            ours.send(message.clone()).await.expect("send");
        }
    };
    let receive_all = async {
        for message in &sent {
            assert_eq!(next(&mut *theirs).await.id, message.id, "messages keep their order");
        }
    };
    tokio::join!(send_all, receive_all);
    ours.close().await.expect("close");
    drop(ours);
    let end =
        tokio::time::timeout(Duration::from_secs(5), async { while let Some(Ok(_)) = theirs.next().await {} }).await;
    end.expect("the other end notices that the link is closed");
}
