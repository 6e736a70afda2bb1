//! Rules in the form of mosquitto's `acl_file`.

use std::collections::BTreeMap;

use kubeedge_core::topic::TopicFilter;

use super::{InvalidAccess, lines};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    ReadWrite,
    Deny,
}

impl Access {
    pub(super) fn includes(self, other: Self) -> bool {
        self == other || self == Self::ReadWrite
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) access: Access,
    pub(super) filter: TopicFilter,
}

/// All rules of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// By user; those of nobody are for clients without a name.
    of: BTreeMap<Option<String>, Vec<Rule>>,
    /// For all, with placeholders.
    patterns: Vec<(Access, String)>,
}

impl Rules {
    pub(super) fn parse(file: &str) -> Result<Self, InvalidAccess> {
        let mut rules = Self::default();
        let mut user = None;
        for (line, text) in lines(file) {
            let invalid = |why: String| InvalidAccess { line, why };
            let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
            let rest = rest.trim();
            match word {
                "user" if !rest.is_empty() => user = Some(rest.to_owned()),
                "topic" => {
                    let (access, filter) = entry(rest);
                    let filter = TopicFilter::new(filter).map_err(|error| invalid(error.to_string()))?;
                    rules.of.entry(user.clone()).or_default().push(Rule { access, filter });
                }
                "pattern" => {
                    let (access, pattern) = entry(rest);
                    TopicFilter::new(pattern).map_err(|error| invalid(error.to_string()))?;
                    rules.patterns.push((access, pattern.to_owned()));
                }
                _ => return Err(invalid(format!("{text:?} begins with none of user, topic and pattern"))),
            }
        }
        Ok(rules)
    }

    /// The rules for one client.
    pub(super) fn of(&self, user: Option<&str>, client_id: &str) -> Vec<Rule> {
        let own = self.of.get(&user.map(str::to_owned)).into_iter().flatten().cloned();
        // A name with a wildcard in it would allow more than its own.
        let fits = |text: &str| !text.contains(['+', '#', '/']);
        let filled = self.patterns.iter().filter_map(|(access, pattern)| {
            let needs_user = pattern.contains("%u");
            if needs_user && !user.is_some_and(fits) || pattern.contains("%c") && !fits(client_id) {
                return None;
            }
            let filter = pattern.replace("%u", user.unwrap_or_default()).replace("%c", client_id);
            Some(Rule { access: *access, filter: TopicFilter::new(filter).ok()? })
        });
        own.chain(filled).collect()
    }
}

/// The kind of access, which may be left out, and the filter, which may have blanks.
fn entry(text: &str) -> (Access, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let access = match word {
        "read" => Access::Read,
        "write" => Access::Write,
        "readwrite" => Access::ReadWrite,
        "deny" => Access::Deny,
        _ => return (Access::ReadWrite, text),
    };
    match rest.trim() {
        // A topic of that name.
        "" => (Access::ReadWrite, text),
        filter => (access, filter),
    }
}
