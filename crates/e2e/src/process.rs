//! Child processes that end with their owner and leave a log behind.

use std::{
    fmt,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

/// Everything a child has printed so far, by line.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

/// A running child; killed by its id and waited for when dropped. While a test panics its last
/// lines are shown.
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.child.id())
    }
}

impl Process {
    /// Starts `command`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({command:?}): {error}"));
        let log = Arc::new(Log::default());
        follow(child.stdout.take().expect("stdout is piped"), Arc::clone(&log));
        follow(child.stderr.take().expect("stderr is piped"), Arc::clone(&log));
        Self { name: name.to_owned(), child, log }
    }

    /// Waits for the first printed line from which `find` returns something.
    ///
    /// # Panics
    /// After `patience`, or when the child has ended without such a line.
    pub fn wait_for<T>(&mut self, patience: Duration, find: impl Fn(&str) -> Option<T>) -> T {
        let end = Instant::now() + patience;
        let mut seen = 0;
        loop {
            let lines = self.log.lines.lock().expect("no reader panics");
            let (lines, _) = self.log.grown.wait_timeout(lines, Duration::from_millis(100)).expect("no reader panics");
            if let Some(found) = lines[seen..].iter().find_map(|line| find(line)) {
                return found;
            }
            seen = lines.len();
            drop(lines);
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "{} ended early ({ended:?}):\n{}", self.name, self.tail());
            assert!(Instant::now() < end, "{} did not get ready within {patience:?}:\n{}", self.name, self.tail());
        }
    }

    /// The URL that the testbed's servers print as one JSON line once they listen.
    pub fn wait_for_url(&mut self) -> String {
        self.wait_for(Duration::from_secs(60), |line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(line.get("url")?.as_str()?.to_owned())
        })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Ends it at once (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The largest resident set size so far, in KiB (`VmHWM`).
    pub fn peak_memory_kib(&self) -> u64 {
        let status = fs_err::read_to_string(format!("/proc/{}/status", self.id())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux reports VmHWM");
        line.trim().trim_end_matches(" kB").parse().expect("VmHWM is a number of kB")
    }

    /// Its last lines.
    pub fn tail(&self) -> String {
        let lines = self.log.lines.lock().expect("no reader panics");
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- last lines of {} ---\n{}", self.name, self.tail());
        }
    }
}

fn follow(source: impl Read + Send + 'static, log: Arc<Log>) {
    thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            log.lines.lock().expect("no reader panics").push(line);
            log.grown.notify_all();
        }
    });
}
