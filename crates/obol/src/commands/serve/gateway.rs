//! `obol serve gateway`

use obol_backend::{GatewayPod, PodConfig};

use crate::{
    args::GatewayArgs,
    commands::{serve, stack_up::log},
    error::Error,
    exit::Exit,
    printer::Printer,
};

pub async fn run(args: GatewayArgs, verbose: bool, printer: &Printer) -> Result<Exit, Error> {
    let _log = log(args.role.log, verbose, false);
    let config = PodConfig {
        stack: serve::stack(args.role.stack.as_deref())?,
        listen: args.listen,
        admin: args.role.admin,
        data: args.data,
        home: serve::home(&args.role),
        verify: args.verify,
        gate_secret: args.gate_secret.as_deref().map(secret).transpose()?,
    };
    let pod = GatewayPod::start(config, serve::client().await?).await?;
    let addresses = pod.addresses();
    printer.data(&serde_json::json!({ "listen": addresses.public.to_string(), "admin": addresses.admin.to_string() }), || {
        format!("buyers          http://{}\nhealth, metrics http://{}", addresses.public, addresses.admin)
    });
    pod.run(serve::shutdown(printer)).await?;
    printer.note("stopped");
    Ok(Exit::Done)
}

/// The first line of a file.
fn secret(file: &std::path::Path) -> Result<String, Error> {
    let text = fs_err::read_to_string(file).map_err(|error| Error::io(file, error))?;
    match text.lines().next().map(str::trim).filter(|line| !line.is_empty()) {
        Some(secret) => Ok(secret.to_owned()),
        None => {
            Err(Error::failed("gate_secret", format!("{} is empty", file.display()), "write the secret that the inference gateways have"))
        }
    }
}
