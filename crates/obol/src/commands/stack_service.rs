//! `obol stack install-service`: the node under systemd.

use std::{path::PathBuf, process::Command};

use obol_backend::systemd::{Scope, Unit, unit};
use serde_json::json;

use crate::{
    args::InstallServiceArgs,
    commands::context::Context,
    error::{Error, Problem},
    exit::Exit,
    printer::Printer,
};

/// Writes the unit and makes systemd use it, or takes it away.
pub async fn run(args: &InstallServiceArgs, printer: &Printer) -> Result<Exit, Error> {
    let context = Context::open()?;
    let scope = scope(args.system)?;
    let binary = std::env::current_exe().map_err(|source| Error::io("/proc/self/exe", source))?;
    let unit = unit(&binary, &context.dirs, &scope)
        .map_err(|error| Error::Refused(vec![Problem::new("unit_path", error.to_string(), "choose plain paths for OBOL_*_DIR")]))?;
    if args.dry_run {
        let change = if args.uninstall { "removed" } else { "written" };
        printer.data(&json!({ "path": unit.path, "text": unit.text, "commands": unit.commands, "dryRun": true }), || unit.text.clone());
        printer.hint(&format!("dry run: {} would be {change}", unit.path.display()));
        return Ok(Exit::Done);
    }
    if args.uninstall { uninstall(&unit, args.system, printer) } else { install(&context, &unit, printer) }
}

fn install(context: &Context, unit: &Unit, printer: &Printer) -> Result<Exit, Error> {
    context.need_stack()?;
    // ReadWritePaths must be there when the service starts.
    for folder in [&context.dirs.data, &context.dirs.state] {
        fs_err::create_dir_all(folder).map_err(|source| Error::io(folder, source))?;
    }
    let folder = unit.path.parent().map(PathBuf::from).unwrap_or_default();
    fs_err::create_dir_all(&folder).map_err(|source| Error::io(&folder, source))?;
    let written = tempfile::NamedTempFile::new_in(&folder).and_then(|file| {
        fs_err::write(file.path(), &unit.text)?;
        fs_err::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(&unit.path).map_err(|error| error.error)
    });
    written.map_err(|source| Error::io(&unit.path, source))?;
    let failed = unit.commands.iter().find(|command| !shell(command));
    printer.data(&json!({ "path": unit.path, "change": "written", "started": failed.is_none() }), || {
        format!("written {}", unit.path.display())
    });
    match failed {
        None => printer.done("the node runs, and comes back after a reboot"),
        Some(failed) => {
            let rest = unit.commands.iter().skip_while(|command| *command != failed).cloned().collect::<Vec<_>>().join(" && ");
            return Err(Error::failed(
                "systemd",
                format!("`{failed}` failed"),
                format!("type `{rest}`, or run `obol stack up` another way"),
            ));
        }
    }
    Ok(Exit::Done)
}

fn uninstall(unit: &Unit, system: bool, printer: &Printer) -> Result<Exit, Error> {
    let there = unit.path.exists();
    if there {
        let systemctl = if system { "systemctl" } else { "systemctl --user" };
        if !shell(&format!("{systemctl} disable --now obol.service")) {
            printer.warn("systemd did not stop the service: type `obol stack down`");
        }
        fs_err::remove_file(&unit.path).map_err(|source| Error::io(&unit.path, source))?;
        shell(&format!("{systemctl} daemon-reload"));
    }
    let change = if there { "removed" } else { "unchanged" };
    printer.data(&json!({ "path": unit.path, "change": change }), || format!("{change} {}", unit.path.display()));
    Ok(Exit::Done)
}

fn scope(system: bool) -> Result<Scope, Error> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let missing = |name: &str| Error::failed("environment", format!("{name} is not set"), format!("set {name}"));
    if system {
        // Under sudo the service belongs to whoever typed it.
        let user = set("SUDO_USER").or_else(|| set("USER")).ok_or_else(|| missing("USER"))?;
        return Ok(Scope::System { user: user.to_string_lossy().into_owned() });
    }
    let config_home = match set("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute()) {
        Some(path) => path,
        None => PathBuf::from(set("HOME").ok_or_else(|| missing("HOME"))?).join(".config"),
    };
    Ok(Scope::User { config_home })
}

fn shell(command: &str) -> bool {
    Command::new("sh").arg("-c").arg(command).status().is_ok_and(|status| status.success())
}
