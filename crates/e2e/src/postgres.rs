//! A real PostgreSQL with a database of its own, which can be ended and started again.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{process::Process, stack::free_address};

/// Who owns the server's files when the tests run as root, which the server refuses.
const NOBODY: u32 = 65_534;
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server on loopback; its files go with it.
#[derive(Debug)]
pub struct Postgres {
    address: SocketAddr,
    folder: TempDir,
    server: Option<Process>,
}

impl Postgres {
    /// Makes a database and starts its server.
    ///
    /// # Panics
    /// When PostgreSQL is not installed, or does not start.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("obol-pg-").tempdir().expect("a temporary folder");
        if is_root() {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("root may give a folder away");
        }
        let mut initdb = program("initdb", folder.path());
        let made = initdb.args(["--auth=trust", "--username=obol", "--encoding=UTF8", "--no-locale", "--no-instructions", "-D"]);
        let made = made.arg(folder.path().join("data")).output().expect("initdb starts");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut this = Self { address: free_address(), folder, server: None };
        this.up();
        this
    }

    /// Starts the server again.
    ///
    /// # Panics
    /// When it does not start.
    pub fn up(&mut self) {
        let mut command = program("postgres", self.folder.path());
        command.arg("-D").arg(self.folder.path().join("data")).arg("-k").arg(self.folder.path());
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=16MB", "-c", "max_connections=60"]);
        command.args(["-p", &self.address.port().to_string()]);
        let mut server = Process::start("postgres", &mut command);
        server.wait_for(PATIENCE, |line| line.contains("ready to accept connections").then_some(()));
        self.server = Some(server);
    }

    /// Ends the server as a crash would (SIGQUIT): no session is ended cleanly, and what was not
    /// durable is lost.
    ///
    /// # Panics
    /// When it does not end.
    pub fn crash(&mut self) {
        if let Some(mut server) = self.server.take() {
            let id = rustix::process::Pid::from_raw(server.id().cast_signed()).expect("a process id");
            rustix::process::kill_process(id, rustix::process::Signal::QUIT).expect("the server runs");
            let end = std::time::Instant::now() + PATIENCE;
            while server.is_running() {
                assert!(std::time::Instant::now() < end, "the server does not end:\n{}", server.tail());
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// URL of the database.
    pub fn url(&self) -> String {
        format!("postgres://obol@{}/postgres", self.address)
    }

    /// What `psql` prints for a query, without decoration.
    ///
    /// # Panics
    /// When it fails.
    pub fn query(&self, sql: &str) -> String {
        let output = Command::new(find("psql")).args(["-AtX", "-v", "ON_ERROR_STOP=1", "-c", sql]).arg(self.url()).output();
        let output = output.expect("psql starts");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A killed postmaster would leave its children behind.
        self.crash();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program of the server, as a user that it accepts, in a folder that this user may enter.
fn program(name: &str, folder: &Path) -> Command {
    let path = find(name);
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &NOBODY.to_string(), "--regid", &NOBODY.to_string(), "--clear-groups"]).arg(path);
        command
    } else {
        Command::new(path)
    };
    command.current_dir(folder).env("HOME", folder).env("LC_ALL", "C");
    command
}

/// Debian keeps the server's programs out of `PATH`; of several versions the newest is taken.
fn find(name: &str) -> PathBuf {
    let versions = fs_err::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<_> = versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).collect();
    found.sort();
    let in_path = || {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.exists())
    };
    found.pop().or_else(in_path).unwrap_or_else(|| panic!("{name} is missing; install the package postgresql"))
}
