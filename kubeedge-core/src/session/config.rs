use std::time::Duration;

/// No time is shorter: what is due must lie ahead, or the driver of a session would never sleep.
const SHORTEST: Duration = Duration::from_millis(1);
/// No time is longer: every clock can still add it.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

fn sane(time: Duration) -> Duration {
    time.clamp(SHORTEST, LONGEST)
}

/// Who keeps a link alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keepalive {
    /// We send one at the start and then so often.
    Send {
        /// Time between two.
        every: Duration,
    },
    /// The peer sends them; without one for so long the session ends.
    Expect {
        /// Longest silence.
        within: Duration,
    },
}

/// Limits and times of a session. Times are brought within one millisecond and ten years.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    pub(super) keepalive: Keepalive,
    pub(super) window: usize,
    pub(super) requests: usize,
    pub(super) queue: usize,
    pub(super) resend: Duration,
    pub(super) sends: u32,
    pub(super) reply: Duration,
    pub(super) delivers_answers: bool,
}

impl SessionConfig {
    /// The cloud's end: keepalive within 30 s, one unacknowledged message, sent 5 times 5 s apart.
    ///
    /// Upstream: `cloud/pkg/cloudhub/session/node_session.go`.
    pub fn cloud() -> Self {
        Self {
            keepalive: Keepalive::Expect { within: Duration::from_secs(30) },
            window: 1,
            requests: 1024,
            queue: 1024,
            resend: Duration::from_secs(5),
            sends: 5,
            reply: Duration::from_secs(60),
            delivers_answers: false,
        }
    }

    /// The edge's end: keepalive every 15 s, answers within 60 s.
    ///
    /// Upstream: `edge/pkg/edgehub`, `edge/pkg/metamanager` (`remoteQueryTimeout`).
    pub fn edge() -> Self {
        Self { keepalive: Keepalive::Send { every: Duration::from_secs(15) }, delivers_answers: true, ..Self::cloud() }
    }

    /// Who keeps the link alive, and how often.
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.keepalive = match keepalive {
            Keepalive::Send { every } => Keepalive::Send { every: sane(every) },
            Keepalive::Expect { within } => Keepalive::Expect { within: sane(within) },
        };
        self
    }

    /// How many messages may wait for an acknowledgement; default 1, all that a Go peer expects. At least 1.
    pub fn window(mut self, messages: usize) -> Self {
        self.window = messages.max(1);
        self
    }

    /// How many requests may wait for an answer; default 1024. At least 1.
    pub fn requests(mut self, messages: usize) -> Self {
        self.requests = messages.max(1);
        self
    }

    /// How many messages may wait to be written; default 1024. At least 1.
    pub fn queue(mut self, messages: usize) -> Self {
        self.queue = messages.max(1);
        self
    }

    /// Time until a message without acknowledgement is sent again; default 5 s.
    pub fn resend(mut self, after: Duration) -> Self {
        self.resend = sane(after);
        self
    }

    /// How often a message is sent in all; default 5. At least 1.
    pub fn sends(mut self, times: u32) -> Self {
        self.sends = times.max(1);
        self
    }

    /// How long an answer is waited for; default 60 s.
    pub fn reply(mut self, within: Duration) -> Self {
        self.reply = sane(within);
        self
    }
}
