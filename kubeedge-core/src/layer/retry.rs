use tower::retry::Policy;

use crate::{bus::BusRequest, mapper::DriverRequest, meta::MetaRequest, twin::TwinRequest};

/// A request that may be repeated without being done twice.
pub trait Repeatable: Clone {
    /// Whether this one may: reads may, writes may not.
    fn is_read(&self) -> bool;
}

impl Repeatable for MetaRequest {
    fn is_read(&self) -> bool {
        matches!(self, Self::Get(_) | Self::List(_))
    }
}

impl Repeatable for TwinRequest {
    fn is_read(&self) -> bool {
        matches!(self, Self::Get(_))
    }
}

impl Repeatable for DriverRequest {
    fn is_read(&self) -> bool {
        matches!(self, Self::Read(_) | Self::Subscribe(_) | Self::Health)
    }
}

impl Repeatable for BusRequest {
    fn is_read(&self) -> bool {
        false
    }
}

/// Policy for [`tower::retry::Retry`]: repeats reads that failed, at once and so many times; never a write.
#[derive(Clone, Debug)]
pub struct ReadRetries {
    left: usize,
}

impl ReadRetries {
    /// Up to `times` repetitions after the first attempt.
    pub fn times(times: usize) -> Self {
        Self { left: times }
    }
}

impl<Req: Repeatable, Rsp, E> Policy<Req, Rsp, E> for ReadRetries {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, request: &mut Req, result: &mut Result<Rsp, E>) -> Option<Self::Future> {
        if result.is_ok() || !request.is_read() || self.left == 0 {
            return None;
        }
        self.left -= 1;
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        request.is_read().then(|| request.clone())
    }
}
