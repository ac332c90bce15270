//! Runs the binary away from the machine's own files, and shows what it did in a stable form.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

pub const SELLER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

/// A stack of its own, gone when dropped.
pub struct Stack {
    root: TempDir,
}

/// What a command did.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Stack {
    /// No stack directory yet.
    pub fn empty() -> Self {
        Self { root: TempDir::new().unwrap() }
    }

    /// A stack that sells on base-sepolia by default.
    pub fn new() -> Self {
        Self::on("base-sepolia")
    }

    pub fn on(network: &str) -> Self {
        let stack = Self::empty();
        stack.ok(&["stack", "init", "--network", network, "--pay-to", SELLER, "--facilitator", "https://facilitator.example"]);
        stack
    }

    /// A stack with the offer `weather`.
    pub fn with_offer() -> Self {
        let stack = Self::new();
        stack.ok(&["sell", "http", "weather", "--upstream", "http://localhost:9000", "--price", "0.001"]);
        stack
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    pub fn values(&self, name: &str) -> PathBuf {
        self.path(&format!("config/applications/sell-http/{name}/values-offer.yaml"))
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_obol"));
        command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.path("home"));
        for (name, folder) in [("OBOL_CONFIG_DIR", "config"), ("OBOL_DATA_DIR", "data"), ("OBOL_STATE_DIR", "state")] {
            command.env(name, self.path(folder));
        }
        command.env("TMPDIR", self.root.path()).stdin(Stdio::null()).current_dir(self.root.path());
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        self.run_with(args, |_| ())
    }

    pub fn run_with(&self, args: &[&str], change: impl FnOnce(&mut Command)) -> Run {
        let mut command = self.command(args);
        change(&mut command);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| self.stable(&String::from_utf8_lossy(bytes));
        Run { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    pub fn run_stdin(&self, args: &[&str], input: &str) -> Run {
        fs::write(self.path("stdin"), input).unwrap();
        let file = fs::File::open(self.path("stdin")).unwrap();
        let run = self.run_with(args, |command| {
            command.stdin(file);
        });
        fs::remove_file(self.path("stdin")).unwrap();
        run
    }

    /// Must succeed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> Run {
        let run = self.run(args);
        assert_eq!(run.code, 0, "obol {}\n{}{}", args.join(" "), run.stdout, run.stderr);
        run
    }

    /// Must succeed and answer with JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let run = self.ok(&[args, &["--output", "json"]].concat());
        serde_json::from_str(&run.stdout).unwrap()
    }

    /// Every file below the stack directory with its content.
    pub fn tree(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(&self.path("config"), &mut files);
        files
    }

    /// What differs from run to run is replaced.
    pub fn stable(&self, text: &str) -> String {
        let text = text.replace(&self.root.path().display().to_string(), "[ROOT]");
        let text = text.replace(&format!("\"{}\"", env!("CARGO_PKG_VERSION")), "\"[VERSION]\"");
        match text.find("stack-").filter(|at| text[at + 6..].chars().take(8).all(|c| c.is_ascii_hexdigit())) {
            Some(at) if text.len() >= at + 14 => format!("{}stack-[ID]{}", &text[..at], &text[at + 14..]),
            _ => text,
        }
    }

    /// The node in the foreground of a child process, once it has said where it listens.
    #[track_caller]
    pub fn up(&self) -> Node {
        let mut command = self.command(&["stack", "up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--output", "json"]);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("node.log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut text = String::new();
        while let Some(Ok(line)) = lines.next() {
            text.push_str(&line);
            if line == "}" {
                break;
            }
        }
        let log = || fs::read_to_string(self.path("node.log")).unwrap_or_default();
        let said: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("the node said `{text}`\n{}", log()));
        let listen = said["listen"].as_str().unwrap().parse().unwrap();
        let node = Node { child, listen };
        wait("the node is ready", || self.json(&["stack", "status"])["node"]["ready"] == true);
        node
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}

impl Run {
    /// For snapshots.
    pub fn shown(&self) -> String {
        let mut text = format!("exit {}\n", self.code);
        for (name, out) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !out.is_empty() {
                writeln!(text, "--- {name}\n{}", out.trim_end()).unwrap();
            }
        }
        text
    }

    /// The code of the first problem, of a run with `--output json`.
    #[track_caller]
    pub fn error_code(&self) -> String {
        let error = self.stderr.lines().find_map(|line| serde_json::from_str::<Value>(line).ok()).unwrap_or_default();
        error["error"]["code"].as_str().unwrap_or_else(|| panic!("no error in: {}", self.stderr)).to_owned()
    }
}

/// A running node; killed when dropped.
pub struct Node {
    pub child: Child,
    pub listen: SocketAddr,
}

impl Node {
    /// An unpaid `GET`.
    pub fn get(&self, path: &str) -> Answer {
        get(self.listen, path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Like `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end that somebody else has asked for.
    pub fn ended(mut self) -> i32 {
        let mut code = None;
        wait("the node ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|status| status.code()).unwrap_or(-1)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP answer.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A plain HTTP/1.1 request, so that no client's cleverness stands between test and node.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Ok(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}

/// A service that answers every request with `200 hello`; it lives as long as the test process.
pub fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    port
}

fn answer(mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while let Some(Ok(line)) = lines.next() {
        if line.is_empty() && stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello").is_err() {
            return;
        }
    }
}

/// Until it is so; panics after 20 s.
#[track_caller]
pub fn wait(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Snapshots of all modules in one folder.
#[macro_export]
macro_rules! golden {
    ($name:expr, $text:expr) => {
        insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!($name, $text);
        });
    };
}
