//! Configuration files: what is given, laid over the defaults.
//!
//! The defaults, as JSON, are the template: they say which keys there are and of which type each value is. Keys are found
//! in any case, a section or value that is left empty (`null`) keeps the default, a list replaces the list of the default.
//! The first section in a list of the default tells which keys the sections of that list have.
//! Which format the file has is the caller's business.
//!
//! Upstream: `api/apis/componentconfig`, which reads files with `sigs.k8s.io/yaml`.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// A key without effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// Path of the key, such as `modules.edgeStream`.
    pub key: String,
    /// Whether KubeEdge has such a key; if not, it may be misspelled.
    pub known: bool,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.known { "has no effect here" } else { "is not a known key" };
        write!(f, "{} {what}", self.key)
    }
}

/// A key has a value that it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}: {why}")]
pub struct BadValue {
    /// Path of the key, such as `modules.edgeHub.heartbeat`.
    pub key: String,
    /// Its value as JSON, or the start of it if it is long.
    pub value: String,
    /// What it has to be.
    pub why: String,
}

/// Longest part of a value that errors show, in characters. It is enough for the value to be found.
const SHOWN: usize = 256;

impl BadValue {
    /// Names the key and its value; `why` says what the value has to be.
    pub fn new(key: &str, value: impl fmt::Display, why: impl Into<String>) -> Self {
        let value = value.to_string().chars().take(SHOWN).collect();
        Self { key: key.to_owned(), value, why: why.into() }
    }
}

/// What the template does not tell. Paths are written as `modules.edgeHub.heartbeat`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// Keys that are known and have no effect, with all that is under them.
    pub unused: &'a [&'a str],
    /// Sections whose keys are the user's, and whose values are text.
    pub free: &'a [&'a str],
    /// The largest values of numbers; 4294967295 for all others.
    pub most: &'a [(&'a str, u32)],
}

/// In every file, with nothing to tell.
const SILENT: &[&str] = &["apiVersion", "kind"];

/// Lays `given` over `defaults`, and tells which of its keys have no effect.
///
/// # Errors
/// [`BadValue`] names the first value of the wrong type.
///
/// ```
/// use kubeedge_core::config::{Rules, overlay};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Hub {
///     heartbeat: u32,
/// }
///
/// let given = serde_json::json!({ "heartBeat": 15, "hearbeat": 30 });
/// let (hub, warnings) = overlay(&Hub::default(), given, &Rules::default())?;
/// assert_eq!(hub.heartbeat, 15);
/// assert_eq!(warnings[0].to_string(), "hearbeat is not a known key");
///
/// let wrong = overlay(&Hub::default(), serde_json::json!({ "heartbeat": "15s" }), &Rules::default());
/// assert_eq!(wrong.err().unwrap().to_string(), "heartbeat is \"15s\": it must be a whole number of 0 or more");
/// # Ok::<(), kubeedge_core::config::BadValue>(())
/// ```
pub fn overlay<T>(defaults: &T, given: Value, rules: &Rules<'_>) -> Result<(T, Vec<ConfigWarning>), BadValue>
where
    T: Serialize + DeserializeOwned,
{
    let unfit = |err: serde_json::Error| BadValue::new(WHOLE, "of another form", err.to_string());
    let mut template = serde_json::to_value(defaults).map_err(unfit)?;
    let mut reading = Reading { rules, warnings: Vec::new() };
    reading.lay(&mut template, given, "")?;
    Ok((serde_json::from_value(template).map_err(unfit)?, reading.warnings))
}

/// What errors call the root.
const WHOLE: &str = "the file";

struct Reading<'a> {
    rules: &'a Rules<'a>,
    warnings: Vec<ConfigWarning>,
}

impl Reading<'_> {
    fn lay(&mut self, template: &mut Value, given: Value, path: &str) -> Result<(), BadValue> {
        let wrong =
            |given: &Value, why: &str| Err(BadValue::new(if path.is_empty() { WHOLE } else { path }, given, why));
        match (template, given) {
            // A section or a value that is written and left empty.
            (_, Value::Null) => Ok(()),
            (Value::Object(template), Value::Object(given)) if self.rules.free.contains(&path) => {
                lay_free(template, given, path)
            }
            (Value::Object(template), Value::Object(given)) => self.lay_section(template, given, path),
            (Value::Object(_), other) => {
                wrong(&other, if path.is_empty() { "a file of sections is needed" } else { "it must be a section" })
            }
            (Value::Array(template), Value::Array(given)) if template.first().is_some_and(Value::is_object) => {
                let mut item = template.first().cloned().unwrap_or_default();
                empty(&mut item);
                template.clear();
                for (index, given) in given.into_iter().enumerate() {
                    template.push(item.clone());
                    if let Some(laid) = template.last_mut() {
                        self.lay(laid, given, &format!("{path}[{index}]"))?;
                    }
                }
                Ok(())
            }
            (template @ Value::Array(_), given @ Value::Array(_)) => {
                for (index, item) in given.as_array().into_iter().flatten().enumerate() {
                    if !item.is_string() {
                        return Err(BadValue::new(&format!("{path}[{index}]"), item, "it must be text"));
                    }
                }
                *template = given;
                Ok(())
            }
            (template @ Value::Bool(_), given @ Value::Bool(_))
            | (template @ Value::String(_), given @ Value::String(_)) => {
                *template = given;
                Ok(())
            }
            (template @ Value::Number(_), given) => {
                let most = self.rules.most.iter().find(|(key, _)| *key == path).map(|(_, most)| *most);
                match given.as_u64().map(|number| number <= u64::from(most.unwrap_or(u32::MAX))) {
                    Some(true) => {
                        *template = given;
                        Ok(())
                    }
                    Some(false) => wrong(&given, &format!("it must be at most {}", most.unwrap_or(u32::MAX))),
                    None => wrong(&given, "it must be a whole number of 0 or more"),
                }
            }
            (Value::Bool(_), other) => wrong(&other, "it must be true or false"),
            (Value::Array(template), other) if template.first().is_some_and(Value::is_object) => {
                wrong(&other, "it must be a list of sections")
            }
            (Value::Array(_), other) => wrong(&other, "it must be a list of text"),
            (_, other) => wrong(&other, "it must be text"),
        }
    }

    fn lay_section(
        &mut self,
        template: &mut Map<String, Value>,
        given: Map<String, Value>,
        path: &str,
    ) -> Result<(), BadValue> {
        let child = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        for (key, value) in given {
            let known = template.keys().find(|known| known.eq_ignore_ascii_case(&key)).cloned();
            match known.and_then(|known| Some((child(&known), template.get_mut(&known)?))) {
                Some((path, template)) => self.lay(template, value, &path)?,
                None => self.warn(child(&key)),
            }
        }
        Ok(())
    }

    fn warn(&mut self, key: String) {
        let is = |known: &&str| {
            key.get(..known.len()).is_some_and(|start| start.eq_ignore_ascii_case(known))
                && matches!(key.as_bytes().get(known.len()), None | Some(b'.'))
        };
        if SILENT.iter().any(is) {
            return;
        }
        let known = self.rules.unused.iter().any(is);
        self.warnings.push(ConfigWarning { key, known });
    }
}

/// What an item of a list leaves out is empty: there is no default that it could lie over.
fn empty(item: &mut Value) {
    match item {
        Value::Object(members) => members.values_mut().for_each(empty),
        Value::Array(items) => items.clear(),
        Value::Bool(is) => *is = false,
        Value::Number(number) => *number = 0.into(),
        Value::String(text) => text.clear(),
        Value::Null => {}
    }
}

fn lay_free(template: &mut Map<String, Value>, given: Map<String, Value>, path: &str) -> Result<(), BadValue> {
    for (key, value) in given {
        match value {
            Value::Null => drop(template.insert(key, Value::String(String::new()))),
            Value::String(_) => drop(template.insert(key, value)),
            other => return Err(BadValue::new(&format!("{path}.{key}"), other, "it must be text")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Site {
        name: String,
        ready: bool,
        names: Vec<String>,
        labels: BTreeMap<String, String>,
        hub: Hub,
        #[serde(default)]
        others: Vec<Hub>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Hub {
        port: u16,
        limit: u32,
    }

    const RULES: Rules<'static> = Rules { unused: &["hub.quic"], free: &["labels"], most: &[("hub.port", 65535)] };

    fn defaults() -> Site {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        Site {
            name: "x".into(),
            ready: false,
            names: vec!["localhost".into()],
            labels,
            hub: Hub { port: 10000, limit: 5 },
            others: vec![Hub { port: 10002, limit: 7 }],
        }
    }

    fn read(given: Value) -> Result<(Site, Vec<ConfigWarning>), String> {
        overlay(&defaults(), given, &RULES).map_err(|err| err.to_string())
    }

    #[test]
    fn what_is_given_lies_over_the_defaults() {
        let given = json!({
            "NAME": "y", "names": ["a", "b"], "labels": { "Zone": "b", "empty": null }, "Hub": { "Port": 0 }, "ready": null,
        });
        let (site, warnings) = read(given).unwrap();
        assert_eq!((site.name.as_str(), site.ready), ("y", false));
        assert_eq!(site.names, ["a", "b"], "lists are replaced");
        let labels: Vec<_> = site.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(labels, [("Zone", "b"), ("empty", ""), ("zone", "a")], "these keys are not ours");
        assert_eq!(site.hub, Hub { port: 0, limit: 5 });
        assert_eq!(warnings, []);
        assert_eq!(read(Value::Null).unwrap().0, defaults());
        assert_eq!(read(json!({ "hub": null, "names": [] })).unwrap().0, Site { names: Vec::new(), ..defaults() });
    }

    #[test]
    fn sections_in_lists_start_empty() {
        let (site, warnings) = read(json!({ "others": [{ "Port": 1 }, { "limit": 2, "quic": 3 }, null] })).unwrap();
        let others: Vec<_> = site.others.iter().map(|hub| (hub.port, hub.limit)).collect();
        assert_eq!(others, [(1, 0), (0, 2), (0, 0)], "as in Go");
        assert_eq!(warnings[0].to_string(), "others[1].quic is not a known key");
        assert_eq!(read(json!({ "others": null })).unwrap().0.others, defaults().others);
        assert_eq!(read(json!({ "others": [] })).unwrap().0.others, []);
    }

    #[test]
    fn keys_without_effect_are_told_once_with_all_that_is_under_them() {
        let given = json!({
            "apiVersion": "v1", "Kind": "Site", "hub": { "QUIC": { "port": 1 }, "quicker": 1, "prot": 2 },
        });
        let told: Vec<_> = read(given).unwrap().1.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["hub.QUIC has no effect here", "hub.prot is not a known key", "hub.quicker is not a known key"]
        );
    }

    #[test]
    fn wrong_values_are_named_with_their_keys() {
        for (given, expected) in [
            (json!([1]), "the file is [1]: a file of sections is needed"),
            (json!({ "hub": 7 }), "hub is 7: it must be a section"),
            (json!({ "HUB": { "port": "abc" } }), r#"hub.port is "abc": it must be a whole number of 0 or more"#),
            (json!({ "hub": { "port": 65536 } }), "hub.port is 65536: it must be at most 65535"),
            (json!({ "hub": { "limit": -1 } }), "hub.limit is -1: it must be a whole number of 0 or more"),
            (json!({ "hub": { "limit": 1.5 } }), "hub.limit is 1.5: it must be a whole number of 0 or more"),
            (json!({ "hub": { "limit": 1_u64 << 32 } }), "hub.limit is 4294967296: it must be at most 4294967295"),
            (json!({ "ready": "yes" }), r#"ready is "yes": it must be true or false"#),
            (json!({ "name": ["a"] }), r#"name is ["a"]: it must be text"#),
            (json!({ "names": "a" }), r#"names is "a": it must be a list of text"#),
            (json!({ "names": ["a", 1] }), "names[1] is 1: it must be text"),
            (json!({ "others": "a" }), r#"others is "a": it must be a list of sections"#),
            (json!({ "others": [{}, 7] }), "others[1] is 7: it must be a section"),
            (
                json!({ "others": [{ "port": "x" }] }),
                r#"others[0].port is "x": it must be a whole number of 0 or more"#,
            ),
            (json!({ "labels": { "a": true } }), "labels.a is true: it must be text"),
        ] {
            assert_eq!(read(given).unwrap_err(), expected);
        }
        let long = read(json!({ "ready": "é".repeat(1000) })).unwrap_err();
        assert!(long.chars().count() < 300, "{long}");
    }
}
