use std::{fmt, sync::Arc};

use kubeedge_core::names::NodeName;

/// Longest name, so that the Lease that is called after it has a legal one.
const LONGEST: usize = 200;
/// Of what a random name is made, after the name of the host: as Kubernetes does.
const SUFFIX: usize = 6;

/// A text that cannot be the name of an instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of an instance: it must be a lower-case DNS subdomain of at most {LONGEST} characters")]
pub struct InvalidInstance(String);

/// Name of a running instance of the cloud. No two that run at the same time may have the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName(Arc<str>);

impl InstanceName {
    /// A name that the caller keeps unique, and best different from start to start.
    ///
    /// # Errors
    /// [`InvalidInstance`], as it becomes part of the name of a Lease.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidInstance> {
        let name = name.as_ref();
        // Nodes and Leases are named by the same rule.
        if name.len() > LONGEST || NodeName::new(name).is_err() {
            return Err(InvalidInstance(name.chars().take(LONGEST).collect()));
        }
        Ok(Self(name.into()))
    }

    /// A unique name that begins with that of the host, or of whatever else tells a reader where it runs. What a name cannot
    /// have is left out.
    pub fn random(host: &str) -> Self {
        let mut text: String = host.to_ascii_lowercase();
        text.retain(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-');
        let host = text.get(..LONGEST - SUFFIX - 1).unwrap_or(&text).trim_matches('-');
        let host = if host.is_empty() { "cloudcore" } else { host };
        let suffix: String =
            std::iter::repeat_with(|| fastrand::alphanumeric().to_ascii_lowercase()).take(SUFFIX).collect();
        Self(format!("{host}-{suffix}").into())
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn random_names_are_legal_and_differ() {
        for host in ["gw-1.site.example", "", "-Host_9-", &"x".repeat(300), "ü"] {
            let (one, other) = (InstanceName::random(host), InstanceName::random(host));
            assert_ne!(one, other);
            assert_eq!(InstanceName::new(one.as_str()), Ok(one));
        }
        assert!(InstanceName::random("Host_9").as_str().starts_with("host9-"));
        assert!(InstanceName::new("a/b").is_err() && InstanceName::new("x".repeat(201)).is_err());
    }
}
