//! Custom resources.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams},
    runtime::wait::{await_condition, conditions},
};
use kubeedge_cloud::apiserver::EmbeddedApi;
use serde_json::{Value, json};

use crate::{SOON, api, eventually, raw};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const BOILERS: &str = "/apis/heat.example.com/v1/namespaces/default/boilers";

fn definition(status: bool) -> Value {
    let schema = |extra: Value| {
        let mut spec = json!({"type": "object", "required": ["power"], "properties": {
            "power": {"type": "integer", "minimum": 1, "maximum": 100},
            "mode": {"type": "string", "enum": ["auto", "manual"], "default": "auto"},
            "port": {"x-kubernetes-int-or-string": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
        spec["properties"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec,
            "status": {"type": "object", "properties": {"temperature": {"type": "number"}}}}}})
    };
    let subresources = if status { json!({"status": {}}) } else { Value::Null };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boilers.heat.example.com"},
        "spec": {"group": "heat.example.com", "scope": "Namespaced",
            "names": {"plural": "boilers", "kind": "Boiler", "shortNames": ["bo"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": schema(json!({})), "subresources": subresources,
                    "additionalPrinterColumns": [{"name": "Power", "type": "integer", "jsonPath": ".spec.power"}]},
                {"name": "v1alpha1", "served": true, "storage": false, "schema": schema(json!({"old": {"type": "string"}}))}]}})
}

async fn with_definition(status: bool) -> EmbeddedApi {
    let api = api().await;
    let made = raw::post(&api, DEFINITIONS, &definition(status)).await;
    assert_eq!(made.status, 201, "{}", made.body);
    api
}

fn boiler(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "heat.example.com/v1", "kind": "Boiler", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_definition_is_served_at_once() {
    let api = api().await;
    let made = raw::post(&api, DEFINITIONS, &definition(false)).await.body;
    let conditions: Vec<_> = made["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["type"].as_str().unwrap(), c["status"].as_str().unwrap()))
        .collect();
    assert_eq!(conditions, [("NamesAccepted", "True"), ("Established", "True")]);
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    let definitions: Api<CustomResourceDefinition> = Api::all(api.client("default"));
    let established = await_condition(definitions, "boilers.heat.example.com", conditions::is_crd_established());
    tokio::time::timeout(SOON, established).await.unwrap().unwrap();
    let made =
        raw::post(&api, BOILERS, &boiler("a", &json!({"power": 5, "port": 80, "bogus": 1, "free": {"x": [1]}}))).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["spec"], json!({"power": 5, "mode": "auto", "port": 80, "free": {"x": [1]}}));
    assert_eq!(made.headers["warning"], "299 - \"unknown field \\\"spec.bogus\\\"\"");
    let group = raw::get(&api, "/apis/heat.example.com").await.body;
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let resources = raw::get(&api, "/apis/heat.example.com/v1").await.body;
    assert_eq!(resources["resources"][0]["shortNames"], json!(["bo"]));
    let table = http::Request::get(BOILERS).header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table = raw::send(&api, table.body(http_body_util::Full::default()).unwrap()).await.body;
    assert_eq!(table["rows"][0]["cells"], json!(["a", 5]));
}

#[tokio::test]
async fn objects_must_fit_their_schema() {
    let api = with_definition(false).await;
    let wrong = raw::post(&api, BOILERS, &boiler("a", &json!({"power": 500, "mode": "off"}))).await;
    assert_eq!(wrong.status, 422);
    assert_eq!(wrong.body["reason"], "Invalid");
    assert_eq!(
        wrong.body["message"],
        "Boiler.heat.example.com \"a\" is invalid: [spec.mode: Unsupported value: \"off\": supported values: \"auto\", \
         \"manual\", spec.power: Invalid value: 500: should be less than or equal to 100]"
    );
    assert_eq!(wrong.body["details"]["causes"][1]["field"], "spec.power");
    let empty = raw::post(&api, BOILERS, &boiler("a", &json!({}))).await;
    assert_eq!(empty.body["details"]["causes"][0]["reason"], "FieldValueRequired");
    let strict =
        raw::post(&api, &format!("{BOILERS}?fieldValidation=Strict"), &boiler("a", &json!({"power": 1, "x": 1}))).await;
    assert_eq!(strict.status, 400);
    let message = strict.body["message"].as_str().unwrap();
    assert!(message.contains("strict decoding error: unknown field \"spec.x\""), "{message}");
    let strategic = "application/strategic-merge-patch+json";
    raw::post(&api, BOILERS, &boiler("a", &json!({"power": 1}))).await;
    assert_eq!(raw::call(&api, "PATCH", &format!("{BOILERS}/a"), strategic, "{}").await.status, 415);
    let unversioned = raw::call(
        &api,
        "PUT",
        &format!("{BOILERS}/a"),
        "application/json",
        boiler("a", &json!({"power": 2})).to_string(),
    )
    .await;
    assert_eq!(unversioned.status, 422);
}

#[tokio::test]
async fn the_status_is_apart_only_where_the_definition_says_so() {
    for apart in [true, false] {
        let api = with_definition(apart).await;
        let mut object = boiler("a", &json!({"power": 1}));
        object["status"] = json!({"temperature": 20.5});
        let made = raw::post(&api, BOILERS, &object).await.body;
        assert_eq!(made.get("status").is_none(), apart);
        let merge = "application/merge-patch+json";
        let warm = json!({"spec": {"power": 9}, "status": {"temperature": 60.0}}).to_string();
        let path = format!("{BOILERS}/a/status");
        let changed = raw::call(&api, "PATCH", &path, merge, warm.clone()).await;
        if apart {
            assert_eq!(changed.body["status"]["temperature"], 60.0);
            assert_eq!(
                (&changed.body["spec"]["power"], &changed.body["metadata"]["generation"]),
                (&json!(1), &json!(1))
            );
            let main = raw::call(&api, "PATCH", &format!("{BOILERS}/a"), merge, warm).await.body;
            assert_eq!(main["metadata"]["generation"], 2);
        } else {
            assert_eq!(changed.status, 404);
            let only_status = json!({"status": {"temperature": 61.0}}).to_string();
            let main = raw::call(&api, "PATCH", &format!("{BOILERS}/a"), merge, only_status).await.body;
            assert_eq!((&main["status"]["temperature"], &main["metadata"]["generation"]), (&json!(61.0), &json!(2)));
        }
    }
}

#[tokio::test]
async fn versions_show_the_same_objects() {
    let api = with_definition(false).await;
    raw::post(&api, BOILERS, &boiler("a", &json!({"power": 1}))).await;
    let old = "/apis/heat.example.com/v1alpha1/namespaces/default/boilers";
    let found = raw::get(&api, &format!("{old}/a")).await.body;
    assert_eq!(found["apiVersion"], "heat.example.com/v1alpha1");
    let list = raw::get(&api, old).await.body;
    assert_eq!(list["items"][0]["apiVersion"], "heat.example.com/v1alpha1");
    let merge = "application/merge-patch+json";
    raw::call(&api, "PATCH", &format!("{old}/a"), merge, json!({"spec": {"power": 2}}).to_string()).await;
    let found = raw::get(&api, &format!("{BOILERS}/a")).await.body;
    assert_eq!((&found["apiVersion"], &found["spec"]["power"]), (&json!("heat.example.com/v1"), &json!(2)));
}

#[tokio::test]
async fn deleting_a_definition_deletes_its_objects() {
    let api = with_definition(false).await;
    for i in 0..150 {
        raw::post(&api, BOILERS, &boiler(&format!("b{i}"), &json!({"power": 1}))).await;
    }
    let mut held = boiler("held", &json!({"power": 1}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    raw::post(&api, BOILERS, &held).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(api.client("default"));
    let kept = definitions.delete("boilers.heat.example.com", &DeleteParams::default()).await.unwrap();
    assert!(kept.is_left());
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("heat.example.com", "v1", "Boiler"), "boilers");
    let boilers: Api<DynamicObject> = Api::default_namespaced_with(api.client("default"), &resource);
    eventually("all but one go", async || {
        boilers.list(&kube::api::ListParams::default()).await.unwrap().items.len() == 1
    })
    .await;
    assert_eq!(raw::post(&api, BOILERS, &boiler("late", &json!({"power": 1}))).await.status, 405);
    let merge = "application/merge-patch+json";
    raw::call(&api, "PATCH", &format!("{BOILERS}/held"), merge, json!({"metadata": {"finalizers": null}}).to_string())
        .await;
    eventually("the definition goes", async || {
        definitions.get_opt("boilers.heat.example.com").await.unwrap().is_none()
    })
    .await;
    assert_eq!(raw::get(&api, BOILERS).await.status, 404);
    assert_eq!(raw::get(&api, "/apis/heat.example.com").await.status, 404);
    // The same name may come again.
    definitions.create(&PostParams::default(), &serde_json::from_value(definition(true)).unwrap()).await.unwrap();
    assert_eq!(raw::get(&api, BOILERS).await.body["items"], json!([]));
}

#[tokio::test]
async fn definitions_that_make_no_sense_are_refused() {
    let api = api().await;
    for (pointer, value, field) in [
        ("/metadata/name", json!("other.heat.example.com"), "metadata.name"),
        ("/spec/scope", json!("World"), "spec.scope"),
        ("/spec/versions/0/storage", json!(false), "spec.versions"),
        ("/spec/versions/0/schema", json!({}), "spec.versions[0].schema.openAPIV3Schema"),
        (
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/type",
            json!("thing"),
            "spec.versions[0].schema.openAPIV3Schema",
        ),
        (
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/mode/pattern",
            json!("("),
            "spec.versions[0].schema.openAPIV3Schema",
        ),
    ] {
        let mut wrong = definition(false);
        if pointer.ends_with("pattern") {
            wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["mode"]["pattern"] =
                value;
        } else {
            *wrong.pointer_mut(pointer).unwrap() = value;
        }
        let refused = raw::post(&api, DEFINITIONS, &wrong).await;
        assert_eq!((refused.status.as_u16(), &refused.body["details"]["causes"][0]["field"]), (422, &json!(field)));
    }
}
