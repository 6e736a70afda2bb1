//! Strategic merge patches: lists are merged by the keys that their schema names.

use serde_json::{Map, Value};

use crate::apiserver::schema::{PatchStrategy, Schema};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_VALUES: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch to an object.
pub(crate) fn strategic(schema: &Schema, object: Value, patch: Value) -> Result<Value, String> {
    merge(Some(schema), object, patch)
}

fn merge(schema: Option<&Schema>, original: Value, patch: Value) -> Result<Value, String> {
    match (original, patch) {
        (Value::Object(original), Value::Object(patch)) => Ok(Value::Object(merge_maps(schema, original, patch)?)),
        (_, patch) => Ok(strip(patch)),
    }
}

fn merge_maps(
    schema: Option<&Schema>,
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    match patch.remove(DIRECTIVE) {
        None => {}
        Some(Value::String(directive)) => match directive.as_str() {
            "replace" => return Ok(strip_map(patch)),
            "delete" => return Ok(Map::new()),
            "merge" => {}
            other => return Err(format!("unknown patch directive {other:?}")),
        },
        Some(other) => return Err(format!("{DIRECTIVE} must be a string, not {other}")),
    }
    if let Some(Value::Array(keys)) = patch.remove(RETAIN) {
        original.retain(|key, _| keys.iter().any(|k| k == key));
    }
    let mut orders = Map::new();
    let mut deletes = Map::new();
    patch.retain(|key, value| {
        if let Some(list) = key.strip_prefix(ORDER) {
            orders.insert(list.to_owned(), value.take());
            return false;
        }
        if let Some(list) = key.strip_prefix(DELETE_VALUES) {
            deletes.insert(list.to_owned(), value.take());
            return false;
        }
        true
    });
    for list in orders.keys().chain(deletes.keys()) {
        // An order or a deletion alone is a patch of the list too.
        if original.contains_key(list) {
            patch.entry(list.clone()).or_insert_with(|| Value::Array(Vec::new()));
        }
    }
    for (key, change) in patch {
        if change.is_null() {
            original.remove(&key);
            continue;
        }
        let field = schema.and_then(|schema| schema.field(&key)).map(AsRef::as_ref);
        let merged = match (original.remove(&key), change) {
            (Some(Value::Array(old)), Value::Array(new)) => {
                let order = orders.remove(&key);
                let delete = deletes.remove(&key);
                Value::Array(merge_lists(field, &key, &old, new, order, delete)?)
            }
            (Some(old @ Value::Object(_)), new @ Value::Object(_)) => merge(field, old, new)?,
            (_, new) => strip(new),
        };
        original.insert(key, merged);
    }
    Ok(original)
}

fn merge_lists(
    schema: Option<&Schema>,
    name: &str,
    old: &[Value],
    new: Vec<Value>,
    order: Option<Value>,
    delete: Option<Value>,
) -> Result<Vec<Value>, String> {
    let list = |value: Option<Value>| match value {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let (order, delete) = (list(order), list(delete));
    match schema.map(|schema| &schema.patch) {
        Some(PatchStrategy::MergeBy(key)) => {
            let items = schema.and_then(|schema| schema.items.as_deref());
            merge_items(items, name, key, old, new, &order)
        }
        Some(PatchStrategy::MergeValues) => {
            let mut merged: Vec<_> = old.iter().filter(|value| !delete.contains(value)).cloned().collect();
            for value in new {
                if !merged.contains(&value) {
                    merged.push(value);
                }
            }
            Ok(ordered(merged, old, &order, PartialEq::eq))
        }
        _ => Ok(new.into_iter().map(strip).collect()),
    }
}

fn merge_items(
    schema: Option<&Schema>,
    name: &str,
    key: &str,
    old: &[Value],
    new: Vec<Value>,
    order: &[Value],
) -> Result<Vec<Value>, String> {
    let replaces = |item: &Value| item[DIRECTIVE] == "replace" && item.get(key).is_none();
    if new.iter().any(replaces) {
        return Ok(new.into_iter().filter(|item| !replaces(item)).map(strip).collect());
    }
    let mut merged = old.to_vec();
    for mut item in new {
        let Some(id) = item.get(key).cloned() else {
            return Err(format!("an item of {name} in the patch lacks its merge key {key:?}"));
        };
        let place = merged.iter().position(|old| old.get(key) == Some(&id));
        match (item.get(DIRECTIVE).and_then(Value::as_str), place) {
            (Some("delete"), _) => merged.retain(|old| old.get(key) != Some(&id)),
            (Some("replace"), Some(place)) => merged[place] = strip(item),
            (_, Some(place)) => {
                if let Some(item) = item.as_object_mut() {
                    item.remove(DIRECTIVE);
                }
                merged[place] = merge(schema, merged[place].take(), item)?;
            }
            (_, None) => merged.push(strip(item)),
        }
    }
    Ok(ordered(merged, old, order, |a, b| a.get(key) == b.get(key)))
}

/// Puts items into the order that the patch asks for; items it does not name keep their place among the others.
fn ordered(merged: Vec<Value>, old: &[Value], order: &[Value], same: impl Fn(&Value, &Value) -> bool) -> Vec<Value> {
    if order.is_empty() {
        return merged;
    }
    let rank = |item: &Value| order.iter().position(|o| same(o, item));
    let place = |item: &Value| old.iter().position(|o| same(o, item));
    let (mut named, others): (Vec<_>, Vec<_>) = merged.into_iter().partition(|item| rank(item).is_some());
    named.sort_by_key(|item| rank(item));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        while let Some(other) = others.peek() {
            match (place(other), place(&item)) {
                (Some(other), Some(own)) if other < own => result.extend(others.next()),
                _ => break,
            }
        }
        result.push(item);
    }
    result.extend(others);
    result
}

/// A patch value as it is stored where nothing was before: without nulls and directives.
fn strip(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(strip_map(map)),
        Value::Array(items) => {
            let kept = items.into_iter().filter(|item| {
                let directive = item.get(DIRECTIVE).and_then(Value::as_str);
                directive != Some("delete")
                    && !(directive == Some("replace") && item.as_object().is_some_and(|m| m.len() == 1))
            });
            Value::Array(kept.map(strip).collect())
        }
        other => other,
    }
}

fn strip_map(map: Map<String, Value>) -> Map<String, Value> {
    let kept = map.into_iter().filter(|(key, value)| {
        !value.is_null()
            && key != DIRECTIVE
            && key != RETAIN
            && !key.starts_with(ORDER)
            && !key.starts_with(DELETE_VALUES)
    });
    kept.map(|(key, value)| (key, strip(value))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::apiserver::schema::TypeTable;

    fn pod(object: Value, patch: Value) -> Value {
        strategic(&TypeTable::load().schema("Pod"), object, patch).unwrap()
    }

    #[test]
    fn containers_are_merged_by_name_and_their_lists_too() {
        let object = json!({"spec": {"containers": [
            {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
            {"name": "b", "image": "b:1"}]}});
        let patch = json!({"spec": {"containers": [
            {"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "3"}, {"name": "X", "$patch": "delete"}]},
            {"name": "c", "image": "c:1"}]}});
        assert_eq!(
            pod(object, patch),
            json!({"spec": {"containers": [
                {"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "3"}]},
                {"name": "b", "image": "b:1"}, {"name": "c", "image": "c:1"}]}})
        );
    }

    #[test]
    fn items_are_deleted_replaced_and_ordered() {
        let object = json!({"spec": {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "secret": {"secretName": "s"}},
            {"name": "c", "emptyDir": {}}]}});
        let patch = json!({"spec": {"$setElementOrder/volumes": [{"name": "d"}, {"name": "b"}],
            "volumes": [{"name": "a", "$patch": "delete"}, {"name": "d", "emptyDir": {}},
                {"name": "b", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]}});
        assert_eq!(
            pod(object.clone(), patch),
            json!({"spec": {"volumes": [{"name": "d", "emptyDir": {}}, {"name": "b", "emptyDir": {}}, {"name": "c", "emptyDir": {}}]}})
        );
        let patch = json!({"spec": {"volumes": [{"$patch": "replace"}, {"name": "z", "emptyDir": {}}]}});
        assert_eq!(pod(object, patch), json!({"spec": {"volumes": [{"name": "z", "emptyDir": {}}]}}));
    }

    #[test]
    fn conditions_merge_by_type_and_tolerations_are_replaced() {
        let object = json!({"spec": {"tolerations": [{"key": "a"}]}, "status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Other", "status": "True"}]}});
        let patch = json!({"spec": {"tolerations": [{"key": "b"}]}, "status": {"$setElementOrder/conditions": [{"type": "Ready"}, {"type": "Other"}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(
            pod(object, patch),
            json!({"spec": {"tolerations": [{"key": "b"}]}, "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "True"}]}})
        );
    }

    #[test]
    fn primitive_lists_merge_as_sets() {
        let object = json!({"metadata": {"finalizers": ["a.b/c", "d.e/f"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a.b/c"], "finalizers": ["g.h/i"]}});
        assert_eq!(pod(object, patch), json!({"metadata": {"finalizers": ["d.e/f", "g.h/i"]}}));
        let object = json!({"metadata": {"finalizers": ["a.b/c"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a.b/c"]}});
        assert_eq!(pod(object, patch), json!({"metadata": {"finalizers": []}}));
    }

    #[test]
    fn nulls_remove_and_maps_are_replaced_when_asked() {
        let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "annotations": {"x": "1"}}});
        let patch =
            json!({"metadata": {"labels": {"a": null, "c": "3"}, "annotations": {"$patch": "replace", "y": "2"}}});
        assert_eq!(
            pod(object, patch),
            json!({"metadata": {"labels": {"b": "2", "c": "3"}, "annotations": {"y": "2"}}})
        );
    }

    #[test]
    fn an_item_without_its_key_is_an_error() {
        let schema = TypeTable::load().schema("Pod");
        let object = json!({"spec": {"containers": [{"name": "a"}]}});
        let error = strategic(&schema, object, json!({"spec": {"containers": [{"image": "x"}]}})).unwrap_err();
        assert_eq!(error, "an item of containers in the patch lacks its merge key \"name\"");
    }
}
