//! Label and field selectors.

use std::collections::BTreeMap;

use crate::apiserver::status::ApiError;

/// Labels of an object, or the values of its selectable fields.
pub(crate) type Pairs = BTreeMap<Box<str>, Box<str>>;

/// A label selector: all requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
}

impl LabelSelector {
    /// Reads `app=web,tier in (a, b),!canary`.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let bad =
            |why: &str| ApiError::bad_request(format!("unable to parse requirement in label selector {text:?}: {why}"));
        let mut requirements = Vec::new();
        for part in split_outside_parens(text) {
            let part = part.trim();
            if !part.is_empty() {
                requirements.push(requirement(part).map_err(|why| bad(&why))?);
            }
        }
        Ok(Self(requirements))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn matches(&self, labels: &Pairs) -> bool {
        self.0.iter().all(|r| {
            let value = labels.get(r.key.as_str()).map(|v| &**v);
            match &r.test {
                Test::In(set) => value.is_some_and(|v| set.iter().any(|s| s == v)),
                Test::NotIn(set) => value.is_none_or(|v| set.iter().all(|s| s != v)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
                Test::Above(n) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *n),
                Test::Below(n) => value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *n),
            }
        })
    }
}

fn split_outside_parens(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_i32, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let make = |key: &str, test| {
        let key = key.trim();
        if !is_label_key(key) {
            return Err(format!("{key:?} is not a label key"));
        }
        Ok(Requirement { key: key.to_owned(), test })
    };
    let one = |value: &str| {
        let value = value.trim();
        if is_label_value(value) { Ok(vec![value.to_owned()]) } else { Err(format!("{value:?} is not a label value")) }
    };
    if let Some(key) = part.strip_prefix('!') {
        return make(key, Test::Absent);
    }
    if let Some(open) = part.find('(') {
        let set = part[open + 1..].strip_suffix(')').ok_or_else(|| format!("{part:?} lacks a closing parenthesis"))?;
        let mut words = part[..open].split_whitespace();
        let key = words.next().unwrap_or_default();
        let mut values = Vec::new();
        for value in set.split(',') {
            values.extend(one(value)?);
        }
        return match (words.next(), words.next()) {
            (Some("in"), None) => make(key, Test::In(values)),
            (Some("notin"), None) => make(key, Test::NotIn(values)),
            _ => Err(format!("{part:?} is neither \"in\" nor \"notin\"")),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return make(key, Test::NotIn(one(value)?));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return make(key, Test::In(one(value)?));
    }
    let number = |v: &str| v.trim().parse().map_err(|_| format!("{v:?} is not an integer"));
    if let Some((key, value)) = part.split_once('>') {
        return make(key, Test::Above(number(value)?));
    }
    if let Some((key, value)) = part.split_once('<') {
        return make(key, Test::Below(number(value)?));
    }
    make(part, Test::Exists)
}

/// `[prefix/]name`, as label and annotation keys are.
pub(crate) fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    let prefix_ok = prefix.is_none_or(|p| p.len() <= 253 && super::validate::is_subdomain(p));
    prefix_ok && !name.is_empty() && is_label_value(name)
}

/// At most 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit; may be empty.
pub(crate) fn is_label_value(value: &str) -> bool {
    let inner = value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let ends = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    value.len() <= 63 && inner && ends(value.as_bytes().first()) && ends(value.as_bytes().last())
}

/// A field selector: all terms must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Reads `spec.nodeName=edge-1,status.phase!=Failed`; `known` are the fields that the resource offers.
    pub(crate) fn parse(text: &str, known: &[String]) -> Result<Self, ApiError> {
        let mut terms = Vec::new();
        for part in split_escaped(text) {
            if part.is_empty() {
                continue;
            }
            let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (field, value, true)
            } else {
                return Err(ApiError::bad_request(format!("invalid field selector: {part:?} has no operator")));
            };
            if !known.iter().any(|k| k == field) {
                return Err(ApiError::bad_request(format!("field label not supported: {field}")));
            }
            let value = value.replace("\\,", ",").replace("\\=", "=").replace("\\\\", "\\");
            terms.push(Term { field: field.to_owned(), value, equal });
        }
        Ok(Self(terms))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the object matches; absent fields count as empty.
    pub(crate) fn matches(&self, namespace: &str, name: &str, fields: &Pairs) -> bool {
        self.0.iter().all(|term| {
            let value = match term.field.as_str() {
                "metadata.name" => name,
                "metadata.namespace" => namespace,
                field => fields.get(field).map_or("", |v| &**v),
            };
            (value == term.value) == term.equal
        })
    }

    /// The single name that is asked for, if there is one.
    pub(crate) fn exact_name(&self) -> Option<&str> {
        self.0.iter().find(|t| t.equal && t.field == "metadata.name").map(|t| t.value.as_str())
    }
}

fn split_escaped(text: &str) -> Vec<&str> {
    let (mut escaped, mut start, mut parts) = (false, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Pairs {
        list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn label_selectors_of_every_form() {
        let labels = pairs(&[("app", "web"), ("tier", "a"), ("n", "5"), ("node-role.kubernetes.io/edge", "")]);
        for (text, holds) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=a", true),
            ("app!=web", false),
            ("absent!=x", true),
            ("app in (api, web)", true),
            ("app notin (api,web)", false),
            ("absent notin (x)", true),
            ("tier", true),
            ("!tier", false),
            ("!absent", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("node-role.kubernetes.io/edge=", true),
            ("node-role.kubernetes.io/edge", true),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&labels), holds, "{text}");
        }
        for bad in ["a in b)", "a in (b", "a is (b)", "=x", "a=b c", "a>x"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors_know_their_fields() {
        let known = ["metadata.name".to_owned(), "spec.nodeName".to_owned()];
        let fields = pairs(&[("spec.nodeName", "edge-1")]);
        let holds = |text| FieldSelector::parse(text, &known).unwrap().matches("ns", "pod", &fields);
        assert!(holds("spec.nodeName=edge-1,metadata.name!=x"));
        assert!(holds("metadata.name==pod"));
        assert!(!holds("spec.nodeName="));
        assert!(FieldSelector::parse("spec.other=1", &known).is_err());
        assert!(FieldSelector::parse("spec.nodeName", &known).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            drop(LabelSelector::parse(&text));
            drop(FieldSelector::parse(&text, &["a".to_owned()]));
            drop(crate::apiserver::request::Route::parse(&text));
        }
    }
}
