//! mosquitto, mosquitto_sub and mosquitto_pub as child processes.

use std::{ffi::OsStr, io, net::TcpListener, path::PathBuf, process::Stdio};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
};

use crate::soon;

/// Finds a program of mosquitto. A machine without it fails the test: it would prove nothing otherwise.
fn find(name: &str) -> PathBuf {
    std::env::var_os("PATH")
        .iter()
        .flat_map(std::env::split_paths)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: apt-get install mosquitto mosquitto-clients"))
}

fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

/// A mosquitto broker.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    pub(crate) folder: TempDir,
    child: Child,
}

impl Mosquitto {
    /// Starts on a free port.
    pub(crate) async fn start() -> Self {
        Self::with("", &[]).await
    }

    /// Starts on a free port with further lines of configuration, in which `{}` is the folder of `files`.
    pub(crate) async fn with(config: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let config = config.replace("{}", folder.path().to_str().unwrap());
        // Another process may take the port between its choice and its use.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let lines =
                format!("user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n{config}\n");
            std::fs::write(folder.path().join("mosquitto.conf"), lines).unwrap();
            if let Ok(child) = spawn(&folder, port).await {
                return Self { port, folder, child };
            }
        }
        panic!("mosquitto does not start");
    }

    pub(crate) fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts again on the same port.
    pub(crate) async fn restart(&mut self) {
        self.child = spawn(&self.folder, self.port).await.unwrap();
    }
}

/// Spawns the broker and waits until it listens.
async fn spawn(folder: &TempDir, port: u16) -> io::Result<Child> {
    let mut command = command(find("mosquitto"));
    command.arg("-c").arg(folder.path().join("mosquitto.conf")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let listening = async {
        loop {
            if child.try_wait()?.is_some() {
                return Err(io::Error::from(io::ErrorKind::AddrInUse));
            }
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    soon("mosquitto listens", listening).await?;
    Ok(child)
}

/// A mosquitto_sub that is subscribed.
pub(crate) struct Sub {
    lines: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Sub {
    /// Starts with `arguments`, and waits for its subscription.
    pub(crate) async fn start(port: u16, arguments: &[&str]) -> Self {
        // It writes whole lines only to a terminal, or if told so.
        let mut command = command("stdbuf");
        command.arg("-oL").arg(find("mosquitto_sub"));
        command.args(["-d", "-h", "127.0.0.1", "-p", &port.to_string(), "-F", "got %t %q %r %p"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut sub = Self { lines, child };
        sub.line("Subscribed").await;
        sub
    }

    async fn line(&mut self, start: &str) -> String {
        loop {
            let line = soon("a line of mosquitto_sub", self.lines.next_line()).await.unwrap();
            let line = line.unwrap_or_else(|| panic!("mosquitto_sub has ended without {start:?}"));
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim().to_owned();
            }
        }
    }

    /// The next message: topic, QoS, retained flag, payload.
    pub(crate) async fn next(&mut self) -> String {
        self.line("got").await
    }

    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Runs mosquitto_pub and waits for its success.
pub(crate) async fn publish(port: u16, arguments: &[&str]) {
    assert!(publishes(port, arguments).await, "{arguments:?}");
}

/// Runs mosquitto_pub and waits for its failure.
pub(crate) async fn fail_to_publish(port: u16, arguments: &[&str]) {
    assert!(!publishes(port, arguments).await, "{arguments:?}");
}

async fn publishes(port: u16, arguments: &[&str]) -> bool {
    let mut command = command(find("mosquitto_pub"));
    command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(arguments);
    soon("mosquitto_pub", command.status()).await.unwrap().success()
}
