//! Kubeconfig files for kubectl and other clients.

use std::{
    io::{self, Write as _},
    path::Path,
};

use base64::Engine as _;

/// A kubeconfig with one cluster, one user and one context, all named `kubeedge`.
pub fn kubeconfig(server_url: &str, ca_pem: &str, token: &str) -> String {
    let ca = base64::engine::general_purpose::STANDARD.encode(ca_pem);
    // JSON strings are YAML strings, whatever is in them.
    let (server, token) = (serde_json::Value::from(server_url), serde_json::Value::from(token));
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: kubeedge\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {ca}\nusers:\n- name: kubeedge\n  user:\n    token: {token}\ncontexts:\n\
         - name: kubeedge\n  context:\n    cluster: kubeedge\n    user: kubeedge\ncurrent-context: kubeedge\n"
    )
}

/// Writes a [`kubeconfig`] that only its owner can read, replacing the file as a whole.
///
/// The folder must exist. Blocks on the file system.
pub fn write_kubeconfig(path: &Path, server_url: &str, ca_pem: &str, token: &str) -> io::Result<()> {
    super::tls::write_private(path, |file| file.write_all(kubeconfig(server_url, ca_pem, token).as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn kube_reads_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        write_kubeconfig(&path, "https://127.0.0.1:6443", "PEM", "secret").unwrap();
        let read = kube::config::Kubeconfig::read_from(&path).unwrap();
        assert_eq!(read.current_context.as_deref(), Some("kubeedge"));
        assert_eq!(read.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://127.0.0.1:6443"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
