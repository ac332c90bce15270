use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be used; what was last applied from it goes on.
    #[default]
    Error,
    /// The file is used, but not all of it has an effect.
    Warning,
}

/// Something wrong in a file, for people and for machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    #[serde(default)]
    pub severity: Severity,
    /// File, relative to the stack directory.
    pub file: PathBuf,
    /// 1-based; 0 when the whole file is meant.
    pub line: u32,
    /// 1-based, in characters; 0 when the whole line is meant.
    pub column: u32,
    /// Stable identifier of the rule.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

impl Diagnostic {
    /// An error about a whole file.
    pub fn file(file: impl Into<PathBuf>, code: &str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Finding::new(Place::default(), code, message, fix).in_file(&file.into())
    }

    /// The same, for what does not stop anything.
    pub fn warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }
}

impl fmt::Display for Diagnostic {
    /// `file:line:column: error: message (code)`, and the fix on a line of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, ": {severity}: {} ({})\n  fix: {}", self.message, self.code, self.fix)
    }
}

/// Where something stands in a text, as [`Diagnostic`] counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A [`Diagnostic`] whose file is not known yet.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) place: Place,
    code: String,
    message: String,
    fix: String,
}

impl Finding {
    pub(crate) fn new(place: Place, code: &str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { place, code: code.to_owned(), message: message.into(), fix: fix.into() }
    }

    pub(crate) fn in_file(self, file: &Path) -> Diagnostic {
        let Place { line, column } = self.place;
        Diagnostic { severity: Severity::Error, file: file.to_owned(), line, column, code: self.code, message: self.message, fix: self.fix }
    }
}
