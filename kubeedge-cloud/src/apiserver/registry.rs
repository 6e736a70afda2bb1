//! The resources that are served: the built-in ones and those that definitions add.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::Value;

use super::{
    schema::{Schema, TypeTable},
    status::Subject,
};

mod builtin;
mod custom;

pub(crate) use custom::resource_of;

/// What a kind does beyond plain storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    Plain,
    Namespace,
    Pod,
    Node,
    Secret,
    ConfigMap,
    Event,
    Service,
    ServiceAccount,
    Volume,
    Claim,
    Lease,
    Signing,
    Definition,
    Custom,
    /// Answered at once and never stored.
    Review,
}

/// A printer column of a custom resource.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: String,
}

/// One version of a resource.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) served: bool,
    pub(crate) schema: Arc<Schema>,
    pub(crate) status: bool,
    pub(crate) columns: Vec<Column>,
}

/// A resource: how it is named, reached and treated.
#[derive(Debug)]
pub(crate) struct Resource {
    /// `plural` or `plural.group`: the name in the store.
    pub(crate) id: Arc<str>,
    pub(crate) group: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) strategy: Strategy,
    pub(crate) versions: Vec<Version>,
    /// Index of the version in which objects are stored.
    pub(crate) storage: usize,
    /// Fields that selectors may name, with the pointer to their value.
    pub(crate) fields: Vec<(String, String)>,
    /// Subresources other than status, with the kind they take.
    pub(crate) subresources: Vec<(&'static str, &'static str)>,
}

impl Resource {
    pub(crate) fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.name == name && v.served)
    }

    pub(crate) fn storage_version(&self) -> &str {
        self.versions.get(self.storage).map_or("v1", |v| v.name.as_str())
    }

    /// `group/version`, or `version` in the core group.
    pub(crate) fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    /// Names an object of this resource in errors by its plural.
    pub(crate) fn subject(&self, name: &str) -> Subject {
        Subject { group: self.group.clone(), resource: self.plural.clone(), name: name.to_owned() }
    }

    /// Names an object of this resource in errors by its kind.
    pub(crate) fn kind_subject(&self, name: &str) -> Subject {
        Subject { group: self.group.clone(), resource: self.kind.clone(), name: name.to_owned() }
    }

    pub(crate) fn is_custom(&self) -> bool {
        self.strategy == Strategy::Custom
    }

    /// Whether an update may leave out the resource version.
    pub(crate) fn unconditional_update(&self) -> bool {
        !matches!(self.strategy, Strategy::Custom | Strategy::Definition | Strategy::Lease)
    }

    /// Whether an update of what is not there creates it.
    pub(crate) fn create_on_update(&self) -> bool {
        matches!(self.strategy, Strategy::Event | Strategy::Lease | Strategy::Service)
            || (self.group.is_empty() && self.plural == "endpoints")
    }

    /// Whether `metadata.generation` counts the changes of its spec.
    pub(crate) fn counts_generations(&self) -> bool {
        matches!(self.strategy, Strategy::Custom | Strategy::Definition | Strategy::Pod)
    }

    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        const ALL: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        match self.strategy {
            Strategy::Review => &["create"],
            Strategy::Namespace => &["create", "delete", "get", "list", "patch", "update", "watch"],
            _ => &ALL,
        }
    }

    /// Every field name that a selector may use.
    pub(crate) fn selectable(&self) -> Vec<String> {
        let own = self.fields.iter().map(|(name, _)| name.clone());
        ["metadata.name", "metadata.namespace"].map(str::to_owned).into_iter().chain(own).collect()
    }
}

/// A group and its served versions, the preferred one first.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) versions: Vec<String>,
}

/// All resources, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    /// Tells one state of the registry from another.
    revision: u64,
    types: Arc<TypeTable>,
    resources: HashMap<(String, String), Arc<Resource>>,
    kinds: HashMap<(String, String), Arc<Resource>>,
}

impl Registry {
    /// The resources that are always there.
    pub(crate) fn builtin() -> Self {
        let types = TypeTable::load();
        let resources = builtin::resources(&types);
        let mut registry = Self { types: Arc::new(types), ..Self::default() };
        for resource in resources {
            registry.insert(resource);
        }
        registry
    }

    /// This registry and the resources of these definitions. A name that is taken is not served.
    pub(crate) fn with_definitions<'a>(&self, definitions: impl Iterator<Item = &'a Value>, revision: u64) -> Self {
        let mut registry = Self { revision, ..self.clone() };
        let metadata = self.types.schema("ObjectMeta");
        for definition in definitions {
            if let Ok(resource) = resource_of(definition, &metadata)
                && !registry.kinds.contains_key(&(resource.group.clone(), resource.kind.clone()))
            {
                registry.insert(resource);
            }
        }
        registry
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The built-in types.
    pub(crate) fn types(&self) -> &Arc<TypeTable> {
        &self.types
    }

    fn insert(&mut self, resource: Resource) {
        let resource = Arc::new(resource);
        self.kinds.insert((resource.group.clone(), resource.kind.clone()), resource.clone());
        self.resources.insert((resource.group.clone(), resource.plural.clone()), resource);
    }

    pub(crate) fn find(&self, group: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&(group.to_owned(), plural.to_owned()))
    }

    pub(crate) fn by_kind(&self, group: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.kinds.get(&(group.to_owned(), kind.to_owned()))
    }

    /// All resources in the order of group and name.
    pub(crate) fn sorted(&self) -> Vec<&Arc<Resource>> {
        let mut all: Vec<_> = self.resources.values().collect();
        all.sort_by(|a, b| (&a.group, &a.plural).cmp(&(&b.group, &b.plural)));
        all
    }

    /// All groups, the core group (without a name) first.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for resource in self.sorted() {
            let versions = groups.entry(&resource.group).or_default();
            for version in resource.versions.iter().filter(|v| v.served) {
                if !versions.contains(&version.name) {
                    versions.push(version.name.clone());
                }
            }
        }
        groups
            .into_iter()
            .filter(|(_, versions)| !versions.is_empty())
            .map(|(name, mut versions)| {
                versions.sort_by_key(|v| std::cmp::Reverse(priority(v)));
                Group { name: name.to_owned(), versions }
            })
            .collect()
    }
}

/// Kubernetes' order of versions: GA before beta before alpha, then by number.
fn priority(version: &str) -> (u8, u64, u64) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    for (word, rank) in [("alpha", 1), ("beta", 2)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return (rank, major.parse().unwrap_or(0), minor.parse().unwrap_or(0));
        }
    }
    rest.parse().map_or((0, 0, 0), |major| (3, major, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let mut versions = ["v1alpha1", "v2", "v1beta2", "v1", "v1beta10", "foo"];
        versions.sort_by_key(|v| std::cmp::Reverse(priority(v)));
        assert_eq!(versions, ["v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }

    #[test]
    fn resources_are_found_by_plural_and_by_kind() {
        let registry = Registry::builtin();
        assert_eq!(registry.find("", "pods").map(|r| r.kind.as_str()), Some("Pod"));
        assert_eq!(
            registry.by_kind("coordination.k8s.io", "Lease").map(|r| &*r.id),
            Some("leases.coordination.k8s.io")
        );
        assert!(registry.find("apps", "deployments").is_none());
    }
}
