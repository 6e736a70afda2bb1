//! Server-side apply: who owns which field, what an applied configuration changes, and where two disagree.
//!
//! Owners are recorded from the first apply on; what was there before then belongs to `before-first-apply`, as in
//! Kubernetes for objects without a record.

use serde_json::{Map, Value, json};

use super::fields::{self, Fields, Parts};
use crate::apiserver::{
    lifecycle::{Part, Target, metadata, seconds},
    schema::Schema,
    status::ApiError,
    store::Object,
};

/// How a configuration is applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applied<'a> {
    pub(crate) manager: &'a str,
    /// Fields of others are taken over.
    pub(crate) force: bool,
    pub(crate) part: Part,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    time: String,
    subresource: String,
    fields: Fields,
}

impl Entry {
    fn read(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Some(Self {
            manager: text("manager"),
            operation: text("operation"),
            api_version: text("apiVersion"),
            time: text("time"),
            subresource: text("subresource"),
            fields: value["fieldsV1"].as_object()?.clone(),
        })
    }

    fn write(&self) -> Value {
        let mut value = json!({"manager": self.manager, "operation": self.operation, "apiVersion": self.api_version,
            "time": self.time, "fieldsType": "FieldsV1", "fieldsV1": self.fields});
        if !self.subresource.is_empty() {
            value["subresource"] = self.subresource.as_str().into();
        }
        value
    }

    fn is(&self, manager: &str, operation: &str, subresource: &str) -> bool {
        self.manager == manager && self.operation == operation && self.subresource == subresource
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    let list = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Entry::read).collect()
}

fn store(object: &mut Value, entries: &[Entry]) {
    let list: Vec<_> = entries.iter().filter(|entry| !entry.fields.is_empty()).map(Entry::write).collect();
    let metadata = metadata(object);
    if list.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), list.into());
    }
}

fn subresource(part: Part) -> &'static str {
    if part == Part::Status { "status" } else { "" }
}

/// Records the fields that a plain update changes. Objects that were never applied have no record and get none.
pub(crate) fn track(target: &Target, old: &Object, new: &mut Value, manager: &str, part: Part, now: jiff::Timestamp) {
    let was = old.value();
    let given = new.pointer("/metadata/managedFields").and_then(Value::as_array);
    // An empty list, or one empty entry, asks for the record to be dropped.
    if given.is_some_and(|list| list.iter().all(|entry| entry.as_object().is_none_or(Map::is_empty))) {
        metadata(new).remove("managedFields");
        return;
    }
    let mut entries = if given.is_some() { entries(new) } else { entries(&was) };
    if entries.is_empty() {
        metadata(new).remove("managedFields");
        return;
    }
    let schema = target.schema();
    let mut before = fields::ownable(&was);
    let mut after = fields::ownable(new);
    // A status that the main endpoint ignores is not changed by it, and the other way round.
    if target.has_status() {
        for object in [&mut before, &mut after] {
            if let Some(map) = object.as_object_mut() {
                match part {
                    Part::Main => drop(map.remove("status")),
                    Part::Status if target.resource.is_custom() => map.retain(|key, _| key == "status"),
                    _ => {}
                }
            }
        }
    }
    let (changed, removed) = fields::compare(Some(&schema), &before, &after);
    for entry in &mut entries {
        if !entry.is(manager, "Update", subresource(part)) {
            fields::subtract(&mut entry.fields, &changed);
        }
        fields::subtract(&mut entry.fields, &removed);
    }
    if !changed.is_empty() {
        let place = entries.iter().position(|entry| entry.is(manager, "Update", subresource(part)));
        let place = place.unwrap_or_else(|| {
            entries.push(Entry {
                manager: manager.to_owned(),
                operation: "Update".to_owned(),
                api_version: target.api_version(),
                time: String::new(),
                subresource: subresource(part).to_owned(),
                fields: Fields::new(),
            });
            entries.len() - 1
        });
        fields::unite(&mut entries[place].fields, &changed);
        entries[place].time = seconds(now);
    }
    store(new, &entries);
}

/// Applies a configuration to the live object and returns the result with its record of owners.
pub(crate) fn apply(
    target: &Target,
    live: &Value,
    mut config: Value,
    how: &Applied<'_>,
    now: jiff::Timestamp,
) -> Result<Value, ApiError> {
    let schema = target.schema();
    let schema = Some(&*schema);
    if target.has_status() && how.part == Part::Main {
        // It would not be stored, so nobody can own it.
        config.as_object_mut().map(|config| config.remove("status"));
    }
    let mut entries = entries(live);
    let is_new = live.get("metadata").is_none();
    if entries.is_empty() && !is_new {
        entries.push(Entry {
            manager: "before-first-apply".to_owned(),
            operation: "Update".to_owned(),
            api_version: target.api_version(),
            time: seconds(now),
            subresource: String::new(),
            fields: fields::of(schema, &fields::ownable(live)),
        });
    }
    let config_fields = fields::of(schema, &fields::ownable(&config));
    let sub = subresource(how.part);
    let (own, mut others): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.is(how.manager, "Apply", sub));
    let mut conflicts = Vec::new();
    for entry in &others {
        let mut found = Vec::new();
        collide(schema, &config_fields, &entry.fields, live, &config, "", &mut found);
        conflicts.extend(found.into_iter().map(|path| (describe(entry), path)));
    }
    if !conflicts.is_empty() && !how.force {
        return Err(ApiError::apply_conflict(&conflicts));
    }
    let mut merged = merge(schema, live.clone(), config.clone());
    if let Some(before) = own.first() {
        let mut kept = config_fields.clone();
        for entry in &others {
            fields::unite(&mut kept, &entry.fields);
        }
        remove(schema, &before.fields, &kept, &mut merged);
    }
    if how.force && !conflicts.is_empty() {
        for entry in &mut others {
            let mut lost = Fields::new();
            differing(schema, &config_fields, live, &config, &mut lost);
            fields::subtract(&mut entry.fields, &lost);
        }
    }
    let unchanged = own.first().filter(|before| before.fields == config_fields);
    let time = unchanged.map_or_else(|| seconds(now), |before| before.time.clone());
    others.push(Entry {
        manager: how.manager.to_owned(),
        operation: "Apply".to_owned(),
        api_version: target.api_version(),
        time,
        subresource: sub.to_owned(),
        fields: config_fields,
    });
    store(&mut merged, &others);
    // A version in the configuration is a precondition.
    if let Some(version) = config.pointer("/metadata/resourceVersion") {
        merged["metadata"]["resourceVersion"] = version.clone();
    }
    Ok(merged)
}

fn describe(entry: &Entry) -> String {
    let using = format!("{} using {}", entry.manager, entry.api_version);
    match (entry.operation.as_str(), entry.subresource.as_str()) {
        ("Apply", _) => entry.manager.clone(),
        (_, "") => using,
        (_, sub) => format!("{using} with subresource {sub:?}"),
    }
}

/// Finds fields of both sets whose values differ.
fn collide(
    schema: Option<&Schema>,
    mine: &Fields,
    theirs: &Fields,
    live: &Value,
    config: &Value,
    prefix: &str,
    found: &mut Vec<String>,
) {
    for (element, below) in mine.iter().filter(|(element, _)| !fields::is_self(element)) {
        let Some(theirs) = fields::below(theirs, element) else { continue };
        let Some(wanted) = fields::part(schema, config, element) else { continue };
        let present = fields::part(schema, live, element);
        let path = fields::path(prefix, element);
        let schema = fields::part_schema(schema, element);
        let mine = below.as_object();
        if mine.is_none_or(Map::is_empty) || theirs.is_empty() {
            if present.is_some_and(|present| present != wanted && !is_container(schema, present, wanted)) {
                found.push(path);
            }
        } else if let (Some(mine), Some(present)) = (mine, present) {
            collide(schema, mine, theirs, present, wanted, &path, found);
        }
    }
}

/// Whether both values have parts, so that owning the whole says nothing about them.
fn is_container(schema: Option<&Schema>, a: &Value, b: &Value) -> bool {
    let splits = |value| !matches!(fields::parts(schema, value), Parts::Leaf);
    (splits(a) || is_empty(a)) && (splits(b) || is_empty(b)) && (a.is_object() || fields::is_list_of_parts(schema))
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

/// The fields of the configuration whose values differ from the live ones.
fn differing(schema: Option<&Schema>, mine: &Fields, live: &Value, config: &Value, out: &mut Fields) {
    for (element, below) in mine.iter().filter(|(element, _)| !fields::is_self(element)) {
        let Some(wanted) = fields::part(schema, config, element) else { continue };
        let Some(present) = fields::part(schema, live, element) else { continue };
        if present == wanted {
            continue;
        }
        let schema = fields::part_schema(schema, element);
        match below.as_object().filter(|below| !below.is_empty()) {
            Some(below) => {
                let mut inner = Fields::new();
                differing(schema, below, present, wanted, &mut inner);
                if !inner.is_empty() {
                    out.insert(element.clone(), Value::Object(inner));
                }
            }
            None => {
                out.insert(element.clone(), json!({}));
            }
        }
    }
}

/// Lays the configuration over the live value, part by part.
fn merge(schema: Option<&Schema>, live: Value, config: Value) -> Value {
    let atomic = schema.is_some_and(|schema| schema.atomic);
    match (live, config) {
        (Value::Object(mut live), Value::Object(config)) if !atomic => {
            for (name, value) in config {
                let field = schema.and_then(|schema| schema.field(&name)).map(AsRef::as_ref);
                let merged = match live.remove(&name) {
                    Some(old) => merge(field, old, value),
                    None => value,
                };
                live.insert(name, merged);
            }
            Value::Object(live)
        }
        (live @ Value::Array(_), config @ Value::Array(_)) if fields::is_list_of_parts(schema) => {
            merge_lists(schema, &live, &config)
        }
        (_, config) => config,
    }
}

fn merge_lists(schema: Option<&Schema>, live: &Value, config: &Value) -> Value {
    let (Parts::Items(old), Parts::Items(new)) = (fields::parts(schema, live), fields::parts(schema, config)) else {
        return config.clone();
    };
    let items = schema.and_then(|schema| schema.items.as_deref());
    let mut merged: Vec<(String, Value)> = old.into_iter().map(|(id, value)| (id, value.clone())).collect();
    for (id, value) in new {
        match merged.iter_mut().find(|(known, _)| *known == id) {
            Some((_, old)) => *old = merge(items, old.take(), value.clone()),
            None => merged.push((id, value.clone())),
        }
    }
    merged.into_iter().map(|(_, value)| value).collect()
}

/// Removes what this manager owned before and nobody owns now.
fn remove(schema: Option<&Schema>, before: &Fields, kept: &Fields, value: &mut Value) {
    for (element, below) in before.iter().filter(|(element, _)| !fields::is_self(element)) {
        let part_schema = fields::part_schema(schema, element);
        match fields::below(kept, element) {
            None => drop_part(schema, element, value),
            Some(kept) => {
                if let (Some(below), Some(part)) = (below.as_object(), part_mut(schema, element, value)) {
                    let had = !is_empty(part);
                    remove(part_schema, below, kept, part);
                    if had && is_empty(part) && !kept.is_empty() {
                        drop_part(schema, element, value);
                    }
                }
            }
        }
    }
}

fn position(schema: Option<&Schema>, element: &str, value: &Value) -> Option<usize> {
    match fields::parts(schema, value) {
        Parts::Items(items) => items.iter().position(|(id, _)| id == element),
        _ => None,
    }
}

fn part_mut<'a>(schema: Option<&Schema>, element: &str, value: &'a mut Value) -> Option<&'a mut Value> {
    if let Some(field) = element.strip_prefix("f:") {
        return value.get_mut(field);
    }
    let place = position(schema, element, value)?;
    value.get_mut(place)
}

fn drop_part(schema: Option<&Schema>, element: &str, value: &mut Value) {
    if let Some(field) = element.strip_prefix("f:") {
        if let Some(map) = value.as_object_mut() {
            map.remove(field);
        }
    } else if let Some(place) = position(schema, element, value)
        && let Some(list) = value.as_array_mut()
    {
        list.remove(place);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::apiserver::registry::Registry;

    fn target() -> Target {
        Target { resource: Registry::builtin().find("", "pods").unwrap().clone(), version: "v1".to_owned() }
    }

    fn run(live: &Value, config: Value, manager: &str, force: bool) -> Result<Value, ApiError> {
        let how = Applied { manager, force, part: Part::Main };
        apply(&target(), live, config, &how, jiff::Timestamp::UNIX_EPOCH)
    }

    fn config(labels: &Value, containers: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": labels},
            "spec": {"containers": containers}})
    }

    fn new() -> Value {
        json!({"apiVersion": "v1", "kind": "Pod"})
    }

    #[test]
    fn what_is_no_longer_applied_goes_and_what_others_own_stays() {
        let first = config(
            &json!({"a": "1", "b": "2"}),
            &json!([{"name": "x", "image": "x:1"}, {"name": "y", "image": "y:1"}]),
        );
        let live = run(&new(), first, "one", false).unwrap();
        let other = json!({"metadata": {"name": "p", "labels": {"c": "3"}}});
        let live = run(&live, other, "two", false).unwrap();
        let second = config(&json!({"a": "1"}), &json!([{"name": "x", "image": "x:2"}]));
        let live = run(&live, second, "one", false).unwrap();
        assert_eq!(live["metadata"]["labels"], json!({"a": "1", "c": "3"}));
        assert_eq!(live["spec"]["containers"], json!([{"name": "x", "image": "x:2"}]));
        let managers: Vec<_> = entries(&live).into_iter().map(|e| (e.manager, e.operation)).collect();
        assert_eq!(managers, [("two".to_owned(), "Apply".to_owned()), ("one".to_owned(), "Apply".to_owned())]);
    }

    #[test]
    fn two_who_disagree_collide_unless_one_forces() {
        let live =
            run(&new(), config(&json!({"a": "1"}), &json!([{"name": "x", "image": "x:1"}])), "one", false).unwrap();
        let wanted = config(&json!({"a": "1"}), &json!([{"name": "x", "image": "x:2"}]));
        let error = run(&live, wanted.clone(), "two", false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Apply failed with 1 conflict: conflict with \"one\": .spec.containers[name=\"x\"].image"
        );
        let live = run(&live, wanted, "two", true).unwrap();
        assert_eq!(live["spec"]["containers"][0]["image"], "x:2");
        let one = entries(&live).into_iter().find(|e| e.manager == "one").unwrap();
        assert_eq!(
            Value::Object(one.fields)["f:spec"]["f:containers"]["k:{\"name\":\"x\"}"],
            json!({".": {}, "f:name": {}})
        );
    }

    #[test]
    fn an_object_without_a_record_belongs_to_before_first_apply() {
        let live = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "1"}}});
        let wanted = json!({"metadata": {"name": "p", "labels": {"a": "2"}}});
        let error = run(&live, wanted.clone(), "one", false).unwrap_err();
        assert!(error.to_string().contains("before-first-apply"), "{error}");
        assert_eq!(run(&live, wanted, "one", true).unwrap()["metadata"]["labels"]["a"], "2");
    }

    #[test]
    fn a_plain_update_takes_over_what_it_changes() {
        let live =
            run(&new(), config(&json!({"a": "1", "b": "1"}), &json!([{"name": "x", "image": "x:1"}])), "one", false)
                .unwrap();
        let old = Object::new(&live, 1, &[]);
        let mut new = live;
        new["metadata"]["labels"]["a"] = "2".into();
        track(&target(), &old, &mut new, "editor", Part::Main, jiff::Timestamp::UNIX_EPOCH);
        let all = entries(&new);
        let editor = all.iter().find(|e| e.manager == "editor").unwrap();
        assert_eq!(Value::Object(editor.fields.clone()), json!({"f:metadata": {"f:labels": {"f:a": {}}}}));
        let one = all.iter().find(|e| e.manager == "one").unwrap();
        assert_eq!(one.fields["f:metadata"]["f:labels"], json!({"f:b": {}}));
    }
}
