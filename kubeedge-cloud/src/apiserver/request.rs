//! What a request asks for: its path, its query and the form of the answer.

use super::{lifecycle::FieldValidation, status::ApiError};

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Root,
    Version,
    Health,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`
    Resources {
        group: String,
        version: String,
    },
    OpenApiV2,
    OpenApiV3,
    OpenApiV3Group {
        group: String,
        version: String,
    },
    Objects(Path),
}

/// A path to objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

impl Route {
    /// Reads a path; none if it leads nowhere.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let parts: Option<Vec<String>> = path.split('/').filter(|p| !p.is_empty()).map(decode).collect();
        let parts = parts?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let route = match parts.as_slice() {
            [] => Self::Root,
            ["version"] => Self::Version,
            ["healthz" | "livez" | "readyz", ..] => Self::Health,
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).to_owned()),
            ["api", version] => Self::Resources { group: String::new(), version: (*version).to_owned() },
            ["apis", group, version] => Self::Resources { group: (*group).to_owned(), version: (*version).to_owned() },
            ["openapi", "v2"] => Self::OpenApiV2,
            ["openapi", "v3"] => Self::OpenApiV3,
            ["openapi", "v3", "api", version] => {
                Self::OpenApiV3Group { group: String::new(), version: (*version).to_owned() }
            }
            ["openapi", "v3", "apis", group, version] => {
                Self::OpenApiV3Group { group: (*group).to_owned(), version: (*version).to_owned() }
            }
            ["api", version, rest @ ..] => Self::Objects(objects("", version, rest)?),
            ["apis", group, version, rest @ ..] => Self::Objects(objects(group, version, rest)?),
            _ => return None,
        };
        Some(route)
    }
}

fn objects(group: &str, version: &str, rest: &[&str]) -> Option<Path> {
    let mut path = Path { group: group.to_owned(), version: version.to_owned(), ..Path::default() };
    let rest = match rest {
        // The subresources of a namespace itself.
        ["namespaces", _, "status" | "finalize"] | ["namespaces", _] => rest,
        ["namespaces", namespace, rest @ ..] => {
            path.namespace = Some((*namespace).to_owned());
            rest
        }
        _ => rest,
    };
    let (plural, rest) = rest.split_first()?;
    (*plural).clone_into(&mut path.plural);
    match rest {
        [] => {}
        [name] => path.name = Some((*name).to_owned()),
        [name, subresource] => {
            path.name = Some((*name).to_owned());
            path.subresource = Some((*subresource).to_owned());
        }
        _ => return None,
    }
    Some(path)
}

/// Undoes percent encoding; none if it is broken or not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The parameters behind the question mark.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(&key.replace('+', " "))?, decode(&value.replace('+', " "))?))
        });
        Self(pairs.collect())
    }

    /// The value of a parameter that is there and not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|(key, value)| {
            key == name && matches!(value.as_str(), "" | "1" | "t" | "T" | "true" | "True" | "TRUE")
        })
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let bad = |_| ApiError::bad_request(format!("{name}: Invalid value: {text:?}: must be a number"));
        text.parse().map(Some).map_err(bad)
    }

    /// Whether the change is only to be tried.
    pub(crate) fn dry_run(&self) -> Result<bool, ApiError> {
        match self.text("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => {
                Err(ApiError::unprocessable(format!("dryRun: Unsupported value: {other:?}: supported values: \"All\"")))
            }
        }
    }

    pub(crate) fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        match self.text("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(ApiError::unprocessable(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// What of an object goes with a table row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

/// The form in which objects are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    Table,
    /// Metadata only.
    Partial,
    /// All groups and their resources in one document (discovery only).
    Aggregated,
}

const OFFERED: &str = "application/json, application/json;as=Table;v=v1;g=meta.k8s.io, \
    application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";

/// Chooses the first form of an `Accept` header that is on offer.
pub(crate) fn form(accept: Option<&str>) -> Result<Form, ApiError> {
    let Some(accept) = accept.filter(|a| !a.trim().is_empty()) else { return Ok(Form::Object) };
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
            continue;
        }
        let (mut kind, mut version) = ("", "");
        for part in parts {
            match part.split_once('=') {
                Some(("as", value)) => kind = value,
                Some(("v", value)) => version = value,
                _ => {}
            }
        }
        match (kind, version) {
            ("", _) => return Ok(Form::Object),
            ("Table", "v1" | "v1beta1") => return Ok(Form::Table),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "v1" | "v1beta1") => return Ok(Form::Partial),
            ("APIGroupDiscoveryList", "v2") => return Ok(Form::Aggregated),
            _ => {}
        }
    }
    Err(ApiError::not_acceptable(OFFERED))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn path(text: &str) -> Path {
        match Route::parse(text) {
            Some(Route::Objects(path)) => path,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn paths_lead_where_they_say() {
        assert_eq!(path("/api/v1/pods").plural, "pods");
        let found = path("/api/v1/namespaces/default/pods/web/status");
        assert_eq!((found.namespace.as_deref(), found.plural.as_str()), (Some("default"), "pods"));
        assert_eq!((found.name.as_deref(), found.subresource.as_deref()), (Some("web"), Some("status")));
        let found = path("/api/v1/namespaces/default");
        assert_eq!((found.plural.as_str(), found.name.as_deref()), ("namespaces", Some("default")));
        assert_eq!(found.namespace, None);
        let found = path("/api/v1/namespaces/default/finalize");
        assert_eq!((found.plural.as_str(), found.subresource.as_deref()), ("namespaces", Some("finalize")));
        assert_eq!(path("/apis/a.b/v1/namespaces/x/things/a%2Db").name.as_deref(), Some("a-b"));
        assert_eq!(Route::parse("/nothing"), None);
        assert_eq!(Route::parse("/api/v1/pods/%zz"), None);
        assert_eq!(Route::parse("/readyz/ping"), Some(Route::Health));
    }

    #[test]
    fn the_first_offered_form_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(Some(table)).unwrap(), Form::Table);
        assert_eq!(form(Some("application/vnd.kubernetes.protobuf,application/json")).unwrap(), Form::Object);
        assert_eq!(form(None).unwrap(), Form::Object);
        assert!(form(Some("application/vnd.kubernetes.protobuf")).is_err());
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db%2Cc&watch=true&limit=5&empty=&fieldManager=a+b");
        assert_eq!(query.text("labelSelector"), Some("a=b,c"));
        assert!(query.flag("watch"));
        assert_eq!(query.number::<u64>("limit").unwrap(), Some(5));
        assert_eq!(query.text("empty"), None);
        assert_eq!(query.text("fieldManager"), Some("a b"));
    }
}
