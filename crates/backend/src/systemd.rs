//! The systemd unit that keeps a node running: over crashes, logouts and reboots.

use std::path::{Path, PathBuf};

use obol_stackdir::Dirs;

/// Whose unit it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The calling user's own; runs without anyone logged in once lingering is on.
    User {
        /// `$XDG_CONFIG_HOME`, usually `~/.config`.
        config_home: PathBuf,
    },
    /// The machine's; runs as the user named.
    System {
        /// Login name.
        user: String,
    },
}

/// A unit to write, and what to run afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Where it belongs.
    pub path: PathBuf,
    /// The file.
    pub text: String,
    /// Shell commands, in order, that make systemd use it now and after a reboot.
    pub commands: Vec<String>,
}

/// A path or value that cannot be written into a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot stand in a systemd unit: only UTF-8 without control characters can")]
pub struct UnitError(PathBuf);

/// The unit of a node. The three folders must exist before it starts: a system unit can write
/// nowhere else.
///
/// # Errors
/// When a path has characters that systemd cannot read back.
pub fn unit(binary: &Path, dirs: &Dirs, scope: &Scope) -> Result<Unit, UnitError> {
    let (path, target, user, control) = match scope {
        Scope::User { config_home } => (config_home.join("systemd/user/obol.service"), "default.target", String::new(), "systemctl --user"),
        Scope::System { user } => {
            ("/etc/systemd/system/obol.service".into(), "multi-user.target", format!("User={user}\n"), "sudo systemctl")
        }
    };
    let environment = [("OBOL_CONFIG_DIR", &dirs.config), ("OBOL_DATA_DIR", &dirs.data), ("OBOL_STATE_DIR", &dirs.state)]
        .into_iter()
        .map(|(name, value)| Ok(format!("Environment={}\n", quote(&format!("{name}={}", text(value)?)))))
        .collect::<Result<String, UnitError>>()?;
    let writable = [&dirs.config, &dirs.data, &dirs.state]
        .into_iter()
        .map(|dir| Ok(quote(text(dir)?)))
        .collect::<Result<Vec<_>, UnitError>>()?
        .join(" ");
    // `$` starts a variable in ExecStart only.
    let binary = quote(text(binary)?).replace('$', "$$");
    let network = match scope {
        Scope::System { .. } => "After=network-online.target\nWants=network-online.target\n",
        Scope::User { .. } => "",
    };
    // A user's own manager may not make mount namespaces on every system.
    let sandbox = match scope {
        Scope::System { .. } => format!(
            "ProtectSystem=strict\nReadWritePaths={writable}\nPrivateTmp=yes\nProtectControlGroups=yes\nProtectKernelTunables=yes\n"
        ),
        Scope::User { .. } => String::new(),
    };
    let text = format!(
        "# Written by `obol stack install-service`; running it again replaces this file.
[Unit]
Description=obol: sells HTTP services over x402
{network}# A node that cannot start is to be seen in the log, and tried again.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={binary} stack up
{user}{environment}Restart=always
RestartSec=2
# Payments under way are brought to an end before the node goes.
KillSignal=SIGTERM
TimeoutStopSec=100
LimitNOFILE=65536
UMask=0077
NoNewPrivileges=yes
{sandbox}RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native

[Install]
WantedBy={target}
"
    );
    let mut commands = vec![format!("{control} daemon-reload"), format!("{control} enable --now obol.service")];
    if matches!(scope, Scope::User { .. }) {
        commands.push("loginctl enable-linger".to_owned());
    }
    Ok(Unit { path, text, commands })
}

fn text(path: &Path) -> Result<&str, UnitError> {
    path.to_str().filter(|text| !text.chars().any(char::is_control)).ok_or_else(|| UnitError(path.to_owned()))
}

/// As systemd.syntax(7) reads it back: quotes and backslashes escaped, `%` doubled.
fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:+@,".contains(c);
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    if text.chars().all(plain) { escaped } else { format!("\"{escaped}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_are_as_written_down() {
        let dirs = Dirs {
            config: "/home/me/.config/obol".into(),
            data: "/home/me/.local/share/obol".into(),
            state: "/home/me/.local/state/obol".into(),
        };
        let show = |unit: &Unit| format!("# {}\n{}# then: {}\n", unit.path.display(), unit.text, unit.commands.join("; "));
        let user = unit(Path::new("/usr/local/bin/obol"), &dirs, &Scope::User { config_home: "/home/me/.config".into() }).unwrap();
        insta::assert_snapshot!("user_unit", show(&user));
        let system = unit(Path::new("/usr/local/bin/obol"), &dirs, &Scope::System { user: "me".into() }).unwrap();
        insta::assert_snapshot!("system_unit", show(&system));
    }

    #[test]
    fn odd_paths_are_quoted_and_impossible_ones_refused() {
        let dirs = Dirs { config: "/a b/50%".into(), data: "/q\"x".into(), state: "/s\\t".into() };
        let unit = |binary: &str| super::unit(Path::new(binary), &dirs, &Scope::System { user: "me".into() });
        let text = unit("/opt/my $tools/obol").unwrap().text;
        for line in [
            r#"ExecStart="/opt/my $$tools/obol" stack up"#,
            r#"Environment="OBOL_CONFIG_DIR=/a b/50%%""#,
            r#"Environment="OBOL_DATA_DIR=/q\"x""#,
            r#"ReadWritePaths="/a b/50%%" "/q\"x" "/s\\t""#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(unit("/bin/obol\nExecStartPre=/bin/evil").is_err());
    }
}
