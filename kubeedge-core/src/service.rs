//! Erasure of services and open watches: what every seam is made of.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::{Stream, stream::BoxStream};
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Any error, with its type kept for those who ask.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A service whose type is erased once, at the border of a seam. Cheap to clone.
pub type Shared<Req, Rsp> = tower::util::BoxCloneSyncService<Req, Rsp, BoxError>;

/// Whether `error` or one of its sources is a `T`. Layers wrap what comes from below, so the chain is searched.
pub fn find_source<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Shows an error with all of its sources on one line, for logs and for people.
///
/// ```
/// use std::io;
///
/// use kubeedge_core::{bus::BusError, service::Causes};
///
/// let error = BusError::Failed(io::Error::other("cable is cut").into());
/// assert_eq!(Causes(&error).to_string(), "event bus failed: cable is cut");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Causes<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        f.write_str(&told)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some crates repeat their source in their own text.
            if !told.contains(&text) {
                write!(f, ": {text}")?;
                told = text;
            }
            next = cause.source();
        }
        Ok(())
    }
}

/// Items of an open watch or subscription. Dropping it closes it at its source.
///
/// The call that opened it resolves once it stands; from then on items flow here, outside of every layer. Gaps are
/// items, never silence: see the event type of the seam.
#[must_use = "a dropped subscription is closed"]
pub struct Subscription<T> {
    items: BoxStream<'static, T>,
    _cancel: DropGuard,
    slot: Option<OwnedSemaphorePermit>,
}

impl<T> Subscription<T> {
    /// A subscription that yields `items`, and cancels `source` when it is dropped.
    pub fn new(items: impl Stream<Item = T> + Send + 'static, source: CancellationToken) -> Self {
        Self { items: items.boxed(), _cancel: source.drop_guard(), slot: None }
    }

    /// Holds `slot` until the subscription is dropped, so that open watches can be counted and limited.
    pub fn holding(mut self, slot: OwnedSemaphorePermit) -> Self {
        self.slot = Some(slot);
        self
    }

    /// The next item; `None` when the source has ended.
    ///
    /// # Cancel safety
    /// No item is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<T> {
        self.items.next().await
    }
}

impl<T> Stream for Subscription<T> {
    type Item = T;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.items.as_mut().poll_next(cx)
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("counted", &self.slot.is_some()).finish_non_exhaustive()
    }
}

/// Counts open watches: at most `limit` at a time.
#[derive(Clone, Debug)]
pub struct WatchSlots(Arc<Semaphore>);

impl WatchSlots {
    /// Room for `limit` open watches.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))))
    }

    /// Takes a slot, or `None` if all are taken.
    pub fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// Makes the `X`, `XService`, `XHandle` plumbing of a seam: a service over an implementation, and its typed handle.
macro_rules! seam {
    (
        $(#[$service_doc:meta])* service $service:ident of $seam:ident;
        $(#[$handle_doc:meta])* handle $handle:ident;
        request $request:ty; response $response:ty; error $error:ty;
        call($this:ident, $arg:ident) $call:block
    ) => {
        $(#[$service_doc])*
        pub struct $service<T>(std::sync::Arc<T>);

        impl<T: $seam> $service<T> {
            /// Serves `implementation`.
            pub fn new(implementation: T) -> Self {
                Self(std::sync::Arc::new(implementation))
            }
        }

        impl<T: $seam> From<std::sync::Arc<T>> for $service<T> {
            fn from(implementation: std::sync::Arc<T>) -> Self {
                Self(implementation)
            }
        }

        impl<T> Clone for $service<T> {
            fn clone(&self) -> Self {
                Self(std::sync::Arc::clone(&self.0))
            }
        }

        impl<T> std::fmt::Debug for $service<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($service)).finish_non_exhaustive()
            }
        }

        impl<T: $seam> tower_service::Service<$request> for $service<T> {
            type Response = $response;
            type Error = $error;
            type Future = futures_util::future::BoxFuture<'static, Result<$response, $error>>;

            fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), $error>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn call(&mut self, $arg: $request) -> Self::Future {
                let $this = std::sync::Arc::clone(&self.0);
                Box::pin(async move { $call })
            }
        }

        $(#[$handle_doc])*
        #[derive(Clone)]
        pub struct $handle($crate::service::Shared<$request, $response>);

        impl $handle {
            /// A handle to `service`, layered or not.
            pub fn new<S>(service: S) -> Self
            where
                S: tower_service::Service<$request, Response = $response> + Clone + Send + Sync + 'static,
                S::Future: Send + 'static,
                S::Error: Into<$crate::service::BoxError>,
            {
                use tower::ServiceExt as _;
                Self($crate::service::Shared::new(service.map_err(Into::into)))
            }

            /// A handle straight to an implementation, without layers.
            pub fn of<T: $seam>(implementation: T) -> Self {
                Self::new($service::new(implementation))
            }

            async fn ask(&self, request: $request) -> Result<$response, $error> {
                use tower::ServiceExt as _;
                self.0.clone().oneshot(request).await.map_err(<$error>::from)
            }
        }

        impl std::fmt::Debug for $handle {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($handle)).finish_non_exhaustive()
            }
        }

        impl tower_service::Service<$request> for $handle {
            type Response = $response;
            type Error = $crate::service::BoxError;
            type Future = futures_util::future::BoxFuture<'static, Result<$response, $crate::service::BoxError>>;

            fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
                self.0.poll_ready(cx)
            }

            fn call(&mut self, request: $request) -> Self::Future {
                self.0.call(request)
            }
        }
    };
}
pub(crate) use seam;

/// Gives an error enum of a seam its conversion from what layers produce.
///
/// The enum has the variants `Busy`, `TimedOut` and `Failed(BoxError)`.
macro_rules! layered_error {
    ($error:ty) => {
        impl From<$crate::service::BoxError> for $error {
            fn from(error: $crate::service::BoxError) -> Self {
                match error.downcast::<Self>() {
                    Ok(own) => *own,
                    Err(error) if error.is::<tower::timeout::error::Elapsed>() => Self::TimedOut,
                    Err(error) if error.is::<tower::load_shed::error::Overloaded>() => Self::Busy,
                    Err(error) => Self::Failed(error),
                }
            }
        }
    };
}
pub(crate) use layered_error;
