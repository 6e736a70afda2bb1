//! From a session to its link.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use super::{Link, LinkError};
use crate::session::Session;

/// Writes what a session has to send to its link, and notices when the link takes nothing. For whoever drives a session.
///
/// What is sent at one time is flushed together, so that a link may put it into one frame.
#[derive(Debug, Default)]
pub struct SessionWriter {
    unflushed: bool,
    stalled: Option<Instant>,
}

impl SessionWriter {
    /// A writer for a fresh link.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes as much as the link takes at `now`. Tells whether that was anything.
    ///
    /// # Errors
    /// Those of the link, which is of no more use then.
    pub fn poll_write<L: Link + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        link: &mut L,
        session: &mut Session,
    ) -> Result<bool, LinkError> {
        let (mut done, mut pending) = (false, false);
        while session.transmit_len() > 0 {
            if Pin::new(&mut *link).poll_ready(cx)?.is_pending() {
                pending = true;
                break;
            }
            let Some(message) = session.poll_transmit() else { break };
            Pin::new(&mut *link).start_send(message)?;
            (done, self.unflushed) = (true, true);
        }
        if self.unflushed {
            match Pin::new(&mut *link).poll_flush(cx)? {
                Poll::Ready(()) => (done, self.unflushed) = (true, false),
                Poll::Pending => pending = true,
            }
        }
        self.stalled = match (pending, done) {
            (false, _) => None,
            (true, true) => Some(now),
            (true, false) => self.stalled.or(Some(now)),
        };
        Ok(done)
    }

    /// Since when the link has taken nothing of what waits for it; `None` if nothing waits.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.stalled
    }
}
