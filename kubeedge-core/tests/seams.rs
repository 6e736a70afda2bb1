//! The suites hold on the implementations in memory.

#![allow(clippy::unwrap_used)]

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use kubeedge_core::{
    bus::BusHandle,
    message::Message,
    meta::MetaHandle,
    names::{NodeName, UnixMillis},
    resource::{ObjectPath, ResourceType},
    testing::{MemoryBus, MemoryStore, bus_suite, meta_suite, transport_suite},
    transport::{
        Extensions, Hello, LinkError,
        frames::{Frame, FrameLink, Frames},
        memory::memory_link,
        stream::{self, StreamLink},
        websocket::{self, WebSocketFrames},
    },
    wire::batch::BatchDecoder,
    words::{Group, Operation, Source},
};
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};
use tokio_util::sync::PollSender;

#[tokio::test]
async fn memory_store_conforms() {
    meta_suite(MetaHandle::of(MemoryStore::new())).await;
}

#[tokio::test]
async fn memory_bus_conforms() {
    bus_suite(BusHandle::of(MemoryBus::new(16))).await;
}

#[tokio::test]
async fn memory_link_conforms() {
    let (ours, theirs) = memory_link(2);
    transport_suite(Box::new(ours), Box::new(theirs)).await;
}

const LIMIT: usize = 1024 * 1024;

fn hello(extensions: Extensions) -> Hello {
    Hello::new(NodeName::new("edge-1").unwrap()).extensions(extensions)
}

/// Both ends of a stream, with what the accepting one offers.
async fn streams(capacity: usize, offered: Extensions) -> (StreamLink<DuplexStream>, StreamLink<DuplexStream>) {
    let (near, far) = tokio::io::duplex(capacity);
    let dialing = hello(Extensions::all());
    let dial = stream::connect(near, "cloud", &dialing, LIMIT);
    let accept = async { stream::accept(far, "edge").await.unwrap().welcome(offered, LIMIT).await };
    let (ours, theirs) = tokio::join!(dial, accept);
    (ours.unwrap(), theirs.unwrap())
}

#[tokio::test]
async fn stream_links_conform() {
    for offered in [Extensions::none(), Extensions::all()] {
        for capacity in [7, 64 * 1024] {
            let (ours, theirs) = streams(capacity, offered).await;
            transport_suite(Box::new(ours), Box::new(theirs)).await;
        }
    }
}

#[tokio::test]
async fn websocket_links_conform_with_and_without_batches() {
    for extensions in [Extensions::none(), Extensions::all()] {
        let (near, far) = tokio::io::duplex(1000);
        let near = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let far = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        let ours = websocket::link(WebSocketFrames::new(near, "cloud"), extensions, LIMIT);
        let theirs = websocket::link(WebSocketFrames::new(far, "edge"), extensions, LIMIT);
        transport_suite(Box::new(ours), Box::new(theirs)).await;
    }
}

#[tokio::test]
async fn who_is_refused_reads_why() {
    let (near, far) = tokio::io::duplex(1000);
    let dialing = hello(Extensions::none());
    let accept = async {
        let dialed = stream::accept(far, "edge").await.unwrap();
        assert_eq!(dialed.hello().node.as_str(), "edge-1");
        dialed.refuse("too many nodes").await.unwrap()
    };
    let (refused, _) = tokio::join!(stream::connect(near, "cloud", &dialing, LIMIT), accept);
    assert!(matches!(refused, Err(LinkError::Refused { reason, .. }) if reason == "too many nodes"));
}

#[tokio::test]
async fn what_is_sent_before_a_flush_travels_in_one_frame() {
    let (ours, theirs) = memory_frames();
    let mut ours = FrameLink::new(ours, Extensions::all(), LIMIT);
    let path = ObjectPath::namespaced("default", ResourceType::Pod, "web").unwrap();
    let message = Message::new(UnixMillis(1), Source::Edged, Group::Meta, Operation::Patch, path);
    for _ in 0..3 {
        ours.feed(message.clone()).await.unwrap();
    }
    ours.flush().await.unwrap();
    drop(ours);
    let frames: Vec<_> = theirs.collect().await;
    let [Ok(Frame::Binary(frame))] = &frames[..] else { panic!("{frames:?}") };
    let messages: Vec<_> = BatchDecoder::new(frame.clone(), LIMIT).unwrap().map(Result::unwrap).collect();
    assert_eq!(messages, vec![message; 3]);
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_the_link_before_it_is_read() {
    let (near, far) = tokio::io::duplex(1000);
    let dialing = hello(Extensions::all());
    let hostile = async move {
        let (mut near, hello) = (near, serde_json::json!({ "node": "edge-1", "project": "p" }).to_string());
        for body in [hello.as_bytes(), &[0]] {
            near.write_u32(u32::try_from(body.len()).unwrap()).await.unwrap();
            near.write_all(body).await.unwrap();
        }
        near.write_u32(u32::MAX).await.unwrap();
        near
    };
    let accept = async {
        let mut link = stream::accept(far, "edge").await.unwrap().welcome(Extensions::all(), LIMIT).await.unwrap();
        link.next().await
    };
    let (_near, end) = tokio::join!(hostile, accept);
    assert!(matches!(end, Some(Err(LinkError::Malformed(_)))), "{end:?}");
    drop(dialing);
}

/// Frames that are kept apart in memory.
fn memory_frames() -> (impl Frames, impl Stream<Item = Result<Frame, LinkError>>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    let sink = PollSender::new(sender).sink_map_err(|_| LinkError::Closed);
    (Silent(sink), ReceiverStream::new(receiver).map(Ok))
}

/// Frames from which nothing is ever read.
struct Silent<S>(S);

impl<S> Stream for Silent<S> {
    type Item = Result<Frame, LinkError>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Pending
    }
}

impl<S: Sink<Frame, Error = LinkError> + Unpin> Sink<Frame> for Silent<S> {
    type Error = LinkError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.0.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> Result<(), LinkError> {
        self.0.start_send_unpin(frame)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.0.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.0.poll_close_unpin(cx)
    }
}
