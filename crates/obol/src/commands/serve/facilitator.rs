//! `obol serve facilitator`: verifies and settles for gateways that hold no key.

use std::{io::IsTerminal as _, path::Path};

use obol_backend::{FacilitatorConfig, FacilitatorRole, KEY_VARIABLE};
use obol_chain::SigningKey;
use obol_settle::Secret;
use obol_stackdir::parse_stack;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{FacilitatorArgs, LogFormat},
    commands::stack_up::{log, until_signal},
    error::Error,
    exit::Exit,
    printer::Printer,
};

/// Environment variable with the token that gateways must send.
const CREDENTIAL_VARIABLE: &str = "OBOL_FACILITATOR_CREDENTIAL";

/// Serves until it is told to stop.
pub async fn run(args: FacilitatorArgs, verbose: bool, printer: &Printer) -> Result<Exit, Error> {
    let human = printer.is_human() && std::io::stderr().is_terminal();
    let _log = log(args.log.unwrap_or(if human { LogFormat::Text } else { LogFormat::Json }), verbose, false);
    let text = read(&args.stack)?;
    let stack = parse_stack(&text, &args.stack).map_err(Error::Broken)?;
    let config = FacilitatorConfig {
        stack,
        key: key()?,
        listen: args.listen,
        admin: args.admin,
        credential: credential(args.credential_file.as_deref())?,
    };
    if config.credential.is_none() && !args.listen.ip().is_loopback() {
        printer.note("anybody who reaches this address can have payments settled, which costs gas: set OBOL_FACILITATOR_CREDENTIAL");
    }
    let role = FacilitatorRole::start(config).await?;
    let addresses = role.addresses();
    printer.data(&serde_json::json!({ "listen": addresses.public.to_string(), "admin": addresses.admin.to_string() }), || {
        format!("gateways        http://{}\nhealth, metrics http://{}", addresses.public, addresses.admin)
    });
    let shutdown = CancellationToken::new();
    tokio::spawn(until_signal(shutdown.clone(), *printer));
    role.run(shutdown).await;
    printer.note("stopped");
    Ok(Exit::Done)
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::io(path, source))
}

/// The key for networks that name none, if there is one.
fn key() -> Result<Option<SigningKey>, Error> {
    if std::env::var_os(KEY_VARIABLE).is_none() {
        return Ok(None);
    }
    let fix = "write 0x and 64 hex digits, and nothing else";
    SigningKey::from_env(KEY_VARIABLE).map(Some).map_err(|error| Error::failed(error.code(), error.to_string(), fix))
}

fn credential(file: Option<&Path>) -> Result<Option<Secret>, Error> {
    let text = match file {
        Some(file) => read(file)?,
        None => match std::env::var(CREDENTIAL_VARIABLE) {
            Ok(text) => text,
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(error) => return Err(Error::failed("credential", error.to_string(), "set it to printable text")),
        },
    };
    // An empty one would let in whoever sends nothing.
    if text.trim().is_empty() {
        let message = "the credential is empty, which lets in nobody that it should";
        return Err(Error::failed("credential", message, "write a long random token, or leave the credential out"));
    }
    Ok(Some(Secret::token(&text)))
}
