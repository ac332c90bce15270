use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{StackError, atomic};

/// The right to change the stack directory, held until dropped. The system gives it back when the
/// process dies, so it never goes stale.
#[derive(Debug)]
pub struct WriteLock {
    _file: File,
}

impl WriteLock {
    pub(crate) fn take(root: &Path, patience: Duration) -> Result<Self, StackError> {
        let path = root.join(".lock");
        let io = |action| {
            let path = path.clone();
            move |source| StackError::Io { action, path, source }
        };
        atomic::create_dirs(root).map_err(io("make the folder of"))?;
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(io("open"))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
                Err(TryLockError::WouldBlock) if begun.elapsed() >= patience => {
                    return Err(StackError::Locked { path, waited: begun.elapsed() });
                }
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}
