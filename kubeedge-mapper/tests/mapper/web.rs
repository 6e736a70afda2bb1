//! Python's http.server as a child process.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

/// A server that is not ours, ended when it is dropped.
pub(crate) struct Web {
    child: Child,
    pub(crate) port: u16,
}

impl Web {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With the files of a certificate and a key it speaks TLS.
    pub(crate) fn with(files: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http_server.py");
        let mut command = Command::new("python3");
        command.arg(script).args(files).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this test needs python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().expect("the server says its port") }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
