//! Running programs, and saying what failed.

use std::{
    fmt,
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

/// Why a command of ours failed.
#[derive(Debug)]
pub enum Error {
    /// A program is not installed, or cannot be started.
    Start(String, std::io::Error),
    /// A program ran and failed; it has said why.
    Failed(String, ExitStatus),
    /// A file.
    File(std::io::Error),
    /// A check of our own.
    Check(String),
}

/// What every step returns.
pub type Result<T = ()> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(command, error) => write!(f, "`{command}` does not start: {error}"),
            Self::Failed(command, status) => write!(f, "`{command}` failed ({status})"),
            Self::File(error) => write!(f, "{error}"),
            Self::Check(message) => f.write_str(message),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::File(error)
    }
}

/// The command as one would type it.
fn typed(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs a program to its end; its output goes straight to the terminal.
pub fn run(command: &mut Command) -> Result {
    let status = command.status().map_err(|error| Error::Start(typed(command), error))?;
    if status.success() { Ok(()) } else { Err(Error::Failed(typed(command), status)) }
}

/// Runs a program to its end and returns its stdout.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stderr(std::process::Stdio::inherit()).output().map_err(|error| Error::Start(typed(command), error))?;
    if output.status.success() { Ok(output.stdout) } else { Err(Error::Failed(typed(command), output.status)) }
}

/// Steps with their times, for the summary at the end.
#[derive(Default)]
pub struct Steps {
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    /// Runs one step under its name.
    pub fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result) -> Result {
        println!("\n== {name}");
        let start = Instant::now();
        let result = work();
        self.done.push((name, start.elapsed()));
        result.inspect_err(|_| println!("== {name}: FAILED after {:.1} s", start.elapsed().as_secs_f64()))
    }

    /// Prints every step with its time.
    pub fn summary(&self) {
        println!("\n{:<44} seconds", "step");
        for (name, time) in &self.done {
            println!("{name:<44} {:>7.1}", time.as_secs_f64());
        }
        println!("{:<44} {:>7.1}", "all", self.done.iter().map(|(_, time)| time.as_secs_f64()).sum::<f64>());
    }
}
