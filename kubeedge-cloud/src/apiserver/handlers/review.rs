//! Reviews: questions about identity and rights, answered and not stored.

use http::StatusCode;
use serde_json::{Value, json};

use super::Call;
use crate::apiserver::{lifecycle::metadata, reply::Reply, status::ApiError, store::Key, token};

/// Answers a review. Whoever gets here is the administrator, who may do everything.
pub(super) fn review(call: &Call) -> Result<Reply, ApiError> {
    let mut review = call.body()?;
    call.decode(&mut review)?;
    metadata(&mut review);
    review["status"] = match call.resource().kind.as_str() {
        "TokenReview" => token_status(call, &review),
        "SelfSubjectReview" => {
            json!({"userInfo": {"username": "system:admin", "groups": ["system:masters", "system:authenticated"]}})
        }
        "SelfSubjectRulesReview" => json!({"incomplete": false,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}),
        "SubjectAccessReview" => {
            let user = review.pointer("/spec/user").and_then(Value::as_str).unwrap_or_default();
            // Accounts have no rights here; only the administrator is let in.
            let groups = review.pointer("/spec/groups").and_then(Value::as_array).cloned().unwrap_or_default();
            let allowed = user == "system:admin" || groups.iter().any(|group| group == "system:masters");
            json!({"allowed": allowed})
        }
        _ => json!({"allowed": true}),
    };
    Ok(Reply::json(StatusCode::CREATED, &review))
}

fn token_status(call: &Call, review: &Value) -> Value {
    let text = review.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
    let asked: Vec<&str> = review
        .pointer("/spec/audiences")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let asked = if asked.is_empty() { vec![token::ISSUER] } else { asked };
    let verified = token::verify(&call.store.secrets().signing_key, text, call.store.now());
    let Some(claims) = verified else {
        return json!({"authenticated": false, "error": "invalid bearer token"});
    };
    let audiences: Vec<_> = claims.aud.iter().filter(|a| asked.contains(&a.as_str())).collect();
    let Some((namespace, name, uid)) = claims.account() else { return json!({"authenticated": false}) };
    let known = call.store.state().get("serviceaccounts", &Key::new(namespace, name));
    if audiences.is_empty() || known.is_none_or(|account| &*account.uid != uid) {
        return json!({"authenticated": false, "error": "token is for another audience or account"});
    }
    json!({"authenticated": true, "audiences": audiences, "user": {
        "username": claims.sub, "uid": uid,
        "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"]}})
}
