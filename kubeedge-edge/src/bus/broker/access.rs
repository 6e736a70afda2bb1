//! Who may use the broker, and which topics.
//!
//! Passwords and rules are read in the forms of mosquitto's `password_file` and `acl_file`, as operators have them.

mod rules;

use std::{collections::BTreeMap, num::NonZeroU32};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kubeedge_core::topic::{Topic, TopicFilter};
use ring::{digest, pbkdf2};

use self::rules::{Access as Direction, Rule, Rules};
use crate::bus::{Credentials, overlap::overlap};

/// Iterations of a password's hash that are still computed: whoever wants in must not keep the broker busy.
const MAX_ITERATIONS: u32 = 100_000;

/// Who may use a broker, and which topics. By default everybody may use all.
#[derive(Clone, Debug, Default)]
pub struct BrokerAccess {
    users: BTreeMap<String, Secret>,
    anonymous: bool,
    closed: bool,
    rules: Option<Rules>,
}

/// A line of a file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct InvalidAccess {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it. Passwords are not shown.
    pub why: String,
}

#[derive(Clone)]
enum Secret {
    Plain(String),
    /// PBKDF2 with HMAC-SHA512, as `mosquitto_passwd` makes it.
    Hash {
        iterations: NonZeroU32,
        salt: Vec<u8>,
        hash: Vec<u8>,
    },
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl BrokerAccess {
    /// Everybody may use all topics.
    pub fn open() -> Self {
        Self::default()
    }

    /// Only those who show the credentials are let in; more than one may be given.
    pub fn user(mut self, credentials: Credentials) -> Self {
        let Credentials { username, password } = credentials;
        self.users.insert(username, Secret::Plain(password));
        self.closed = true;
        self
    }

    /// Only users of a `password_file` are let in: lines `name:$7$<iterations>$<salt>$<hash>` as `mosquitto_passwd`
    /// writes them. Older hashes (`$6$`) and plain passwords are refused.
    ///
    /// # Errors
    /// [`InvalidAccess`] names the line.
    pub fn passwords(mut self, file: &str) -> Result<Self, InvalidAccess> {
        for (line, text) in lines(file) {
            let invalid = |why: &str| InvalidAccess { line, why: why.to_owned() };
            let (name, secret) = text.split_once(':').ok_or_else(|| invalid("has no colon after the name"))?;
            let secret = Secret::parse(secret)
                .ok_or_else(|| invalid("has no password hash as mosquitto_passwd makes it ($7$...)"))?;
            self.users.insert(name.to_owned(), secret);
        }
        self.closed = true;
        Ok(self)
    }

    /// Whether those without a name are let in all the same; default no, once there are users.
    pub fn anonymous(mut self, allowed: bool) -> Self {
        self.anonymous = allowed;
        self
    }

    /// The topics that may be used, by an `acl_file`: lines `user <name>`, `topic [read|write|readwrite|deny] <filter>` and
    /// `pattern [...] <filter>` with `%u` for the name and `%c` for the client id. What no line allows is refused.
    ///
    /// A subscription is refused as a whole unless one line allows all that it could match, and no `deny` meets it;
    /// mosquitto would grant it and hold back what is not allowed.
    ///
    /// # Errors
    /// [`InvalidAccess`] names the line.
    pub fn rules(mut self, file: &str) -> Result<Self, InvalidAccess> {
        self.rules = Some(Rules::parse(file)?);
        Ok(self)
    }

    /// Whether somebody without a password may do something.
    pub(super) fn lets_strangers_in(&self) -> bool {
        !self.closed || self.anonymous
    }

    /// The rights of a client with that login; `None` if it may not come in.
    pub(super) fn admit(&self, login: Option<(&str, &str)>, client_id: &str) -> Option<Rights> {
        let user = match login {
            Some((name, password)) if self.closed => {
                let known = self.users.get(name);
                known.is_some_and(|secret| secret.is(password)).then_some(Some(name))?
            }
            Some((name, _)) => Some(name),
            None => self.lets_strangers_in().then_some(None)?,
        };
        Some(Rights(self.rules.as_ref().map(|rules| rules.of(user, client_id))))
    }
}

impl Secret {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("$7$")?.split('$');
        let iterations: u32 = parts.next()?.parse().ok()?;
        let mut bytes = || BASE64_STANDARD.decode(parts.next()?).ok();
        let (salt, hash) = (bytes()?, bytes()?);
        let iterations = NonZeroU32::new(iterations).filter(|count| count.get() <= MAX_ITERATIONS)?;
        (hash.len() == digest::SHA512_OUTPUT_LEN && parts.next().is_none()).then_some(Self::Hash {
            iterations,
            salt,
            hash,
        })
    }

    /// Digests are compared, so that the time it takes says nothing about the password.
    fn is(&self, password: &str) -> bool {
        match self {
            Self::Plain(known) => {
                let digest = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
                digest(known).as_ref() == digest(password).as_ref()
            }
            Self::Hash { iterations, salt, hash } => {
                pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, *iterations, salt, password.as_bytes(), hash).is_ok()
            }
        }
    }
}

/// What one client may do. Without rules, everything.
#[derive(Clone, Debug)]
pub(super) struct Rights(Option<Vec<Rule>>);

impl Rights {
    pub(super) fn may_publish(&self, topic: &Topic) -> bool {
        self.decide(Direction::Write, |filter| filter.matches(topic), |filter| filter.matches(topic))
    }

    pub(super) fn may_subscribe(&self, wanted: &TopicFilter) -> bool {
        self.decide(Direction::Read, |allowed| allowed.covers(wanted), |denied| overlap(denied, wanted))
    }

    fn decide(
        &self,
        direction: Direction,
        allows: impl Fn(&TopicFilter) -> bool,
        denies: impl Fn(&TopicFilter) -> bool,
    ) -> bool {
        let Some(rules) = &self.0 else { return true };
        let denied = rules.iter().any(|rule| rule.access == Direction::Deny && denies(&rule.filter));
        !denied && rules.iter().any(|rule| rule.access.includes(direction) && allows(&rule.filter))
    }
}

/// The lines that say something, with their numbers.
fn lines(file: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = file.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests;
