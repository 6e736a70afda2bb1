//! The service without a client: status codes, headers and bodies as they are.

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use kubeedge_cloud::apiserver::{BODY_LIMIT, EmbeddedApi};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{api, pod};

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Value,
}

pub(crate) async fn call(api: &EmbeddedApi, method: &str, path: &str, kind: &str, body: impl Into<Vec<u8>>) -> Answer {
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    send(api, request.body(Full::from(body.into())).unwrap()).await
}

pub(crate) async fn send(api: &EmbeddedApi, request: Request<Full<bytes::Bytes>>) -> Answer {
    let response = api.service().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::from(&*String::from_utf8_lossy(&bytes)));
    Answer { status: parts.status, headers: parts.headers, body }
}

pub(crate) async fn get(api: &EmbeddedApi, path: &str) -> Answer {
    call(api, "GET", path, "", "").await
}

pub(crate) async fn post(api: &EmbeddedApi, path: &str, body: &Value) -> Answer {
    call(api, "POST", path, "application/json", body.to_string()).await
}

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn errors_are_statuses() {
    let api = api().await;
    let missing = get(&api, "/api/v1/namespaces/default/pods/web").await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.body["kind"], "Status");
    assert_eq!(missing.body["reason"], "NotFound");
    assert_eq!(missing.body["message"], "pods \"web\" not found");
    assert_eq!(missing.body["details"], json!({"name": "web", "kind": "pods"}));

    assert_eq!(get(&api, "/apis/none/v1/things").await.body["reason"], "NotFound");
    assert_eq!(call(&api, "DELETE", "/api/v1/namespaces", "", "").await.status, 405);
    assert_eq!(call(&api, "POST", PODS, "application/vnd.kubernetes.protobuf", "x").await.status, 400);
    assert_eq!(call(&api, "POST", PODS, "text/html", "x").await.status, 415);
    assert_eq!(call(&api, "POST", PODS, "application/json", "{").await.status, 400);
    assert_eq!(call(&api, "POST", PODS, "application/json", vec![b' '; BODY_LIMIT + 1]).await.status, 413);
    assert_eq!(get(&api, "/api/v1/pods?labelSelector=a%20is%20b").await.status, 400);
    assert_eq!(get(&api, "/api/v1/pods?fieldSelector=spec.unknown%3Dx").await.status, 400);

    let no_namespace = post(&api, "/api/v1/namespaces/none/pods", &pod("web")).await;
    assert_eq!(
        (no_namespace.status.as_u16(), &no_namespace.body["message"]),
        (404, &json!("namespaces \"none\" not found"))
    );

    let mut wrong = pod("Web");
    wrong["spec"]["containers"][0].as_object_mut().unwrap().remove("image");
    let invalid = post(&api, PODS, &wrong).await;
    assert_eq!(invalid.status, 422);
    let causes = invalid.body["details"]["causes"].as_array().unwrap();
    let fields: Vec<_> = causes.iter().map(|c| c["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["metadata.name", "spec.containers[0].image"]);

    let mut wrong = pod("web");
    wrong["spec"]["containers"] = json!("none");
    let undecodable = post(&api, PODS, &wrong).await;
    assert_eq!(undecodable.status, 400);
    let message = undecodable.body["message"].as_str().unwrap();
    assert!(message.contains("spec.containers: must be of type array, not \"none\""), "{message}");
}

#[tokio::test]
async fn unknown_fields_are_refused_or_warned_about_as_asked() {
    let api = api().await;
    let mut odd = pod("web");
    odd["spec"]["bogus"] = json!(1);
    let strict = post(&api, &format!("{PODS}?fieldValidation=Strict"), &odd).await;
    assert_eq!(strict.status, 400);
    let message = strict.body["message"].as_str().unwrap();
    assert!(message.contains("strict decoding error: unknown field \"spec.bogus\""), "{message}");
    let warned = post(&api, PODS, &odd).await;
    assert_eq!(warned.status, 201);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"spec.bogus\\\"\"");
    assert!(warned.body["spec"].get("bogus").is_none());
}

#[tokio::test]
async fn bodies_may_be_yaml_and_dry_runs_keep_nothing() {
    let api = api().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: v\n";
    let path = "/api/v1/namespaces/default/configmaps";
    let tried = call(&api, "POST", &format!("{path}?dryRun=All"), "application/yaml", yaml).await;
    assert_eq!(tried.status, 201);
    assert_eq!(get(&api, &format!("{path}/a")).await.status, 404);
    assert_eq!(call(&api, "POST", path, "application/yaml", yaml).await.status, 201);
    assert_eq!(get(&api, &format!("{path}/a")).await.body["data"], json!({"k": "v"}));
}

#[tokio::test]
async fn discovery_tells_what_is_served() {
    let api = api().await;
    let core = get(&api, "/api/v1").await.body;
    let names: Vec<_> = core["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    for name in
        ["pods", "pods/status", "pods/binding", "nodes", "nodes/status", "serviceaccounts/token", "namespaces/finalize"]
    {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let groups = get(&api, "/apis").await.body;
    let names: Vec<_> = groups["groups"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"coordination.k8s.io") && names.contains(&"apiextensions.k8s.io"), "{names:?}");
    assert_eq!(get(&api, "/apis/coordination.k8s.io").await.body["preferredVersion"]["version"], "v1");
    assert_eq!(get(&api, "/readyz").await.body, "ok");
    let request = Request::get("/apis")
        .header("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json");
    let all = send(&api, request.body(Full::default()).unwrap()).await;
    assert_eq!(all.body["kind"], "APIGroupDiscoveryList");
    assert!(all.headers["content-type"].to_str().unwrap().contains("as=APIGroupDiscoveryList"));
    let paths = get(&api, "/openapi/v3").await.body;
    let url = paths["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = get(&api, &url).await.body;
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Pod");
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
}

#[tokio::test]
async fn pages_show_one_state_and_go_on_where_they_ended() {
    let api = api().await;
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(post(&api, PODS, &pod(name)).await.status, 201);
    }
    let first = get(&api, &format!("{PODS}?limit=2")).await.body;
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    let version = first["metadata"]["resourceVersion"].clone();
    // Changes between the pages do not show.
    call(&api, "DELETE", &format!("{PODS}/d"), "", "").await;
    post(&api, PODS, &pod("bb")).await;
    let (mut names, mut token) = (Vec::new(), first["metadata"]["continue"].as_str().unwrap().to_owned());
    names.extend(first["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()));
    while !token.is_empty() {
        let page = get(&api, &format!("{PODS}?limit=2&continue={token}")).await.body;
        assert_eq!(page["metadata"]["resourceVersion"], version);
        names.extend(page["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()));
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert_eq!(get(&api, &format!("{PODS}?continue=broken")).await.status, 400);
    let future = get(&api, &format!("{PODS}?resourceVersion=999999")).await;
    assert_eq!(
        (future.status.as_u16(), &future.body["details"]["causes"][0]["reason"]),
        (504, &json!("ResourceVersionTooLarge"))
    );
    let exact =
        get(&api, &format!("{PODS}?resourceVersion={}&resourceVersionMatch=Exact", version.as_str().unwrap())).await;
    assert_eq!(exact.body["items"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn tables_have_the_columns_of_kubectl() {
    let api = api().await;
    post(&api, PODS, &pod("web")).await;
    let request = Request::get(PODS).header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    let table = send(&api, request.body(Full::default()).unwrap()).await.body;
    let names: Vec<_> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names[..5], ["Name", "Ready", "Status", "Restarts", "Age"]);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..4], [json!("web"), json!("0/1"), json!("Pending"), json!("0")]);
    assert_eq!(cells.len(), names.len());
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn metadata_alone_can_be_asked_for() {
    let api = api().await;
    post(&api, PODS, &pod("web")).await;
    let request =
        Request::get(PODS).header("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
    let list = send(&api, request.body(Full::default()).unwrap()).await.body;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "web");
    assert!(list["items"][0].get("spec").is_none());
}

#[tokio::test]
async fn tokens_of_accounts_are_signed_and_recognised() {
    let api = api().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["edge"], "expirationSeconds": 1200}});
    let made = post(&api, path, &request).await;
    assert_eq!(made.status, 201);
    let token = made.body["status"]["token"].as_str().unwrap();
    let review = |token: &str, audience: &str| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, "audiences": [audience]}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let known = post(&api, reviews, &review(token, "edge")).await.body;
    assert_eq!(known["status"]["authenticated"], true);
    assert_eq!(known["status"]["user"]["username"], "system:serviceaccount:default:default");
    assert_eq!(post(&api, reviews, &review(token, "other")).await.body["status"]["authenticated"], false);
    assert_eq!(post(&api, reviews, &review("x.y.z", "edge")).await.body["status"]["authenticated"], false);
    let short = json!({"spec": {"expirationSeconds": 60}});
    assert_eq!(post(&api, path, &short).await.status, 422);
}

#[tokio::test]
async fn patches_cannot_make_an_object_grow_without_end() {
    let api = api().await;
    let path = "/api/v1/namespaces/default/configmaps";
    post(&api, path, &json!({"metadata": {"name": "a"}, "data": {"k": "x"}})).await;
    let path = format!("{path}/a");
    let json_patch = "application/json-patch+json";
    let doublings = |n: usize| -> Value {
        (0..n).map(|i| json!({"op": "copy", "from": "/data", "path": format!("/data/{i}")})).collect()
    };
    assert_eq!(call(&api, "PATCH", &path, json_patch, doublings(60).to_string()).await.status, 413);
    assert_eq!(call(&api, "PATCH", &path, json_patch, doublings(101).to_string()).await.status, 400);
    let big = "x".repeat(BODY_LIMIT / 4);
    let mut last = StatusCode::OK;
    for i in 0..5 {
        let patch = json!({"metadata": {"annotations": {"a": i.to_string()}}, "binaryData": {i.to_string(): "AAAA"},
            "data": {i.to_string(): big}});
        last = call(&api, "PATCH", &path, "application/merge-patch+json", patch.to_string()).await.status;
    }
    assert!(last.is_client_error(), "{last}");
    assert_eq!(get(&api, &path).await.status, 200);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let api = api().await;
    post(&api, PODS, &pod("web")).await;
    let path = format!("{PODS}/web/binding");
    let binding = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "web"}, "target": {"kind": "Node", "name": node}});
    assert_eq!(post(&api, &path, &binding("edge-1")).await.status, 201);
    assert_eq!(get(&api, &format!("{PODS}/web")).await.body["spec"]["nodeName"], "edge-1");
    assert_eq!(post(&api, &path, &binding("edge-2")).await.status, 409);
    assert_eq!(post(&api, &path, &binding("")).await.status, 422);
}

#[tokio::test]
async fn nothing_is_stored_that_could_not_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.db");
    let api = EmbeddedApi::builder().data_source(&path).build().await.unwrap();
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let names = json!({"plural": "things", "singular": "thing", "kind": "Thing"});
    let versions = json!([{"name": "v1", "served": true, "storage": true, "schema": schema}]);
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.a.b"},
        "spec": {"group": "a.b", "scope": "Namespaced", "names": names, "versions": versions}});
    assert_eq!(post(&api, crds, &crd).await.status, 201);
    let things = "/apis/a.b/v1/namespaces/default/things";
    let thing = |name: &str, depth: usize| {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"apiVersion":"a.b/v1","kind":"Thing","metadata":{{"name":"{name}"}},"spec":{{"deep":{deep}}}}}"#)
    };
    assert_eq!(call(&api, "POST", things, "application/json", thing("fits", 90)).await.status, 201);
    for kind in ["application/json", "application/yaml"] {
        for depth in [110, 200, 5000] {
            let refused = call(&api, "POST", things, kind, thing("deep", depth)).await;
            assert_eq!(refused.status, 400, "{kind} {depth}: {}", refused.body);
        }
    }
    let mut laughs = vec!["metadata: {name: laughs}".to_owned(), "a0: &a0 [1, 1]".to_owned()];
    laughs.extend((1..30).map(|i| format!("a{i}: &a{i} [*a{0}, *a{0}]", i - 1)));
    let laughs = laughs.join("\n");
    assert_eq!(call(&api, "POST", things, "application/yaml", laughs).await.status, 400);
    // Two halves that are not too deep by themselves.
    let half = format!("{}{}", "[".repeat(90), "]".repeat(90));
    let patch = format!(r#"[{{"op":"add","path":"/spec/deep{}/-","value":{half}}}]"#, "/0".repeat(89));
    let refused = call(&api, "PATCH", &format!("{things}/fits"), "application/json-patch+json", patch).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    drop(api);
    let api = EmbeddedApi::builder().data_source(&path).build().await.unwrap();
    let items = get(&api, things).await.body["items"].as_array().unwrap().len();
    assert_eq!(items, 1);
}

#[tokio::test]
async fn odd_requests_are_answered_and_stop_nothing() {
    let api = api().await;
    assert_eq!(post(&api, PODS, &pod("web")).await.status, 201);
    let web = format!("{PODS}/web");
    let odd = |change: fn(&mut Value)| {
        let mut odd = pod("odd");
        change(&mut odd);
        odd
    };
    for body in [
        json!(null),
        json!([]),
        json!({"metadata": 1}),
        odd(|pod| pod["metadata"] = Value::Null),
        odd(|pod| pod["metadata"]["labels"] = json!("x")),
        odd(|pod| pod["metadata"]["annotations"] = json!(["x"])),
        odd(|pod| pod["metadata"]["ownerReferences"] = json!([null, 1])),
        odd(|pod| pod["metadata"]["managedFields"] = json!([{"fieldsV1": "x"}])),
        odd(|pod| pod["spec"] = Value::Null),
        odd(|pod| pod["spec"]["containers"] = json!([null])),
        odd(|pod| pod["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": {}}})),
        odd(|pod| pod["spec"]["volumes"] = json!([null, {"name": null}])),
        odd(|pod| pod["status"] = json!("x")),
    ] {
        for (method, path) in [("POST", PODS), ("PUT", web.as_str()), ("PUT", &format!("{web}/status"))] {
            let answer = call(&api, method, path, "application/json", body.to_string()).await;
            assert!(!answer.status.is_server_error(), "{method} {body}: {}", answer.body);
        }
        for kind in ["merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"] {
            let path = format!("{web}?fieldManager=x");
            let answer = call(&api, "PATCH", &path, &format!("application/{kind}"), body.to_string()).await;
            assert!(!answer.status.is_server_error(), "{kind} {body}: {}", answer.body);
        }
    }
    for patch in [
        json!([{"op": "remove", "path": "/metadata"}]),
        json!([{"op": "replace", "path": "", "value": 1}]),
        json!([{"op": "replace", "path": "/metadata/managedFields", "value": "x"}]),
        json!([{"op": "remove", "path": "/spec"}]),
        json!([{"op": "move", "from": "/spec", "path": "/spec/containers"}]),
    ] {
        let answer = call(&api, "PATCH", &web, "application/json-patch+json", patch.to_string()).await;
        assert!(!answer.status.is_server_error(), "{patch}: {}", answer.body);
    }
    assert_eq!(get(&api, &web).await.status, 200);
    assert_eq!(post(&api, PODS, &pod("still")).await.status, 201);
}

#[tokio::test]
async fn a_watch_may_ask_for_any_time() {
    let api = api().await;
    let path = format!("{PODS}?watch=true&timeoutSeconds={}", u64::MAX);
    let response = api.service().oneshot(Request::get(path).body(Full::<bytes::Bytes>::default()).unwrap()).await;
    assert_eq!(response.unwrap().status(), 200);
}
