#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;

const CONTEXT: FieldContext<'_> = FieldContext { node: "edge-1", host_ip: "192.0.2.1", pod_ip: "192.0.2.1" };

fn pod(volumes: &serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
        "spec": {"containers": [], "volumes": volumes},
    }))
    .unwrap()
}

fn settings(entries: &[(&str, &str)]) -> Sources {
    let data = entries.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
    Sources::from([(Reference::ConfigMap("settings".into()), data)])
}

fn write(dir: &Path, pod: &Pod, sources: &Sources) -> Result<(), ConfigError> {
    let volumes = Volumes::resolve(pod, sources, CONTEXT, dir.to_owned())?;
    volumes.write().map_err(|error| ConfigError(error.to_string()))
}

#[test]
fn an_update_changes_all_files_at_once_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(&json!([{"name": "cfg", "configMap": {"name": "settings", "defaultMode": 0o600}}]));
    let volume = dir.path().join("volumes/kubernetes.io~configmap/cfg");
    write(dir.path(), &pod, &settings(&[("a", "1"), ("b", "1"), ("gone", "x")])).unwrap();
    assert_eq!(fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read_link(volume.join("..data")).unwrap();
    // A reader that holds the old directory sees none of the new files.
    let held = volume.join(&before);
    assert_eq!(fs::read_link(volume.join("a")).unwrap(), Path::new("..data/a"));

    write(dir.path(), &pod, &settings(&[("a", "1"), ("b", "1"), ("gone", "x")])).unwrap();
    assert_eq!(fs::read_link(volume.join("..data")).unwrap(), before, "nothing changed, nothing is written");

    write(dir.path(), &pod, &settings(&[("a", "2"), ("b", "2")])).unwrap();
    assert_ne!(fs::read_link(volume.join("..data")).unwrap(), before);
    assert!(!held.exists());
    let mut names: Vec<_> =
        fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with(".."));
    names.sort();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(fs::read_to_string(volume.join("b")).unwrap(), "2");
}

#[test]
fn a_write_that_was_cut_off_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(&json!([{"name": "cfg", "configMap": {"name": "settings"}}]));
    let volume = dir.path().join("volumes/kubernetes.io~configmap/cfg");
    write(dir.path(), &pod, &settings(&[("a", "1")])).unwrap();
    fs::remove_file(volume.join("a")).unwrap();
    fs::create_dir(volume.join("..999_0")).unwrap();
    std::os::unix::fs::symlink("..999_0", volume.join("..data_tmp")).unwrap();
    write(dir.path(), &pod, &settings(&[("a", "1")])).unwrap();
    assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "1");
    write(dir.path(), &pod, &settings(&[("a", "2")])).unwrap();
    assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "2");
    assert!(!volume.join("..999_0").exists());
}

#[test]
fn items_choose_keys_paths_and_modes() {
    let dir = tempfile::tempdir().unwrap();
    let items = json!([{"key": "a", "path": "./deep/./er/a.txt", "mode": 0o400}]);
    let volumes = json!([{"name": "all", "projected": {"sources": [
        {"configMap": {"name": "settings", "items": items}},
        {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        {"secret": {"name": "absent", "optional": true}},
    ]}}]);
    write(dir.path(), &pod(&volumes), &settings(&[("a", "1"), ("b", "1")])).unwrap();
    let volume = dir.path().join("volumes/kubernetes.io~projected/all");
    assert_eq!(fs::read_to_string(volume.join("deep/er/a.txt")).unwrap(), "1");
    assert_eq!(fs::read_to_string(volume.join("ns")).unwrap(), "shop");
    assert!(!volume.join("b").exists());
}

#[test]
fn paths_that_leave_the_volume_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for path in ["../x", "/etc/x", "..data", "./..data/x", "././..", ".", "a/../../x", ""] {
        let items = json!([{"key": "a", "path": path}]);
        let pod = pod(&json!([{"name": "cfg", "configMap": {"name": "settings", "items": items}}]));
        let error = write(dir.path(), &pod, &settings(&[("a", "1")])).unwrap_err().to_string();
        assert!(error.contains(&format!("{path:?}")), "{error}");
    }
    let evil = pod(&json!([{"name": "..", "emptyDir": {}}]));
    assert!(write(dir.path(), &evil, &Sources::new()).is_err());

    let pod = pod(&json!([{"name": "work", "emptyDir": {}}]));
    let volumes = Volumes::resolve(&pod, &Sources::new(), CONTEXT, dir.path().to_owned()).unwrap();
    volumes.write().unwrap();
    let work = dir.path().join("volumes/kubernetes.io~empty-dir/work");
    std::os::unix::fs::symlink("/etc", work.join("link")).unwrap();
    let mounts = |sub_path: &str| {
        let mounts = json!([{"name": "work", "mountPath": "/w", "subPath": sub_path}]);
        let container = serde_json::from_value(json!({"name": "main", "volumeMounts": mounts})).unwrap();
        volumes.mounts(&container, &[])
    };
    assert_eq!(mounts("a/b").unwrap()[0].host_path, work.join("a/b"));
    assert!(mounts("../x").is_err());
    assert!(mounts("link").is_err());
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), work.join("out")).unwrap();
    assert!(mounts("out/new/er").unwrap_err().to_string().contains("\"out/new/er\""));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "not even made before it is refused");
}

#[test]
fn a_write_that_fails_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let both = json!([{"key": "a", "path": "x"}, {"key": "a", "path": "x/y"}]);
    let pod = pod(&json!([{"name": "cfg", "configMap": {"name": "settings", "items": both}}]));
    for _ in 0..3 {
        assert!(write(dir.path(), &pod, &settings(&[("a", "1")])).is_err());
    }
    let volume = dir.path().join("volumes/kubernetes.io~configmap/cfg");
    assert_eq!(fs::read_dir(volume).unwrap().count(), 0, "it is tried for ever");
}

#[test]
fn unsupported_and_missing_volumes_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = pod(&json!([{"name": "cfg", "configMap": {"name": "settings"}}]));
    let error = write(dir.path(), &missing, &Sources::new()).unwrap_err();
    assert_eq!(error.to_string(), "configmap \"settings\" not found");
    let claim = pod(&json!([{"name": "disk", "persistentVolumeClaim": {"claimName": "x"}}]));
    assert!(write(dir.path(), &claim, &Sources::new()).unwrap_err().to_string().contains("\"disk\""));
    let host = pod(&json!([{"name": "dev", "hostPath": {"path": "/dev/null", "type": "Directory"}}]));
    assert!(write(dir.path(), &host, &Sources::new()).unwrap_err().to_string().contains("not a Directory"));
}
