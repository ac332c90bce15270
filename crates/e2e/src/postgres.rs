//! A real PostgreSQL with a database of its own, which can be ended and started again.

use std::{
    io::Write as _,
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
/// File of the authority that vouches for an encrypted server.
const AUTHORITY: &str = "ca.pem";
const PASSWORD: &str = "wordpass";

/// A running server on loopback; its files go with it.
#[derive(Debug)]
pub struct Postgres {
    address: SocketAddr,
    folder: TempDir,
    server: Option<Process>,
    is_encrypted: bool,
}

impl Postgres {
    /// Makes a database and starts its server.
    ///
    /// # Panics
    /// When PostgreSQL is not installed, or does not start.
    pub fn start() -> Self {
        let mut this = Self::make(&["--auth=trust"]);
        this.up();
        this
    }

    /// As [`Postgres::start`], with a server that wants a password and TLS. Its certificate is for 127.0.0.1, by an
    /// authority that only the [URL](Self::url) names.
    ///
    /// # Panics
    /// As [`Postgres::start`], and without `openssl`.
    pub fn encrypted() -> Self {
        let mut this = Self::make(&["--auth-local=trust", "--auth-host=scram-sha-256"]);
        let path = |name: &str| this.folder.path().join(name);
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let authority = ["-subj", "/CN=An authority", "-keyout", "ca.key", "-out", AUTHORITY];
        let server = [
            ["-subj", "/CN=A database", "-keyout", "data/server.key", "-out", "data/server.crt"].as_slice(),
            &["-CA", AUTHORITY, "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"],
            &["-addext", "subjectAltName=IP:127.0.0.1"],
        ];
        for more in [authority.to_vec(), server.concat()] {
            let made = program(Path::new("openssl"), this.folder.path()).args(new).args(more).output().expect("openssl starts");
            assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        }
        fs_err::write(path("data/pg_hba.conf"), "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n").expect("a file");
        let mut settings = fs_err::OpenOptions::new().append(true).open(path("data/postgresql.conf")).expect("initdb made it");
        settings.write_all(b"ssl = on\n").expect("a file");
        this.is_encrypted = true;
        this.up();
        this
    }

    fn make(auth: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("obol-pg-").tempdir().expect("a temporary folder");
        if is_root() {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("root may give a folder away");
        }
        fs_err::write(folder.path().join("password"), PASSWORD).expect("a file");
        let mut initdb = program(&find("initdb"), folder.path());
        let made =
            initdb.args(auth).args(["--pwfile=password", "--username=obol", "--encoding=UTF8", "--no-locale", "--no-instructions", "-D"]);
        let made = made.arg(folder.path().join("data")).output().expect("initdb starts");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        Self { address: free_address(), folder, server: None, is_encrypted: false }
    }

    /// Starts the server again.
    ///
    /// # Panics
    /// When it does not start.
    pub fn up(&mut self) {
        let mut command = program(&find("postgres"), self.folder.path());
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

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL of the database.
    pub fn url(&self) -> String {
        if self.is_encrypted {
            let authority = self.folder.path().join(AUTHORITY);
            return format!("postgres://obol:{PASSWORD}@{}/postgres?sslmode=verify-full&sslrootcert={}", self.address, authority.display());
        }
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
fn program(path: &Path, folder: &Path) -> Command {
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
