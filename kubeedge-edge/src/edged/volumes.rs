//! Volumes of pods as directories of the host.

mod atomic;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, Pod, Volume, VolumeProjection,
};

use self::atomic::{File, Files};
use super::{
    env::{ConfigError, FieldContext, expand, field},
    inside::make_dirs,
    process::make_private_dir,
    references::{Data, Reference, Sources, TOKEN, token_reference},
    runtime::Mount,
};

/// Mode of files whose volume names none.
const DEFAULT_MODE: i32 = 0o644;

/// What a volume is made of, resolved.
#[derive(Debug)]
enum Source {
    /// Files that we write and keep up to date, in the directory of that plugin.
    Files(&'static str, Files),
    /// A directory that lives as long as the pod.
    Empty,
    /// A path of the host.
    Host(HostPathVolumeSource),
}

/// The volumes of a pod, resolved and not yet written.
#[derive(Debug)]
pub(crate) struct Volumes {
    /// `<root>/pods/<uid>`.
    pod_dir: PathBuf,
    sources: BTreeMap<String, Source>,
}

impl Volumes {
    /// Resolves the volumes of `pod`, without touching the disk.
    ///
    /// # Errors
    /// [`ConfigError`] names what is missing or not supported.
    pub(crate) fn resolve(
        pod: &Pod,
        sources: &Sources,
        context: FieldContext<'_>,
        pod_dir: PathBuf,
    ) -> Result<Self, ConfigError> {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let sources = volumes
            .map(|volume| Ok((segment(&volume.name)?.to_owned(), resolve(pod, volume, sources, context)?)))
            .collect::<Result<_, ConfigError>>()?;
        Ok(Self { pod_dir, sources })
    }

    /// Makes the volumes, or brings them up to date. Blocks.
    pub(crate) fn write(&self) -> io::Result<()> {
        // Secrets are among them.
        make_private_dir(&self.pod_dir)?;
        for (name, source) in &self.sources {
            let path = self.path(name, source);
            match source {
                Source::Files(_, files) => atomic::write(&path, files),
                Source::Empty => fs::create_dir_all(&path)
                    .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o777))),
                Source::Host(host) => check_host_path(host),
            }
            .map_err(|error| io::Error::new(error.kind(), format!("volume {name:?}: {error}")))?;
        }
        Ok(())
    }

    /// Brings the files of ConfigMaps, Secrets and the like up to date; leaves all else alone. Blocks.
    pub(crate) fn refresh(&self) -> io::Result<()> {
        for (name, source) in &self.sources {
            if let Source::Files(_, files) = source {
                atomic::write(&self.path(name, source), files)?;
            }
        }
        Ok(())
    }

    fn path(&self, name: &str, source: &Source) -> PathBuf {
        // As the kubelet lays them out.
        let plugin = match source {
            Source::Files(plugin, _) => plugin,
            Source::Empty => "kubernetes.io~empty-dir",
            Source::Host(host) => return PathBuf::from(&host.path),
        };
        self.pod_dir.join("volumes").join(plugin).join(name)
    }

    /// The mounts of a container. Blocks: paths below volumes are looked at.
    pub(crate) fn mounts(&self, container: &Container, env: &[(String, String)]) -> io::Result<Vec<Mount>> {
        let value = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        container
            .volume_mounts
            .iter()
            .flatten()
            .map(|mount| {
                let source = self.sources.get(&mount.name).ok_or_else(|| {
                    io::Error::other(format!("volume mount {:?} names no volume of the pod", mount.name))
                })?;
                let volume = self.path(&mount.name, source);
                let sub_path = match (&mount.sub_path_expr, &mount.sub_path) {
                    (Some(expression), _) if !expression.is_empty() => expand(expression, value),
                    (_, sub_path) => sub_path.clone().unwrap_or_default(),
                };
                Ok(Mount {
                    container_path: PathBuf::from(&mount.mount_path),
                    host_path: if sub_path.is_empty() { volume } else { below(&volume, &sub_path)? },
                    read_only: mount.read_only.unwrap_or(false),
                })
            })
            .collect()
    }
}

/// `sub_path` in `volume`, made as a directory if it is not there; never outside of the volume.
fn below(volume: &Path, sub_path: &str) -> io::Result<PathBuf> {
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, format!("subPath {sub_path:?} leaves its volume"));
    if !is_inside(Path::new(sub_path)) {
        return Err(refused());
    }
    // A path of the host may not be there yet.
    fs::create_dir_all(volume)?;
    let path = volume.join(sub_path);
    match make_dirs(&path, &[volume]) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(refused()),
        made => made.map(|()| path),
    }
}

/// Whether a path is relative and does not go up.
fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        && path.components().any(|part| matches!(part, Component::Normal(_)))
}

/// A name that is safe as one segment of a path.
pub(crate) fn segment(name: &str) -> Result<&str, ConfigError> {
    // Without `_`, which separates the names in those of log directories.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if name.is_empty() || name.len() > 253 || name.starts_with('.') || !name.chars().all(plain) {
        let shown: String = name.chars().take(64).collect();
        return Err(ConfigError(format!("name {shown:?} cannot be used as a directory")));
    }
    Ok(name)
}

fn resolve(pod: &Pod, volume: &Volume, sources: &Sources, context: FieldContext<'_>) -> Result<Source, ConfigError> {
    let mut files = Files::new();
    if let Some(map) = &volume.config_map {
        let mode = map.default_mode.unwrap_or(DEFAULT_MODE);
        let reference = Reference::ConfigMap(map.name.clone());
        add(&mut files, sources, &reference, map.items.as_deref(), map.optional, mode)?;
        Ok(Source::Files("kubernetes.io~configmap", files))
    } else if let Some(secret) = &volume.secret {
        let mode = secret.default_mode.unwrap_or(DEFAULT_MODE);
        let reference = Reference::Secret(secret.secret_name.clone().unwrap_or_default());
        add(&mut files, sources, &reference, secret.items.as_deref(), secret.optional, mode)?;
        Ok(Source::Files("kubernetes.io~secret", files))
    } else if let Some(downward) = &volume.downward_api {
        let mode = downward.default_mode.unwrap_or(DEFAULT_MODE);
        add_fields(&mut files, pod, downward.items.as_deref(), mode, context)?;
        Ok(Source::Files("kubernetes.io~downward-api", files))
    } else if let Some(projected) = &volume.projected {
        let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
        for source in projected.sources.iter().flatten() {
            add_projection(&mut files, pod, source, sources, mode, context)?;
        }
        Ok(Source::Files("kubernetes.io~projected", files))
    } else if volume.empty_dir.is_some() {
        Ok(Source::Empty)
    } else if let Some(host) = &volume.host_path {
        Ok(Source::Host(host.clone()))
    } else {
        Err(ConfigError(format!("volume {:?} is of a type that is not supported", volume.name)))
    }
}

fn add_projection(
    files: &mut Files,
    pod: &Pod,
    source: &VolumeProjection,
    sources: &Sources,
    mode: i32,
    context: FieldContext<'_>,
) -> Result<(), ConfigError> {
    if let Some(map) = &source.config_map {
        add(files, sources, &Reference::ConfigMap(map.name.clone()), map.items.as_deref(), map.optional, mode)?;
    }
    if let Some(secret) = &source.secret {
        add(files, sources, &Reference::Secret(secret.name.clone()), secret.items.as_deref(), secret.optional, mode)?;
    }
    if let Some(downward) = &source.downward_api {
        add_fields(files, pod, downward.items.as_deref(), mode, context)?;
    }
    if let Some(token) = &source.service_account_token {
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
        let reference = token_reference(account, token.audience.as_deref(), token.expiration_seconds);
        let item = KeyToPath { key: TOKEN.into(), mode: None, path: token.path.clone() };
        add(files, sources, &reference, Some(&[item]), None, mode)?;
    }
    if source.cluster_trust_bundle.is_some() {
        return Err(ConfigError("clusterTrustBundle is not supported".into()));
    }
    Ok(())
}

fn add(
    files: &mut Files,
    sources: &Sources,
    reference: &Reference,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    mode: i32,
) -> Result<(), ConfigError> {
    let optional = optional == Some(true);
    let empty = Data::new();
    let data = match sources.get(reference) {
        Some(data) => data,
        None if optional => &empty,
        None => return Err(ConfigError(format!("{} not found", reference.describe()))),
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, value) in data {
            put(files, key, value.clone(), mode)?;
        }
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(value) => put(files, &item.path, value.clone(), item.mode.unwrap_or(mode))?,
            None if optional => {}
            None => {
                return Err(ConfigError(format!("{} references non-existent key: {}", reference.describe(), item.key)));
            }
        }
    }
    Ok(())
}

fn add_fields(
    files: &mut Files,
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: i32,
    context: FieldContext<'_>,
) -> Result<(), ConfigError> {
    for item in items.unwrap_or_default() {
        let path = item.field_ref.as_ref().map(|field| field.field_path.as_str());
        let value = path
            .and_then(|path| field(pod, path, context))
            .ok_or_else(|| ConfigError(format!("unsupported fieldPath: {}", path.unwrap_or("resourceFieldRef"))))?;
        put(files, &item.path, value.into_bytes(), item.mode.unwrap_or(mode))?;
    }
    Ok(())
}

fn put(files: &mut Files, path: &str, content: Vec<u8>, mode: i32) -> Result<(), ConfigError> {
    // As plain names: `./a` is `a`, and `./..data` is no way around the rule for `..data`.
    let inside: PathBuf = Path::new(path).components().filter(|part| *part != Component::CurDir).collect();
    if !is_inside(Path::new(path)) || inside.to_string_lossy().starts_with("..") {
        return Err(ConfigError(format!("path {path:?} must be relative and must not contain \"..\"")));
    }
    let mode = u32::try_from(mode).unwrap_or(0o644) & 0o777;
    files.insert(inside, File { content, mode });
    Ok(())
}

fn check_host_path(host: &HostPathVolumeSource) -> io::Result<()> {
    let path = Path::new(&host.path);
    if !path.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("hostPath {:?} is not absolute", host.path)));
    }
    match host.type_.as_deref().unwrap_or("") {
        "DirectoryOrCreate" => return fs::create_dir_all(path),
        "FileOrCreate" => {
            return fs::OpenOptions::new().append(true).create(true).open(path).map(drop);
        }
        _ => {}
    }
    let wanted = host.type_.as_deref().unwrap_or("");
    let kind = match fs::metadata(path) {
        Ok(metadata) => metadata.file_type(),
        // Without a type nothing is checked; what is not there may come.
        Err(_) if wanted.is_empty() => return Ok(()),
        Err(error) => return Err(io::Error::new(error.kind(), format!("hostPath {:?}: {error}", host.path))),
    };
    let fits = match wanted {
        "Directory" => kind.is_dir(),
        "File" => kind.is_file(),
        "Socket" => kind.is_socket(),
        "CharDevice" => kind.is_char_device(),
        "BlockDevice" => kind.is_block_device(),
        _ => true,
    };
    if fits {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("hostPath {:?} is not a {wanted}", host.path)))
    }
}

#[cfg(test)]
mod tests;
