//! One entry of state, or one window of a stream, on its way.

use futures_util::future::BoxFuture;
use kubeedge_core::{
    answer::Answer,
    message::Message,
    meta::{MetaError, MetaHandle, MetaKey, MetaWrite, Record, Revision},
    outbox::{self, Entry, Sequence, Stream, Subject},
    service::Causes,
    session::Until,
    uplink::{UplinkError, UplinkHandle},
    words::Operation,
};

use super::queue::Job;

/// What is no longer under way.
#[derive(Debug)]
pub(super) enum Landed {
    /// The entry of that revision.
    State(Subject, Revision),
    /// A window, and what of it is no longer in the store.
    Stream(Stream, Vec<Sequence>),
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is settled: answered or written, refused for good, or no longer there.
    Settled,
    /// Nothing was heard because there is no link.
    NoLink,
    /// To be tried again.
    Failed,
}

pub(super) type Sending = BoxFuture<'static, (Landed, Outcome)>;

/// Sends entries, and takes them away once they are settled.
#[derive(Clone)]
pub(super) struct Delivery {
    pub(super) store: MetaHandle,
    pub(super) uplink: UplinkHandle,
}

/// How an entry fared.
enum Sent {
    /// It is to be taken away. `answered` if that took a round trip.
    Done {
        entry: Record,
        answered: bool,
    },
    /// It is no longer there.
    Gone,
    Not(Outcome),
}

impl Delivery {
    pub(super) fn start(&self, job: Job) -> Sending {
        let this = self.clone();
        match job {
            Job::State(subject, revision) => Box::pin(async move { this.state(subject, revision).await }),
            Job::Stream(stream, sequences) => Box::pin(async move { this.window(stream, sequences).await }),
        }
    }

    async fn state(self, subject: Subject, revision: Revision) -> (Landed, Outcome) {
        let (sent, outcome) = match self.send(&outbox::key(&subject)).await {
            Sent::Done { entry, .. } => {
                let outcome =
                    if self.take_away(&[outbox::settle(&entry)]).await { Outcome::Settled } else { Outcome::Failed };
                (entry.revision, outcome)
            }
            Sent::Gone => (revision, Outcome::Settled),
            Sent::Not(outcome) => (revision, outcome),
        };
        (Landed::State(subject, sent), outcome)
    }

    /// Sends one after the other, up to the first that fails or is answered, and takes them away together.
    async fn window(self, stream: Stream, sequences: Vec<Sequence>) -> (Landed, Outcome) {
        let (mut gone, mut settled) = (Vec::new(), Vec::new());
        let mut outcome = Outcome::Settled;
        for sequence in sequences {
            match self.send(&Entry::Stream(stream.clone(), sequence).key()).await {
                Sent::Done { entry, answered } => {
                    settled.push((sequence, outbox::settle(&entry)));
                    if answered {
                        break;
                    }
                }
                Sent::Gone => gone.push(sequence),
                Sent::Not(failure) => {
                    outcome = failure;
                    break;
                }
            }
        }
        let (sequences, writes): (Vec<_>, Vec<_>) = settled.into_iter().unzip();
        if self.take_away(&writes).await {
            gone.extend(sequences);
        } else {
            outcome = Outcome::Failed;
        }
        (Landed::Stream(stream, gone), outcome)
    }

    async fn send(&self, key: &MetaKey) -> Sent {
        let entry = match self.store.get(key.clone()).await {
            Ok(Some(entry)) => entry,
            Ok(None) => return Sent::Gone,
            Err(error) => {
                tracing::warn!(error = %Causes(&error), %key, "outbox entry cannot be read");
                return Sent::Not(Outcome::Failed);
            }
        };
        let message = match outbox::message(&entry) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(error = %Causes(&error), %key, "outbox entry is damaged, dropped");
                return Sent::Done { entry, answered: false };
            }
        };
        let answered = outbox::settled_by(&message) == Until::Replied;
        let sent = if answered {
            self.uplink.request(message).await.map(|reply| judge(key, &reply))
        } else {
            self.uplink.send(message).await.map(|()| true)
        };
        match sent {
            Ok(true) => Sent::Done { entry, answered },
            Ok(false) => Sent::Not(Outcome::Failed),
            Err(UplinkError::Disconnected) => Sent::Not(Outcome::NoLink),
            Err(error) => {
                tracing::debug!(error = %Causes(&error), %key, "outbox entry not answered");
                Sent::Not(Outcome::Failed)
            }
        }
    }

    /// Takes entries away, unless they were replaced; whether none of them is to be sent again.
    async fn take_away(&self, writes: &[MetaWrite]) -> bool {
        if writes.is_empty() {
            return true;
        }
        match self.store.commit(writes.to_vec()).await {
            Ok(_) => true,
            // One alone was replaced, or has made room. Otherwise that must not keep the others.
            Err(MetaError::Conflict { .. }) => {
                for write in writes.iter().filter(|_| writes.len() > 1) {
                    match self.store.commit(vec![write.clone()]).await {
                        Ok(_) | Err(MetaError::Conflict { .. }) => {}
                        Err(error) => return stays(write.key(), &error),
                    }
                }
                true
            }
            Err(error) => stays(writes[0].key(), &error),
        }
    }
}

fn stays(key: &MetaKey, error: &MetaError) -> bool {
    // It will be sent again: the cloud takes a repetition.
    tracing::warn!(error = %Causes(error), %key, "outbox entry cannot be removed");
    false
}

/// Whether `reply` settles the entry.
fn judge(key: &MetaKey, reply: &Message) -> bool {
    if reply.operation == Operation::Error {
        tracing::warn!(%key, reason = ?reply.content, "the cloud failed on an outbox entry");
        return false;
    }
    match Answer::read(&reply.content) {
        Answer::Refused(status) if matches!(status.code, 400..500) && !matches!(status.code, 408 | 409 | 429) => {
            tracing::warn!(
                %key,
                code = status.code,
                reason = status.message,
                "the cloud refused an outbox entry, dropped"
            );
            true
        }
        Answer::Refused(status) => {
            tracing::debug!(%key, code = status.code, reason = status.message, "the cloud could not take an outbox entry");
            false
        }
        _ => true,
    }
}
