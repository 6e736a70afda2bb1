//! What two ends of ours may do beyond KubeEdge's protocol.

use std::{fmt, num::NonZeroU16};

use crate::names::NodeName;

/// Extensions of the protocol, as offered by who dials or as chosen by who answers.
///
/// A peer of ours names what it can do in the header [`HEADER`](Self::HEADER) of the handshake, and is answered, in the
/// same header, with what holds for this connection. A Go peer neither sends nor reads that header, so with it nothing is
/// different from upstream.
///
/// The text is a list of words, some with a value: `window=64, batch, deflate, inventory`. Words that are not known are
/// ignored, and so are known ones with a bad value: a later version may add words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extensions {
    /// How many messages the cloud may have in flight that are not acknowledged; without it one, as upstream.
    pub window: Option<NonZeroU16>,
    /// Messages may come in binary frames that hold several; see [`wire::batch`](crate::wire::batch).
    pub batch: bool,
    /// Such frames may be compressed.
    pub deflate: bool,
    /// The edge tells what it has when it is asked; see [`inventory`](crate::inventory).
    pub inventory: bool,
}

impl Extensions {
    /// Name of the header in the handshake of a WebSocket.
    pub const HEADER: &str = "kubeedge-extensions";

    /// The window that is offered unless configured.
    pub const WINDOW: NonZeroU16 = NonZeroU16::new(64).unwrap();

    /// None: the protocol as upstream has it.
    pub const fn none() -> Self {
        Self { window: None, batch: false, deflate: false, inventory: false }
    }

    /// All that this version knows.
    pub const fn all() -> Self {
        Self { window: Some(Self::WINDOW), batch: true, deflate: true, inventory: true }
    }

    /// With that window; `None` for one message at a time.
    pub fn window(mut self, messages: Option<NonZeroU16>) -> Self {
        self.window = messages;
        self
    }

    /// Reads the value of the header.
    pub fn parse(text: &str) -> Self {
        let mut extensions = Self::none();
        for word in text.split(',') {
            match word.trim().split_once('=') {
                Some(("window", messages)) => extensions.window = messages.trim().parse().ok(),
                None => match word.trim() {
                    "batch" => extensions.batch = true,
                    "deflate" => extensions.deflate = true,
                    "inventory" => extensions.inventory = true,
                    _ => {}
                },
                Some(_) => {}
            }
        }
        extensions
    }

    /// What both ends can do.
    pub fn common(self, other: Self) -> Self {
        Self {
            window: self.window.zip(other.window).map(|(ours, theirs)| ours.min(theirs)),
            batch: self.batch && other.batch,
            deflate: self.deflate && other.deflate,
            inventory: self.inventory && other.inventory,
        }
    }

    /// Whether there are none, so that the header is better left out.
    pub fn is_none(self) -> bool {
        self == Self::none()
    }
}

impl fmt::Display for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(window) = self.window {
            write!(f, "window={window}")?;
            separator = ", ";
        }
        for (word, on) in [("batch", self.batch), ("deflate", self.deflate), ("inventory", self.inventory)] {
            if on {
                write!(f, "{separator}{word}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

/// Who dials, and what it can do: what a handshake tells before there is a link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hello {
    /// The node that it says it is. Whoever accepts compares it with what the peer has proved.
    pub node: NodeName,
    /// Project id.
    pub project: String,
    /// What it can do.
    pub extensions: Extensions,
}

impl Hello {
    /// A peer that says it is `node`, with upstream's protocol and project id.
    pub fn new(node: NodeName) -> Self {
        let project = super::CloudEndpoint::DEFAULT_PROJECT.into();
        Self { node, project, extensions: Extensions::none() }
    }

    /// With that project id.
    pub fn project(mut self, project: impl Into<String>) -> Self {
        self.project = project.into();
        self
    }

    /// With those extensions.
    pub fn extensions(mut self, extensions: Extensions) -> Self {
        self.extensions = extensions;
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_ends_get_what_both_can_do() {
        let ours = Extensions::all();
        let theirs = Extensions::parse("window=8, deflate , shout=loud, batch");
        let common = ours.common(theirs);
        assert_eq!(common.to_string(), "window=8, batch, deflate");
        assert_eq!(theirs.common(ours), common);
        assert!(ours.common(Extensions::none()).is_none());
        assert_eq!(Extensions::all().to_string(), "window=64, batch, deflate, inventory");
    }

    #[test]
    fn a_bad_value_is_as_good_as_none() {
        for text in ["", "window", "window=", "window=0", "window=-1", "window=65536", "batch=1", "Batch"] {
            assert!(Extensions::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(window in any::<u16>(), batch: bool, deflate: bool, inventory: bool) {
            let extensions = Extensions { window: NonZeroU16::new(window), batch, deflate, inventory };
            prop_assert_eq!(Extensions::parse(&extensions.to_string()), extensions);
        }

        #[test]
        fn any_text_is_read(text in ".*") {
            let _ = Extensions::parse(&text);
        }
    }
}
