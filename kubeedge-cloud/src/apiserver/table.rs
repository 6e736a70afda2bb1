//! Objects as rows of a table, as `kubectl get` prints them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    registry::{Resource, Strategy},
    request::{Include, Query},
};

mod columns;
mod jsonpath;
mod pod;

/// A column: name, type, format, whether it is shown only with `-o wide`.
#[derive(Clone, Debug)]
struct Heading {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
}

impl Heading {
    fn of(&(name, kind, wide): &(&str, &str, bool)) -> Self {
        let format = if name == "Name" { "name" } else { "" };
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            format: format.to_owned(),
            description: String::new(),
            priority: i64::from(wide),
        }
    }
}

/// What of each object goes with its row.
pub(crate) fn include(query: &Query) -> Include {
    match query.text("includeObject") {
        Some("None") => Include::Nothing,
        Some("Object") => Include::Object,
        _ => Include::Metadata,
    }
}

/// The table of some objects, which are already in the version that was asked for.
pub(crate) fn of(
    resource: &Resource,
    version: &str,
    objects: impl Iterator<Item = Value>,
    include: Include,
    now: Timestamp,
) -> Value {
    let headings = headings(resource, version);
    let rows: Vec<_> = objects
        .map(|object| {
            let cells = cells(resource, version, &object, now);
            let shown = match include {
                Include::Nothing => Value::Null,
                Include::Object => object,
                Include::Metadata => json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                    "metadata": object["metadata"]}),
            };
            json!({"cells": cells, "object": shown})
        })
        .collect();
    let headings: Vec<_> = headings
        .iter()
        .map(|h| {
            json!({"name": h.name, "type": h.kind, "format": h.format, "description": h.description,
                "priority": h.priority})
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": headings,
        "rows": rows})
}

fn headings(resource: &Resource, version: &str) -> Vec<Heading> {
    if resource.strategy != Strategy::Custom {
        return columns::headings(resource).iter().map(Heading::of).collect();
    }
    let mut headings = vec![Heading::of(&("Name", "string", false))];
    let columns = resource.version(version).map(|v| v.columns.as_slice()).unwrap_or_default();
    if columns.is_empty() {
        headings.push(Heading::of(&("Age", "date", false)));
    }
    headings.extend(columns.iter().map(|column| Heading {
        name: column.name.clone(),
        kind: column.kind.clone(),
        format: column.format.clone(),
        description: column.description.clone(),
        priority: column.priority,
    }));
    headings
}

fn cells(resource: &Resource, version: &str, object: &Value, now: Timestamp) -> Vec<Value> {
    if resource.strategy != Strategy::Custom {
        return columns::cells(resource, object, now);
    }
    let mut cells = vec![object["metadata"]["name"].clone()];
    let columns = resource.version(version).map(|v| v.columns.as_slice()).unwrap_or_default();
    if columns.is_empty() {
        cells.push(age(&object["metadata"]["creationTimestamp"], now));
    }
    cells.extend(columns.iter().map(|column| {
        let found = jsonpath::first(&column.path, object).unwrap_or(Value::Null);
        match (column.kind.as_str(), found) {
            ("date", found) => age(&found, now),
            ("string", found @ (Value::Object(_) | Value::Array(_) | Value::Bool(_) | Value::Number(_))) => {
                found.to_string().into()
            }
            (_, found) => found,
        }
    }));
    cells
}

/// The time since an instant, as a short text.
fn age(since: &Value, now: Timestamp) -> Value {
    let since = since.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    since.map_or_else(|| "<unknown>".to_owned(), |since| human(now.as_second() - since.as_second())).into()
}

/// Seconds as kubectl shows them: at most two units, the smaller one only while it matters.
fn human(seconds: i64) -> String {
    let two = |big: i64, small: i64, units: [char; 2]| {
        if small == 0 { format!("{big}{}", units[0]) } else { format!("{big}{}{small}{}", units[0], units[1]) }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, seconds % 60, ['m', 's']),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, minutes % 60, ['h', 'm']),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(hours / 24, hours % 24, ['d', 'h']),
        691_200..63_072_000 => format!("{}d", hours / 24),
        63_072_000..252_288_000 => two(hours / 24 / 365, hours / 24 % 365, ['y', 'd']),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_kubectl() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (3600, "60m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (30_000, "8h"),
            (180_000, "2d2h"),
            (172_800, "2d"),
            (864_000, "10d"),
            (63_158_400, "2y1d"),
        ] {
            assert_eq!(human(seconds), text);
        }
    }
}
