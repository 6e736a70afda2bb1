use std::collections::BTreeMap;

use super::Stream;

/// How much a stream may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimit {
    /// Entries; at least 1.
    pub entries: usize,
    /// Bytes of keys and messages.
    pub bytes: usize,
}

impl Default for StreamLimit {
    /// 10,000 entries and 4 MiB.
    fn default() -> Self {
        Self { entries: 10_000, bytes: 4 << 20 }
    }
}

/// How much the outbox may hold: what a week without the cloud can take of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    pub(crate) state: StreamLimit,
    pub(crate) stream: StreamLimit,
    pub(crate) own: BTreeMap<Stream, StreamLimit>,
    pub(crate) streams: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        let state = StreamLimit { entries: 10_000, bytes: 32 << 20 };
        Self { state, stream: StreamLimit::default(), own: BTreeMap::new(), streams: 16 }
    }
}

impl OutboxLimits {
    /// Subjects of state, and bytes of their keys and messages; default 10,000 and 32 MiB. A commit that would add a
    /// subject beyond that fails; to replace an entry always works, even by a larger one. What the same commit removes
    /// does not count as room.
    pub fn state(mut self, entries: usize, bytes: usize) -> Self {
        self.state = StreamLimit { entries, bytes };
        self
    }

    /// Limit of each stream that has none of its own; default [`StreamLimit::default`].
    pub fn each_stream(mut self, limit: StreamLimit) -> Self {
        self.stream = StreamLimit { entries: limit.entries.max(1), ..limit };
        self
    }

    /// Limit of one stream.
    pub fn stream(mut self, stream: Stream, limit: StreamLimit) -> Self {
        self.own.insert(stream, StreamLimit { entries: limit.entries.max(1), ..limit });
        self
    }

    /// How many streams there may be; default 16. An append to one more fails.
    pub fn streams(mut self, streams: usize) -> Self {
        self.streams = streams;
        self
    }

    pub(crate) fn of(&self, stream: &Stream) -> StreamLimit {
        self.own.get(stream).copied().unwrap_or(self.stream)
    }
}

/// The limit of the outbox that a commit would have broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxLimit {
    /// So many subjects of state wait already.
    #[error("{0} subjects are the limit")]
    Subjects(usize),
    /// So many bytes of state may wait.
    #[error("{0} bytes of state are the limit")]
    StateBytes(usize),
    /// The stream has so many entries, and its writer asked not to drop any.
    #[error("{entries} entries are the limit of stream {stream}")]
    Entries {
        /// The stream.
        stream: Stream,
        /// Its limit.
        entries: usize,
    },
    /// The stream may have so many bytes: the entry alone is larger, or its writer asked not to drop any.
    #[error("{bytes} bytes are the limit of stream {stream}")]
    Bytes {
        /// The stream.
        stream: Stream,
        /// Its limit.
        bytes: usize,
    },
    /// So many streams are there already.
    #[error("{0} streams are the limit")]
    Streams(usize),
}
