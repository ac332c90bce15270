//! `stack.yaml` and what stands beside it.

use std::path::{Path, PathBuf};

use crate::{
    Change, Diagnostic, StackConfig, StackDir, StackError, WriteLock, atomic, credentials, edit, facilitators, journal, networks,
    parse::broken_rule,
    stack::{StackFile, decode_stack, parse_stack},
    write::{broken, io_error, to_value, updated},
};

const STACK: &str = "stack.yaml";

/// What [`StackDir::init`] found and did.
#[derive(Clone, Debug)]
pub struct InitOutcome {
    /// The configuration in force: the existing one if there was one.
    pub config: StackConfig,
    /// Whether `stack.yaml` was written; `false` when it was there already.
    pub created: bool,
    /// Files written, relative to the stack directory.
    pub written: Vec<PathBuf>,
    /// Generated files that were edited and so left alone.
    pub warnings: Vec<Diagnostic>,
}

impl StackDir {
    /// Whether there is a `stack.yaml`.
    pub fn exists(&self) -> bool {
        self.root().join(STACK).exists()
    }

    /// The stack's configuration.
    ///
    /// # Errors
    /// Everything that is wrong with `stack.yaml`, or `stack_missing`.
    pub fn stack(&self) -> Result<StackConfig, Vec<Diagnostic>> {
        let file = Path::new(STACK);
        match self.read_text(file) {
            Ok(text) => {
                let config = parse_stack(&text, file)?;
                let mut inside = networks::inside(&config.networks, self.root());
                inside.extend(journal::inside(&config.journal, self.root()));
                inside.extend(facilitators::inside(&config.facilitators, self.root()));
                inside.extend(credentials::inside(&config.credentials, self.root()));
                let Ok((root, _)) = decode_stack(&text) else { return Ok(config) };
                let found: Vec<_> = inside.into_iter().map(|violation| broken_rule(&root, violation).in_file(file)).collect();
                if found.is_empty() { Ok(config) } else { Err(found) }
            }
            Err(None) => {
                let message = format!("{} is no stack directory", self.root().display());
                Err(vec![Diagnostic::file(file, "stack_missing", message, "run `obol stack init`, or set OBOL_CONFIG_DIR")])
            }
            Err(Some(problem)) => Err(vec![problem]),
        }
    }

    /// Makes a stack directory, or completes one: `stack.yaml` (never overwritten), the root
    /// helmfile, the charts, `applications/`. Takes the lock itself. An empty `config.id` gets a
    /// generated one.
    ///
    /// # Errors
    /// [`StackError::Broken`] when an existing `stack.yaml` is wrong, [`StackError::Invalid`] when
    /// `config` is, [`StackError::Locked`] and [`StackError::Io`].
    pub fn init(&self, config: &StackConfig) -> Result<InitOutcome, StackError> {
        let lock = self.lock()?;
        let created = !self.exists();
        let mut written = Vec::new();
        if created {
            let mut config = config.clone();
            if config.id.is_empty() {
                config.id = format!("stack-{:08x}", rand::random::<u32>());
            }
            self.put_stack(&lock, &config)?;
            written.push(PathBuf::from(STACK));
        }
        let config = self.stack().map_err(|diagnostics| StackError::Broken { file: STACK.into(), diagnostics })?;
        let applications = self.root().join("applications");
        atomic::create_dirs(&applications).map_err(io_error("make the folder", &applications))?;
        let (assets, warnings) = self.write_generated()?;
        written.extend(assets);
        Ok(InitOutcome { config, created, written, warnings })
    }

    /// Writes `stack.yaml`; in an existing file only what differs is touched.
    ///
    /// # Errors
    /// As [`StackDir::put`].
    pub fn put_stack(&self, _lock: &WriteLock, config: &StackConfig) -> Result<Change, StackError> {
        let file = Path::new(STACK);
        let wanted = StackFile::from(config);
        let value = to_value(&wanted, file)?;
        let base =
            StackFile::from(&StackConfig { id: config.id.clone(), listen: config.listen, admin: config.admin, ..Default::default() });
        let template = include_str!("templates/stack.yaml")
            .replace("{id}", &crate::scalar::write_text(&config.id))
            .replace("{listen}", &crate::scalar::quote(&config.listen.to_string()))
            .replace("{admin}", &crate::scalar::quote(&config.admin.to_string()));
        let fresh = edit::edit(&template, &to_value(&base, file)?, &value).unwrap_or_else(|| edit::fresh("", &value));
        parse_stack(&fresh, file).map_err(|diagnostics| StackError::Invalid { file: file.to_owned(), diagnostics })?;
        let change = match self.read_text(file) {
            Err(None) => Change::Created { text: fresh },
            Err(Some(problem)) => return Err(StackError::Broken { file: file.to_owned(), diagnostics: vec![problem] }),
            Ok(before) => {
                let (_, current) = decode_stack(&before).map_err(|findings| broken(file, findings))?;
                if parse_stack(&before, file).is_ok_and(|current| current == *config) {
                    return Ok(Change::Unchanged);
                }
                let says_it = |text: &String| parse_stack(text, file).is_ok_and(|found| found == *config);
                let (after, rewritten) = match edit::edit(&before, &to_value(&current, file)?, &value).filter(says_it) {
                    Some(after) => (after, false),
                    None => (edit::fresh(edit::head_of(&before), &value), true),
                };
                updated(file, before, after, rewritten)
            }
        };
        if let Change::Created { text } | Change::Updated { after: text, .. } = &change {
            let path = self.root().join(file);
            let path = path.canonicalize().unwrap_or(path);
            atomic::write_file(&path, text.as_bytes()).map_err(io_error("write", &path))?;
        }
        Ok(change)
    }
}
