//! The programs that a pass runs: those in `$OBOL_DATA_DIR/bin`, else those on `PATH`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use super::ClusterError;

/// Helm and helmfile, as found.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    pub(super) helm: PathBuf,
    pub(super) helmfile: PathBuf,
}

/// A program, its oldest usable version, the one that is tested, and where it comes from.
struct Wanted {
    name: &'static str,
    least: (u32, u32),
    tested: &'static str,
    from: &'static str,
}

const HELM: Wanted = Wanted { name: "helm", least: (4, 0), tested: "4.2.4", from: "https://get.helm.sh/helm-v4.2.4-linux-amd64.tar.gz" };
const HELMFILE: Wanted = Wanted {
    name: "helmfile",
    least: (1, 1),
    tested: "1.8.0",
    from: "https://github.com/helmfile/helmfile/releases/download/v1.8.0/helmfile_1.8.0_linux_amd64.tar.gz",
};

impl Tools {
    /// Finds both and asks for their versions.
    pub(super) async fn find(data: &Path) -> Result<Self, ClusterError> {
        let (helm, helmfile) = tokio::try_join!(usable(&HELM, &["version", "--short"], data), usable(&HELMFILE, &["--version"], data))?;
        Ok(Self { helm, helmfile })
    }
}

async fn usable(wanted: &Wanted, version: &[&str], data: &Path) -> Result<PathBuf, ClusterError> {
    let problem = |cause: String| ClusterError::Program { program: wanted.name, cause, fix: how_to_get(wanted, data) };
    let path = find(wanted.name, data).ok_or_else(|| problem("is not installed".to_owned()))?;
    let output = Command::new(&path).args(version).stdin(Stdio::null()).output().await;
    let text = match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(output) => return Err(problem(format!("({}) does not work: {}", path.display(), output.status))),
        Err(error) => return Err(problem(format!("({}) does not start: {error}", path.display()))),
    };
    match numbers(&text) {
        Some(found) if found < wanted.least => {
            let (major, minor) = wanted.least;
            Err(problem(format!("({}) is {}, and {major}.{minor} is needed", path.display(), text.trim())))
        }
        // A build of one's own may carry no version.
        _ => Ok(path),
    }
}

fn how_to_get(wanted: &Wanted, data: &Path) -> String {
    let bin = data.join("bin");
    format!(
        "install {name} {tested}, as {bin}/{name} or on PATH: `curl -fsSL {from} | tar -xz` has it",
        name = wanted.name,
        tested = wanted.tested,
        bin = bin.display(),
        from = wanted.from
    )
}

/// A program by name. What was put there for obol goes before what the machine has: an old helm on
/// `PATH` then stands in nobody's way.
pub(super) fn find(name: &str, data: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = std::iter::once(data.join("bin")).chain(env::split_paths(&path));
    folders.find_map(|folder| Some(folder.join(name)).filter(|file| is_program(file)))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// `(major, minor)` of a line like `v4.2.4+g123`.
fn numbers(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().trim_start_matches(|c: char| !c.is_ascii_digit()).split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Runs a program to its end, each line of what it says going to `line` as it comes.
pub(super) async fn run(command: &mut Command, line: &mut (dyn FnMut(&str) + Send)) -> Result<(), ClusterError> {
    let typed = typed(command);
    let failed = |cause: String| ClusterError::Failed { command: typed.clone(), cause };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut out = child.stdout.take().map(|out| BufReader::new(out).lines());
    let mut err = child.stderr.take().map(|err| BufReader::new(err).lines());
    let mut said: Vec<String> = Vec::new();
    while out.is_some() || err.is_some() {
        let text = tokio::select! {
            text = next(&mut out), if out.is_some() => text,
            text = next(&mut err), if err.is_some() => text,
        };
        if let Some(text) = text {
            line(&text);
            said.push(text);
        }
    }
    let status = child.wait().await.map_err(|error| failed(error.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(essence(&said).unwrap_or_else(|| status.to_string()))) }
}

type Lines<R> = Option<tokio::io::Lines<BufReader<R>>>;

/// The next line; the end makes the stream `None`.
async fn next<R: tokio::io::AsyncRead + Unpin>(lines: &mut Lines<R>) -> Option<String> {
    let found = match lines {
        Some(lines) => lines.next_line().await.ok().flatten(),
        None => None,
    };
    if found.is_none() {
        *lines = None;
    }
    found
}

/// What a person needs of many lines: the errors, each once, else the last line.
fn essence(said: &[String]) -> Option<String> {
    let mut errors: Vec<&str> = Vec::new();
    for line in said.iter().map(|line| line.trim()) {
        let is_error = ["Error:", "error:"].iter().any(|word| line.starts_with(word));
        if is_error && !errors.contains(&line) && errors.len() < 5 {
            errors.push(line);
        }
    }
    if errors.is_empty() { said.iter().rev().find(|line| !line.trim().is_empty()).cloned() } else { Some(errors.join("; ")) }
}

fn typed(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_programs_write_them() {
        assert_eq!(numbers("v4.2.4+gabc\n"), Some((4, 2)));
        assert_eq!(numbers("helmfile version v1.8.0"), Some((1, 8)));
        assert_eq!(numbers("v3.14.0"), Some((3, 14)));
        assert_eq!(numbers("dev"), None);
    }

    #[tokio::test]
    async fn what_a_program_says_is_told_line_by_line_and_its_errors_last() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo 'Error: no such thing' >&2; echo two; exit 3"]);
        let error = run(&mut command, &mut |line| lines.push(line.to_owned())).await.unwrap_err();
        lines.sort();
        assert_eq!(lines, ["Error: no such thing", "one", "two"]);
        assert!(error.to_string().ends_with("failed: Error: no such thing"), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_named_with_its_version_and_place() {
        let data = tempfile::tempdir().unwrap();
        let wanted = Wanted { name: "no-such-program", ..HELM };
        let error = usable(&wanted, &["version"], data.path()).await.unwrap_err();
        assert_eq!(error.code(), "program_missing");
        assert!(error.fix().contains("4.2.4") && error.fix().contains("/bin/no-such-program"), "{}", error.fix());
    }

    #[tokio::test]
    async fn a_program_that_is_too_old_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let data = tempfile::tempdir().unwrap();
        let program = data.path().join("bin/old-helm");
        std::fs::create_dir(data.path().join("bin")).unwrap();
        std::fs::write(&program, "#!/bin/sh\necho v3.14.0\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let error = usable(&Wanted { name: "old-helm", ..HELM }, &["version"], data.path()).await.unwrap_err();
        assert!(error.to_string().contains("is v3.14.0, and 4.0 is needed"), "{error}");
    }
}
