//! The JSONPath of printer columns: fields, indices, wildcards and equality filters.

use serde_json::Value;

/// The first value that a path such as `.status.conditions[?(@.type=="Ready")].status` leads to.
pub(super) fn first(path: &str, value: &Value) -> Option<Value> {
    let steps = parse(path)?;
    let mut found = vec![value];
    for step in &steps {
        found = found.into_iter().flat_map(|value| step.apply(value)).collect();
    }
    found.first().map(|value| (*value).clone())
}

enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items whose value at the path equals the text.
    Where(Vec<Step>, Value),
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Self::Index(index), Value::Array(items)) => {
                let place = if *index < 0 { index + items.len().cast_signed() as i64 } else { *index };
                usize::try_from(place).ok().and_then(|i| items.get(i)).into_iter().collect()
            }
            (Self::All, Value::Array(items)) => items.iter().collect(),
            (Self::All, Value::Object(map)) => map.values().collect(),
            (Self::Where(steps, wanted), Value::Array(items)) => items
                .iter()
                .filter(|item| {
                    let mut found = vec![*item];
                    for step in steps {
                        found = found.into_iter().flat_map(|value| step.apply(value)).collect();
                    }
                    found.contains(&wanted)
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}

fn parse(path: &str) -> Option<Vec<Step>> {
    let path = path.trim();
    let path = path.strip_prefix('{').and_then(|p| p.strip_suffix('}')).unwrap_or(path);
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let end = closing(inner)?;
            steps.push(bracket(&inner[..end])?);
            rest = &inner[end + 1..];
            continue;
        }
        let field = rest.strip_prefix('.').unwrap_or(rest);
        let (name, left) = field_name(field);
        if name == "*" {
            steps.push(Step::All);
        } else if !name.is_empty() {
            steps.push(Step::Field(name));
        } else if left.len() == rest.len() {
            return None;
        }
        rest = left;
    }
    Some(steps)
}

/// Reads a name up to the next step; a backslash takes the next character as it is.
fn field_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, &text[i..]),
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            c => name.push(c),
        }
    }
    (name, "")
}

fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, ']') => return Some(i),
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Option<Step> {
    let inner = inner.trim();
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|c| c.strip_suffix(')')) {
        let (left, right) = condition.split_once("==")?;
        let steps = parse(left.trim().strip_prefix('@')?)?;
        let right = right.trim();
        let wanted = match unquote(right) {
            Some(text) => text.into(),
            None => serde_json::from_str(right).ok()?,
        };
        return Some(Step::Where(steps, wanted));
    }
    match unquote(inner) {
        Some(name) => Some(Step::Field(name.to_owned())),
        None => inner.parse().ok().map(Step::Index),
    }
}

fn unquote(text: &str) -> Option<&str> {
    ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_printer_columns() {
        let value = json!({"spec": {"a": [{"x": 1}, {"x": 2}], "k.b/c": "d"},
            "status": {"conditions": [{"type": "Other", "status": "No"}, {"type": "Ready", "status": "Yes"}]}});
        for (path, found) in [
            (".spec.a[1].x", Some(json!(2))),
            (".spec.a[-1].x", Some(json!(2))),
            (".spec.a[*].x", Some(json!(1))),
            (".spec['k.b/c']", Some(json!("d"))),
            (".spec.k\\.b/c", Some(json!("d"))),
            (".status.conditions[?(@.type==\"Ready\")].status", Some(json!("Yes"))),
            (".status.conditions[?(@.type=='None')].status", None),
            (".nothing.here", None),
            (".spec.a[", None),
        ] {
            assert_eq!(first(path, &value), found, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "[.\\[\\]a?(@=')\"*0-9\\\\-]{0,30}") {
            drop(first(&path, &json!({"a": [{"a": 1}]})));
        }
    }
}
