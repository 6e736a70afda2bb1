//! The life of pods that are native processes.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use kubeedge_core::{
    meta::{Collection, MetaKey},
    outbox,
    resource::ResourceType,
    words::Operation,
};
use serde_json::{Value, json};

use crate::stage::{Cloud, Stage, eventually, is, is_alive, is_running, not_found, object, pid_in, script};

/// A script that tells what it sees, and then waits.
const TELL: &str = r#"echo "hello $GREETING"; cat etc/app/color; echo; pwd; sleep 1000"#;

fn with_config(name: &str) -> Value {
    let mut pod = script(name, TELL);
    pod["spec"]["volumes"] =
        json!([{"name": "cfg", "configMap": {"name": "settings"}}, {"name": "tmp", "emptyDir": {}}]);
    let main = &mut pod["spec"]["containers"][0];
    main["volumeMounts"] = json!([{"name": "cfg", "mountPath": "/etc/app"}, {"name": "tmp", "mountPath": "/tmp"}]);
    main["env"] = json!([
        {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "greeting"}}},
        {"name": "FILE", "value": "$(KUBEEDGE_POD_ROOT)/etc/app/color"},
    ]);
    pod
}

#[tokio::test]
async fn a_pod_lives_from_its_record_to_its_removal() {
    let stage = Stage::new(Cloud::absent());
    stage.put_config("settings", &json!({"color": "red", "greeting": "world"})).await;
    let mut pod = with_config("web");
    let pid_file = stage.dir.path().join("pid");
    pod["spec"]["containers"][0]["command"][2] =
        json!(format!("echo $$$$ > {}; readlink $FILE; {TELL}", pid_file.display()));
    stage.put(&ResourceType::Pod, &pod).await;
    let agent = stage.agent().await;

    let seen = agent.sees("web", "running", is_running).await;
    assert_eq!(seen.containers[0].state, "Running");
    let volumes = stage.dir.path().join("kubelet/pods/uid-web/volumes");
    for line in ["hello world", "red", "..data/color"] {
        agent.logged("web", line).await;
    }
    let log = agent.edged.log_path("shop", "web", "main").unwrap();
    assert_eq!(log, stage.dir.path().join("logs/shop_web_uid-web/main/0.log"));
    let pid = pid_in(&pid_file).await;
    let environ = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(!environ.contains("CARGO"), "nothing of the agent's environment: {environ}");
    let status = stage.told("web", |status| status["phase"] == "Running").await;
    assert_eq!(status["containerStatuses"][0]["containerID"].as_str(), seen.containers[0].id.as_deref());
    assert_eq!((&status["podIP"], &status["hostIP"]), (&json!("192.0.2.7"), &json!("192.0.2.7")));

    // A change of the ConfigMap reaches the files, and restarts nothing.
    stage.put_config("settings", &json!({"color": "blue", "greeting": "moon"})).await;
    let color = volumes.join("kubernetes.io~configmap/cfg/color");
    eventually("the new color", || fs::read_to_string(&color).is_ok_and(|color| color == "blue")).await;
    assert!(is_alive(pid));

    // A deletion ends the process and asks for the removal; the removal takes everything away.
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T03:37:08Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(2);
    stage.put(&ResourceType::Pod, &pod).await;
    let release = stage.left("poddelete/shop/web", |_| true).await;
    let golden: Value = serde_json::from_str(include_str!("../golden/pod-delete.json")).unwrap();
    let content: Value = release.content.parse().unwrap();
    assert_eq!(content["gracePeriodSeconds"], golden["content"]["gracePeriodSeconds"]);
    assert_eq!(content["preconditions"], json!({"uid": "uid-web"}));
    assert_eq!(release.operation, Operation::Delete);
    assert_eq!(release.resource.to_string(), "shop/pod/web");
    assert!(!is_alive(pid));
    let status = stage.told("web", |status| status["phase"] == "Failed").await;
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 143);

    stage.remove(&ResourceType::Pod, "web").await;
    agent.misses("web").await;
    assert!(!stage.dir.path().join("kubelet/pods/uid-web").exists());
    assert!(!log.exists());
    assert_eq!(fs::read_dir(stage.native_dir()).unwrap().count(), 0);
    for subject in ["podstatus/shop/web", "poddelete/shop/web"] {
        assert_eq!(stage.store.get(outbox::key(&outbox::Subject::new(subject).unwrap())).await.unwrap(), None);
    }
    agent.stop().await;
}

#[tokio::test]
async fn pods_of_other_nodes_are_none_of_our_business() {
    let stage = Stage::new(Cloud::absent());
    let mut other = script("other", "sleep 1000");
    other["spec"]["nodeName"] = json!("edge-2");
    stage.put(&ResourceType::Pod, &other).await;
    let mut evil = script("evil", "sleep 1000");
    evil["metadata"]["uid"] = json!("../../evil");
    stage.put(&ResourceType::Pod, &evil).await;
    stage.put(&ResourceType::Pod, &script("own", "sleep 1000")).await;
    let agent = stage.agent().await;
    agent.sees("own", "running", is_running).await;
    assert_eq!(agent.edged.pods().len(), 1);
    stage.remove(&ResourceType::Pod, "own").await;
    agent.misses("own").await;
}

#[tokio::test]
async fn a_missing_config_map_is_asked_for_stored_and_acknowledged() {
    let map = json!({"kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "shop", "uid": "cm",
        "resourceVersion": "77"}, "data": {"color": "red", "greeting": "world"}});
    let answer = map.clone();
    let cloud = Cloud::new(Arc::new(move |message| match message.resource.to_string().as_str() {
        "shop/configmap/settings" => Some(object(&answer)),
        _ => Some(not_found()),
    }));
    let stage = Stage::new(cloud.clone());
    stage.put(&ResourceType::Pod, &with_config("web")).await;
    let agent = stage.agent().await;
    let waits = agent.sees("web", "waiting", |pod| pod.containers[0].state == "CreateContainerConfigError").await;
    assert_eq!(waits.phase, "Pending");
    let status =
        stage.told("web", |status| status["containerStatuses"][0]["state"]["waiting"]["message"].is_string()).await;
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["message"], "configmap \"settings\" not found");

    cloud.connect(1);
    let query = cloud.got("query", is(&Operation::Query, "shop/configmap/settings")).await;
    assert_eq!((query.source.as_str(), query.group.as_str()), ("edged", "meta"));
    let acknowledged = cloud.got("acknowledgement", is(&Operation::Response, "shop/configmap/settings")).await;
    assert_eq!((acknowledged.source.as_str(), acknowledged.content.is_ok()), ("edgecontroller", true));
    let key = MetaKey::new(Collection::from(&ResourceType::ConfigMap), "shop", "settings");
    let stored = stage.store.get(key).await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&stored.value).unwrap(), map);
    assert_eq!((stored.version.unwrap().number(), stored.uid.unwrap().as_str()), (77, "cm"));
    agent.sees("web", "running", is_running).await;
    stage.remove(&ResourceType::Pod, "web").await;
    agent.misses("web").await;
}

#[tokio::test]
async fn a_refused_query_is_not_stored_and_the_object_is_taken_when_it_comes() {
    let cloud = Cloud::new(Arc::new(|_| Some(not_found())));
    cloud.connect(1);
    let stage = Stage::new(cloud.clone());
    let mut pod = with_config("web");
    pod["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "keys", "optional": true}}]);
    stage.put(&ResourceType::Pod, &pod).await;
    let agent = stage.agent().await;
    agent.sees("web", "waiting", |pod| pod.containers[0].state == "CreateContainerConfigError").await;
    cloud.got("query", is(&Operation::Query, "shop/configmap/settings")).await;
    assert_eq!(cloud.count(is(&Operation::Response, "shop/configmap/settings")), 0);
    let key = MetaKey::new(Collection::from(&ResourceType::ConfigMap), "shop", "settings");
    assert_eq!(stage.store.get(key).await.unwrap(), None);
    stage.put_config("settings", &json!({"color": "red", "greeting": "world"})).await;
    agent.sees("web", "running", is_running).await;
    cloud.got("query of the optional secret", is(&Operation::Query, "shop/secret/keys")).await;
    stage.remove(&ResourceType::Pod, "web").await;
    agent.misses("web").await;
}

#[tokio::test]
async fn a_token_of_the_service_account_is_fetched_and_kept() {
    let cloud = Cloud::new(Arc::new(|message| {
        (message.resource.to_string() == "shop/serviceaccounttoken/default").then(|| {
            let mut request: Value = message.content.parse().unwrap();
            request["status"] = json!({"token": "abc.def.ghi", "expirationTimestamp": "2126-11-21T03:30:39Z"});
            object(&request)
        })
    }));
    cloud.connect(1);
    let stage = Stage::new(cloud.clone());
    let mut pod = script("web", "cat token/token; echo; sleep 1000");
    pod["spec"]["volumes"] = json!([{"name": "t", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "t", "mountPath": "/token"}]);
    stage.put(&ResourceType::Pod, &pod).await;
    let agent = stage.agent().await;
    agent.sees("web", "running", is_running).await;
    agent.logged("web", "abc.def.ghi").await;
    let query = cloud.got("query", is(&Operation::Query, "shop/serviceaccounttoken/default")).await;
    let request: Value = query.content.parse().unwrap();
    assert_eq!(request["spec"]["boundObjectRef"]["uid"], "uid-web");
    assert_eq!(request["spec"]["expirationSeconds"], 3607);
    stage.remove(&ResourceType::Pod, "web").await;
    agent.misses("web").await;
    let tokens = kubeedge_core::meta::Selector::all(Collection::from(&ResourceType::ServiceAccountToken));
    assert_eq!(stage.store.list(tokens).await.unwrap(), [], "the token goes with the pod");
}

#[tokio::test]
async fn a_process_that_will_not_end_is_killed_with_its_children() {
    let stage = Stage::new(Cloud::absent());
    let (parent, child) = (stage.dir.path().join("parent"), stage.dir.path().join("child"));
    let text = format!(
        "trap '' TERM; sleep 1000 & echo $! > {}; echo $$$$ > {}; while true; do sleep 0.1; done",
        child.display(),
        parent.display()
    );
    stage.put(&ResourceType::Pod, &script("stubborn", &text)).await;
    let agent = stage.agent().await;
    agent.sees("stubborn", "running", is_running).await;
    let (parent, child) = (pid_in(&parent).await, pid_in(&child).await);
    stage.remove(&ResourceType::Pod, "stubborn").await;
    agent.misses("stubborn").await;
    assert!(!is_alive(parent));
    eventually("the end of the child", || !is_alive(child)).await;
    assert!(!PathBuf::from(format!("/proc/{parent}")).exists(), "not even a zombie is left");
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let stage = Stage::new(Cloud::absent());
    let mut absent = script("absent", "");
    absent["spec"]["restartPolicy"] = json!("Never");
    absent["spec"]["containers"][0]["command"] = json!(["/not/there"]);
    stage.put(&ResourceType::Pod, &absent).await;
    let mut none = script("none", "");
    none["spec"]["containers"][0].as_object_mut().unwrap().remove("command");
    stage.put(&ResourceType::Pod, &none).await;
    let agent = stage.agent().await;
    agent.sees("absent", "failed", |pod| pod.phase == "Failed").await;
    let status = stage.told("absent", |status| status["phase"] == "Failed").await;
    let terminated = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&terminated["exitCode"], &terminated["reason"]), (&json!(128), &json!("StartError")));
    assert!(terminated["message"].as_str().unwrap().contains("\"/not/there\""), "{terminated}");
    agent.sees("none", "refused", |pod| pod.containers[0].state == "CreateContainerError").await;
}

#[tokio::test]
async fn init_containers_prepare_what_the_others_use() {
    let mut stage = Stage::new(Cloud::absent());
    // A relative directory does as well.
    let up: PathBuf = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
    stage.config.root_dir = up.join(stage.config.root_dir.strip_prefix("/").unwrap());
    let mut pod = script("job", "cat work/result; exit 0");
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["volumes"] = json!([{"name": "work", "emptyDir": {}}]);
    let mounts = json!([{"name": "work", "mountPath": "/work"}]);
    pod["spec"]["containers"][0]["volumeMounts"] = mounts.clone();
    pod["spec"]["initContainers"] = json!([{
        "name": "prepare", "image": "native://sh", "volumeMounts": mounts,
        "command": ["/bin/sh", "-c", "echo $0 > $1"], "args": ["$(WORD)", "$(KUBEEDGE_POD_ROOT)/work/result"],
        "env": [{"name": "WORD", "value": "prepared"}],
    }]);
    stage.put(&ResourceType::Pod, &pod).await;
    let agent = stage.agent().await;
    agent.sees("job", "done", |pod| pod.phase == "Succeeded").await;
    agent.logged("job", "prepared").await;
    let status = stage.told("job", |status| status["phase"] == "Succeeded").await;
    assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
}

#[tokio::test]
async fn shutdown_stops_pods_only_if_told_to() {
    let mut stage = Stage::new(Cloud::absent());
    let pid_file = stage.dir.path().join("pid");
    let text = format!("echo $$$$ > {}; exec sleep 1000", pid_file.display());
    stage.put(&ResourceType::Pod, &script("web", &text)).await;
    let runtime = stage.process_runtime().await;
    let agent = stage.agent_on(Arc::clone(&runtime));
    agent.sees("web", "running", is_running).await;
    let pid = pid_in(&pid_file).await;
    agent.stop().await;
    assert!(is_alive(pid), "by default it goes on");
    stage.config = stage.config.clone().stop_pods_on_shutdown(Some(Duration::from_secs(2)));
    let agent = stage.agent_on(runtime);
    agent.sees("web", "running", is_running).await;
    agent.stop().await;
    assert!(!is_alive(pid));
}
