//! The manifests of the examples: read, adapted to the ports of this run, left in the data folder, applied.

use std::{fs, path::Path};

use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, Patch, PatchParams},
    core::{GroupVersionKind, TypeMeta},
};

const BOILER: (&str, &str) = ("boiler.yaml", include_str!("../manifests/boiler.yaml"));
const GREETER: (&str, &str) = ("greeter.yaml", include_str!("../manifests/greeter.yaml"));

/// The objects of one file.
#[derive(Clone, Debug)]
pub struct Manifest {
    objects: Vec<DynamicObject>,
}

/// Which file.
#[derive(Clone, Copy, Debug)]
pub enum File {
    /// A boiler with Modbus TCP.
    Boiler,
    /// A workload with a ConfigMap.
    Greeter,
}

impl Manifest {
    /// Reads a manifest from `from`, or the built-in one, puts `port` into it, and leaves a copy in `to`.
    ///
    /// # Errors
    /// One line with the file and the place in it.
    pub fn prepare(file: File, from: Option<&Path>, to: &Path, port: u16) -> Result<Self, String> {
        let (name, built_in) = match file {
            File::Boiler => BOILER,
            File::Greeter => GREETER,
        };
        let (text, origin) = match from.map(|folder| folder.join(name)) {
            Some(path) => (fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?, path),
            None => (built_in.to_owned(), name.into()),
        };
        // The simulated boiler has a free port, not the one that the file shows.
        let text = text.replace("port: \"1502\"", &format!("port: \"{port}\""));
        let objects = parse(&text).map_err(|error| format!("{}: {error}", origin.display()))?;
        let copy = to.join(name);
        fs::create_dir_all(to).map_err(|error| format!("{}: {error}", to.display()))?;
        fs::write(&copy, text).map_err(|error| format!("{}: {error}", copy.display()))?;
        Ok(Self { objects })
    }

    /// Applies every object, creating or updating it.
    ///
    /// # Errors
    /// What the API answered.
    pub async fn apply(&self, client: &Client) -> Result<(), kube::Error> {
        for object in &self.objects {
            let resource = resource_of(object.types.as_ref());
            let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
            let name = object.metadata.name.as_deref().unwrap_or_default();
            api.patch(name, &PatchParams::apply("quickstart").force(), &Patch::Apply(object)).await?;
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Vec<DynamicObject>, String> {
    let objects: Vec<DynamicObject> =
        serde_saphyr::from_multiple(text).map_err(|error| error.to_string().replace('\n', " "))?;
    for object in &objects {
        if object.types.is_none() || object.metadata.name.is_none() {
            return Err("an object has no apiVersion, kind or metadata.name".into());
        }
    }
    Ok(objects)
}

fn resource_of(types: Option<&TypeMeta>) -> ApiResource {
    let (version, kind) = types.map_or(("v1", ""), |types| (types.api_version.as_str(), types.kind.as_str()));
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_port_of_the_run_is_in_the_copy() {
        let folder = tempfile::tempdir().unwrap();
        Manifest::prepare(File::Boiler, None, folder.path(), 4711).unwrap();
        let copy = fs::read_to_string(folder.path().join("boiler.yaml")).unwrap();
        assert!(copy.contains("port: \"4711\"") && !copy.contains("1502"));
    }

    #[test]
    fn a_bad_file_is_told_by_name_and_place() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("boiler.yaml"), "kind: [Device\n").unwrap();
        let Err(error) = Manifest::prepare(File::Boiler, Some(folder.path()), folder.path(), 1) else {
            panic!("taken for good");
        };
        assert!(error.contains("boiler.yaml") && error.contains("line"), "{error}");
        assert!(!error.contains('\n'), "one line: {error}");
    }
}
