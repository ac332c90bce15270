//! A person at a terminal: the program at one end of a pseudo terminal, the test at the other.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::{Child, Command},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::support::wait;

pub const ENTER: &str = "\r";
pub const DOWN: &str = "\u{1b}[B";
pub const ESCAPE: &str = "\u{1b}";

/// A command on a terminal of 200 columns; killed when dropped.
pub struct Terminal {
    child: Child,
    keys: File,
    seen: Arc<Mutex<Vec<u8>>>,
    reading: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Runs a command there: it reads, prints and complains at the terminal.
    pub fn run(mut command: Command) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        tcsetwinsize(&ours, Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let its = rustix::fs::open(ptsname(&ours, Vec::new()).unwrap(), flags, Mode::empty()).unwrap();
        let keys = File::from(ours);
        let mut screen = keys.try_clone().unwrap();
        let child =
            command.env("TERM", "xterm").stdin(its.try_clone().unwrap()).stdout(its.try_clone().unwrap()).stderr(its).spawn().unwrap();
        // It holds the terminal too; what there is to read ends when nobody does.
        drop(command);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        let reading = thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end is an error (EIO) on Linux.
            while let Ok(read @ 1..) = screen.read(&mut buffer) {
                shared.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Self { child, keys, seen, reading: Some(reading) }
    }

    /// What has been printed, without colours and movements.
    pub fn shown(&self) -> String {
        let seen = self.seen.lock().unwrap();
        anstream::adapter::strip_str(&String::from_utf8_lossy(&seen)).to_string().replace("\r\n", "\n")
    }

    /// Waits until it has printed this.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        wait(&format!("`{text}` is shown"), || self.shown().contains(text));
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str) {
        self.keys.write_all(key.as_bytes()).unwrap();
    }

    /// Its exit code, and all that was printed.
    #[track_caller]
    pub fn end(mut self) -> (i32, String) {
        let mut ended = None;
        wait("the program ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        self.reading.take().unwrap().join().unwrap();
        (ended.and_then(|status| status.code()).unwrap_or(-1), self.shown())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
