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
