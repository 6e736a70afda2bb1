//! The table of the built-in types, compiled from `registry/types.txt`.

use std::{collections::HashMap, sync::Arc};

use super::{Kind, ListType, PatchStrategy, Schema, WireField};

const TYPES: &str = include_str!("../registry/types.txt");

/// Schemas of the built-in types by name.
#[derive(Debug, Default)]
pub(crate) struct TypeTable {
    types: HashMap<&'static str, Arc<Schema>>,
}

impl TypeTable {
    /// Reads the table that is compiled in.
    pub(crate) fn load() -> Self {
        let mut sources: HashMap<&'static str, Source> = HashMap::new();
        let mut current = None;
        for line in TYPES.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            if let Some(field) = line.strip_prefix("  ") {
                if let Some(source) = current.and_then(|name| sources.get_mut(name)) {
                    source.fields.push(field);
                }
            } else {
                let mut words = line.split(' ');
                let name = words.next().unwrap_or(line);
                sources.insert(name, Source { atomic: words.next() == Some("atomic"), fields: Vec::new() });
                current = Some(name);
            }
        }
        let mut table = Self { types: HashMap::new() };
        let names: Vec<_> = sources.keys().copied().collect();
        for name in names {
            table.resolve(name, &sources);
        }
        table
    }

    /// The schema of a type; a type that is not in the table may hold anything.
    pub(crate) fn schema(&self, name: &str) -> Arc<Schema> {
        self.types.get(name).cloned().unwrap_or_default()
    }

    fn resolve(&mut self, name: &'static str, sources: &HashMap<&'static str, Source>) -> Arc<Schema> {
        if let Some(done) = self.types.get(name) {
            return done.clone();
        }
        let Some(source) = sources.get(name) else { return Arc::default() };
        let mut schema = Schema { atomic: source.atomic, ..Schema::of(Kind::Object) };
        for field in &source.fields {
            let mut words = field.split(' ');
            let (Some(name), Some(kind), Some(place)) = (words.next(), words.next(), words.next()) else { continue };
            let (name, required) = name.strip_suffix('!').map_or((name, false), |n| (n, true));
            if required {
                schema.required.push(name.to_owned());
            }
            let (path, significant) = place.strip_suffix('*').map_or((place, false), |path| (path, true));
            let path: Result<Vec<u32>, _> = path.split('.').map(str::parse).collect();
            if let Ok(path) = path {
                schema.wire.push(WireField { name: name.to_owned(), path, significant });
            }
            let field = self.parse(kind, words, sources);
            schema.properties.insert(name.to_owned(), field);
        }
        let schema = Arc::new(schema);
        self.types.insert(name, schema.clone());
        schema
    }

    fn parse(
        &mut self,
        kind: &'static str,
        marks: std::str::Split<'static, char>,
        sources: &HashMap<&'static str, Source>,
    ) -> Arc<Schema> {
        if let Some(item) = kind.strip_prefix('[').and_then(|k| k.strip_suffix(']')) {
            let mut list = Schema::of(Kind::Array);
            list.items = Some(self.parse(item, "".split(' '), sources));
            for mark in marks {
                match mark.split_once('=') {
                    Some(("map", keys)) => list.list = ListType::Map(keys.split(',').map(str::to_owned).collect()),
                    Some(("merge", key)) => list.patch = PatchStrategy::MergeBy(key.to_owned()),
                    None if mark == "set" => list.list = ListType::Set,
                    None if mark == "merge" => list.patch = PatchStrategy::MergeValues,
                    _ => {}
                }
            }
            return Arc::new(list);
        }
        if let Some(item) = kind.strip_prefix('{').and_then(|k| k.strip_suffix('}')) {
            let mut map = Schema::of(Kind::Object);
            map.additional = Some(self.parse(item, "".split(' '), sources));
            map.atomic = marks.into_iter().any(|m| m == "atomic");
            return Arc::new(map);
        }
        let leaf =
            |kind, format: Option<&str>| Arc::new(Schema { format: format.map(str::to_owned), ..Schema::of(kind) });
        match kind {
            "string" => leaf(Kind::String, None),
            "int32" | "int64" => leaf(Kind::Integer, Some(kind)),
            "number" | "double" => leaf(Kind::Number, None),
            "bool" => leaf(Kind::Boolean, None),
            "bytes" => leaf(Kind::Bytes, Some("byte")),
            "time" => leaf(Kind::Time, Some("date-time")),
            "microtime" => leaf(Kind::Time, Some("microtime")),
            "quantity" => leaf(Kind::Quantity, None),
            "int-or-string" => leaf(Kind::IntOrString, Some("int-or-string")),
            "any" => Arc::new(Schema { preserve: true, ..Schema::default() }),
            name => self.resolve(name, sources),
        }
    }
}

struct Source {
    atomic: bool,
    fields: Vec<&'static str>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_type_that_a_field_names_is_in_the_table() {
        for line in TYPES.lines().filter(|l| l.starts_with("  ")) {
            let kind = line.trim().split(' ').nth(1).unwrap().trim_matches(['[', ']', '{', '}']);
            if kind.starts_with(|c: char| c.is_ascii_uppercase()) {
                assert!(TypeTable::load().types.contains_key(kind), "{line}");
            }
        }
    }

    #[test]
    fn pods_know_their_keys() {
        let pod = TypeTable::load().schema("Pod");
        let containers = pod.field("spec").unwrap().field("containers").unwrap();
        assert_eq!(containers.patch, PatchStrategy::MergeBy("name".to_owned()));
        let ports = containers.items.as_ref().unwrap().field("ports").unwrap();
        assert_eq!(ports.list, ListType::Map(vec!["containerPort".to_owned(), "protocol".to_owned()]));
        assert_eq!(ports.patch, PatchStrategy::MergeBy("containerPort".to_owned()));
        assert_eq!(pod.field("metadata").unwrap().field("finalizers").unwrap().patch, PatchStrategy::MergeValues);
    }
}
