//! The two services of DMI over HTTP/2: paths, and what calls and serves them.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use http::{Request, Response, uri::PathAndQuery};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use prost::Message;
use tonic::{Status, body::Body, client, server};
use tonic_prost::ProstCodec;
use tower::Service;

use super::wire::{
    DeviceName, DeviceRequest, Empty, MapperRegisterRequest, MapperRegisterResponse, ModelName, ModelRequest,
    ReportDeviceStatesRequest, ReportDeviceStatusRequest,
};

/// Longest message that is read, in bytes. Servers keep gRPC's default of 4 MiB; all devices of a node may be more.
const MAX_RESPONSE: usize = 16 * 1024 * 1024;

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

macro_rules! rpc {
    (
        $(#[$doc:meta])*
        $service:ident of $handler:ident, calls on $client:ident, package path $package:literal {
            $($call:ident $path:literal ($request:ty) -> $response:ty;)*
        }
    ) => {
        $(#[$doc])*
        #[async_trait]
        pub(super) trait $handler: Send + Sync + 'static {
            $(async fn $call(&self, request: $request) -> Result<$response, Status>;)*
        }

        #[doc = concat!("Serves [`", stringify!($handler), "`].")]
        pub(super) struct $service<T>(Arc<T>);

        impl<T> $service<T> {
            pub(super) fn new(handler: Arc<T>) -> Self {
                Self(handler)
            }
        }

        impl<T> Clone for $service<T> {
            fn clone(&self) -> Self {
                Self(Arc::clone(&self.0))
            }
        }

        impl<T: $handler> Service<Request<Incoming>> for $service<T> {
            type Response = Response<Body>;
            type Error = Infallible;
            type Future = Answer;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: Request<Incoming>) -> Answer {
                let handler = Arc::clone(&self.0);
                match request.uri().path() {
                    $(concat!($package, $path) => {
                        serve(request, move |request| async move { handler.$call(request).await })
                    })*
                    _ => Box::pin(async { Ok(Status::unimplemented("no such call").into_http()) }),
                }
            }
        }

        #[allow(dead_code, reason = "nobody calls GetDevice: it ends mappers in Go")]
        impl $client<'_> {
            $(pub(super) async fn $call(&self, request: $request) -> Result<$response, Status> {
                self.0.call(PathAndQuery::from_static(concat!($package, $path)), request).await
            })*
        }
    };
}

/// What an EdgeCore answers.
pub(super) struct ManagerCalls<'a>(pub(super) &'a Connection);

/// What a mapper answers.
pub(super) struct MapperCalls<'a>(pub(super) &'a Connection);

rpc! {
    /// What mappers ask of EdgeCore.
    ManagerService of DeviceManager, calls on ManagerCalls, package path "/v1beta1.DeviceManagerService/" {
        mapper_register "MapperRegister" (MapperRegisterRequest) -> MapperRegisterResponse;
        report_device_status "ReportDeviceStatus" (ReportDeviceStatusRequest) -> Empty;
        report_device_states "ReportDeviceStates" (ReportDeviceStatesRequest) -> Empty;
    }
}

rpc! {
    /// What EdgeCore asks of mappers.
    MapperService of DeviceMapper, calls on MapperCalls, package path "/v1beta1.DeviceMapperService/" {
        register_device "RegisterDevice" (DeviceRequest) -> DeviceName;
        remove_device "RemoveDevice" (DeviceName) -> Empty;
        update_device "UpdateDevice" (DeviceRequest) -> Empty;
        get_device "GetDevice" (DeviceName) -> DeviceRequest;
        create_device_model "CreateDeviceModel" (ModelRequest) -> ModelName;
        remove_device_model "RemoveDeviceModel" (ModelName) -> Empty;
        update_device_model "UpdateDeviceModel" (ModelRequest) -> Empty;
    }
}

fn serve<M1, M2, F, Fut>(request: Request<Incoming>, handle: F) -> Answer
where
    M1: Message + Default + 'static,
    M2: Message + Default + 'static,
    F: FnOnce(M1) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = Result<M2, Status>> + Send + 'static,
{
    let answer = tower::service_fn(move |request: tonic::Request<M1>| {
        let answer = handle.clone()(request.into_inner());
        async move { answer.await.map(tonic::Response::new) }
    });
    Box::pin(async move { Ok(server::Grpc::new(ProstCodec::<M2, M1>::default()).unary(answer, request).await) })
}

/// An open connection to a peer. Cheap to clone; calls share it.
#[derive(Clone, Debug)]
pub(super) struct Connection(SendRequest<Body>);

impl Connection {
    pub(super) fn new(sender: SendRequest<Body>) -> Self {
        Self(sender)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    async fn call<M1, M2>(&self, path: PathAndQuery, request: M1) -> Result<M2, Status>
    where
        M1: Message + 'static,
        M2: Message + Default + 'static,
    {
        // Any valid authority will do; an empty one would not.
        let origin = http::Uri::from_static("http://localhost");
        let mut client = client::Grpc::with_origin(self.clone(), origin).max_decoding_message_size(MAX_RESPONSE);
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let response = client.unary(tonic::Request::new(request), path, ProstCodec::<M1, M2>::default()).await?;
        Ok(response.into_inner())
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
