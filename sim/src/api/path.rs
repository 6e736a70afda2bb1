//! Paths of requests.

use std::fmt;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The plural of its kind; no two groups share one here.
    pub plural: String,
    /// Its namespace, or nothing.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Place {
    /// An object in the namespace `default`.
    pub(crate) fn namespaced(plural: &str, name: &str) -> Self {
        Self { plural: plural.into(), namespace: "default".into(), name: name.into() }
    }

    /// An object of the cluster.
    pub(crate) fn cluster(plural: &str, name: &str) -> Self {
        Self { plural: plural.into(), namespace: String::new(), name: name.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.plural, self.name),
            namespace => write!(f, "{namespace}/{}/{}", self.plural, self.name),
        }
    }
}

/// What a request is about.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) plural: String,
    pub(super) namespace: String,
    pub(super) name: Option<String>,
    pub(super) status: bool,
}

impl Target {
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut rest: Vec<&str> = path.trim_matches('/').split('/').collect();
        let skip = match *rest.first()? {
            "api" => 2,
            "apis" => 3,
            _ => return None,
        };
        if rest.len() <= skip {
            return None;
        }
        rest.drain(..skip);
        let mut namespace = "";
        if rest.len() > 2 && rest[0] == "namespaces" {
            namespace = rest[1];
            rest.drain(..2);
        }
        Some(Self {
            plural: rest[0].to_owned(),
            namespace: namespace.to_owned(),
            name: rest.get(1).map(|name| (*name).to_owned()),
            status: rest.get(2) == Some(&"status"),
        })
    }

    pub(super) fn place(&self, name: &str) -> Place {
        Place { plural: self.plural.clone(), namespace: self.namespace.clone(), name: name.to_owned() }
    }
}

/// Equality-based selectors, as our controllers use them.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector(Vec<(String, String)>);

impl Selector {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    pub(super) fn matches(&self, object: &serde_json::Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|(key, value)| labels[key.as_str()].as_str() == Some(value))
    }
}
