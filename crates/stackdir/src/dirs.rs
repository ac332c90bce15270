use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Where everything lives (XDG; `OBOL_CONFIG_DIR`, `OBOL_DATA_DIR`, `OBOL_STATE_DIR` win).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    /// The stack directory: plain text, safe to keep in git, no secrets.
    pub config: PathBuf,
    /// Journal and secrets.
    pub data: PathBuf,
    /// Lock, control socket, logs.
    pub state: PathBuf,
}

/// Why the directories are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirsError {
    /// Neither `variable` nor anything it could be derived from is set.
    #[error("cannot tell where obol's files are: set {variable}, or HOME")]
    NoHome {
        /// The variable that would help most directly.
        variable: &'static str,
    },
    /// A relative path would mean another place from every working directory.
    #[error("{variable} is `{}`: write an absolute path", value.display())]
    NotAbsolute {
        /// Which one.
        variable: &'static str,
        /// Its value.
        value: PathBuf,
    },
}

impl DirsError {
    /// Stable identifier.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoHome { .. } => "dirs_no_home",
            Self::NotAbsolute { .. } => "dirs_not_absolute",
        }
    }
}

impl Dirs {
    /// From the environment: `OBOL_*_DIR`, else `XDG_*_HOME/obol`, else below `HOME`.
    ///
    /// # Errors
    /// When nothing is set, or an `OBOL_*_DIR` is relative. Relative `XDG_*` are ignored, as the
    /// XDG base directory specification asks.
    pub fn from_env() -> Result<Self, DirsError> {
        Self::from_vars(|name| env::var_os(name))
    }

    /// `root/config`, `root/data` and `root/state`, for tests and `obol quickstart`.
    pub fn under(root: &Path) -> Self {
        Self { config: root.join("config"), data: root.join("data"), state: root.join("state") }
    }

    fn from_vars(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, DirsError> {
        let path = |name: &str| get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let find = |own: &'static str, xdg: &str, home: &str| match path(own) {
            Some(value) if value.is_absolute() => Ok(value),
            Some(value) => Err(DirsError::NotAbsolute { variable: own, value }),
            None => path(xdg)
                .filter(|base| base.is_absolute())
                .or_else(|| path("HOME").filter(|base| base.is_absolute()).map(|base| base.join(home)))
                .map(|base| base.join("obol"))
                .ok_or(DirsError::NoHome { variable: own }),
        };
        Ok(Self {
            config: find("OBOL_CONFIG_DIR", "XDG_CONFIG_HOME", ".config")?,
            data: find("OBOL_DATA_DIR", "XDG_DATA_HOME", ".local/share")?,
            state: find("OBOL_STATE_DIR", "XDG_STATE_HOME", ".local/state")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(vars: &[(&str, &str)]) -> Result<Dirs, DirsError> {
        Dirs::from_vars(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn own_variables_win_then_xdg_then_home() {
        let found = dirs(&[("OBOL_CONFIG_DIR", "/a"), ("XDG_CONFIG_HOME", "/x"), ("XDG_DATA_HOME", "/d"), ("HOME", "/h")]).unwrap();
        assert_eq!(found, Dirs { config: "/a".into(), data: "/d/obol".into(), state: "/h/.local/state/obol".into() });
    }

    #[test]
    fn relative_and_absent_paths() {
        assert_eq!(dirs(&[("HOME", "/h"), ("OBOL_DATA_DIR", "x")]).unwrap_err().code(), "dirs_not_absolute");
        assert_eq!(dirs(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "x")]).unwrap().config, Path::new("/h/.config/obol"));
        assert_eq!(dirs(&[("HOME", "")]).unwrap_err().code(), "dirs_no_home");
    }
}
