//! What the machine tells about itself.

use std::{fs, path::Path};

/// What does not change while the machine runs.
#[derive(Clone, Debug, Default)]
pub(super) struct HostFacts {
    pub(super) cpus: usize,
    pub(super) memory_kib: u64,
    pub(super) machine_id: String,
    pub(super) system_uuid: String,
    pub(super) boot_id: String,
    pub(super) kernel: String,
    pub(super) os_image: String,
}

impl HostFacts {
    pub(super) fn read() -> Self {
        let line = |path: &str| fs::read_to_string(path).map_or_else(|_| String::new(), |text| text.trim().to_owned());
        let machine_id = line("/etc/machine-id");
        let system_uuid = match line("/sys/class/dmi/id/product_uuid") {
            uuid if uuid.is_empty() => machine_id.clone(),
            uuid => uuid,
        };
        Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kib: meminfo("MemTotal").unwrap_or(0),
            machine_id,
            system_uuid,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            os_image: os_image(&line("/etc/os-release")),
        }
    }
}

/// What changes all the time, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HostLoad {
    /// `None` if unknown.
    pub(super) memory_left: Option<u64>,
    pub(super) disk: u64,
    pub(super) disk_left: u64,
}

impl HostLoad {
    /// Reads the present load; the disk is that of `root`, or of the nearest directory above it that there is.
    pub(super) fn read(root: &Path) -> Self {
        let disk = root.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok());
        let kib = |blocks: u64| disk.as_ref().map_or(0, |disk| blocks.saturating_mul(disk.f_frsize) / 1024);
        Self {
            memory_left: meminfo("MemAvailable"),
            disk: kib(disk.as_ref().map_or(0, |disk| disk.f_blocks)),
            disk_left: kib(disk.as_ref().map_or(0, |disk| disk.f_bavail)),
        }
    }
}

fn meminfo(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or("Linux", |name| name.trim_matches('"')).to_owned()
}

/// Architecture as Go programs spell it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linux_host_knows_itself() {
        let facts = HostFacts::read();
        assert!(facts.cpus > 0 && facts.memory_kib > 0 && !facts.kernel.is_empty() && !facts.boot_id.is_empty());
        let load = HostLoad::read(Path::new("/not/there/yet"));
        assert!(load.disk >= load.disk_left && load.disk > 0);
        assert_eq!(os_image("ID=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\""), "Debian GNU/Linux 12 (bookworm)");
    }
}
