//! The node's own files: folders, the lock, the control socket.

use std::{
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

use crate::{NodeError, control::SOCKET};

/// Longest path of a Unix socket on Linux, without the closing zero (`sun_path`).
const MAX_SOCKET_PATH: usize = 107;

/// Makes a folder that only its owner can enter.
pub(crate) fn make_private(folder: &Path) -> Result<(), NodeError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| NodeError::File { path: folder.to_owned(), source })
}

/// Held by the one node of a state directory; the system frees it when the process ends, however
/// it ends.
pub(crate) struct Lock {
    _file: std::fs::File,
}

impl Lock {
    pub(crate) fn take(state: &Path) -> Result<Self, NodeError> {
        let path = state.join("node.lock");
        let failed = |source| NodeError::File { path: path.clone(), source };
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(NodeError::AlreadyRunning(state.to_owned())),
            Err(errno) => Err(failed(errno.into())),
        }
    }
}

/// The control socket's listener; the file goes when it is dropped.
pub(crate) struct ControlSocket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Binds beside the final name and renames over it, so that a socket left by a killed node is
    /// replaced at once and nobody ever sees one with other rights. The lock must be held.
    pub(crate) fn bind(state: &Path) -> Result<Self, NodeError> {
        let path = state.join(SOCKET);
        let fresh = state.join(format!("{SOCKET}.new"));
        if fresh.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(NodeError::SocketPath(path));
        }
        let failed = |source| NodeError::File { path: path.clone(), source };
        match fs_err::remove_file(&fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh).map_err(failed)?;
        fs_err::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        fs_err::rename(&fresh, &path).map_err(failed)?;
        Ok(Self { listener, path })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs_err::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_has_one_holder_and_is_free_again_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        assert_eq!(Lock::take(folder.path()).err().map(|e| e.code()), Some("already_running"));
        drop(lock);
        assert!(Lock::take(folder.path()).is_ok());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_only_its_owner_may_open_it() {
        let folder = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(folder.path().join(SOCKET)).unwrap());
        let socket = ControlSocket::bind(folder.path()).unwrap();
        let path = folder.path().join(SOCKET);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(tokio::net::UnixStream::connect(&path).await.is_ok());
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_path_too_long_for_a_socket_is_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(120));
        make_private(&deep).unwrap();
        assert_eq!(ControlSocket::bind(&deep).err().map(|e| e.code()), Some("socket_path"));
        assert_eq!(std::fs::metadata(&deep).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
