//! `obol serve controller`

use std::time::Duration;

use obol_controller::{Controller, Gate, Ingress, LeaseTimes, Settings, serve_admin};
use obol_reconcile::Site;
use tokio::net::TcpListener;

use crate::{
    args::ControllerArgs,
    commands::{serve, stack_up::log},
    error::Error,
    exit::Exit,
    printer::Printer,
};

pub async fn run(args: ControllerArgs, verbose: bool, printer: &Printer) -> Result<Exit, Error> {
    let _log = log(args.role.log, verbose, false);
    let stack = serve::stack(args.role.stack.as_deref())?;
    let home = serve::home(&args.role);
    let gate = gate(args.gateway_admin.as_deref(), &home.system)?;
    let (namespace, name) = stack.ingress.gateway;
    let ingress = Ingress { namespace, name, section: stack.ingress.section };
    let site = Site { cluster: true, loopback: false, public_url: stack.public_url, ..Site::default() };
    // Two runs of one Pod are two controllers.
    let identity = format!("{}-{:08x}", args.identity.as_deref().unwrap_or("controller"), rand::random::<u32>());
    let settings = Settings { home, site, ingress, gate, identity, lease: LeaseTimes::default() };
    let controller = Controller::new(serve::client().await?, settings);
    let admin = TcpListener::bind(args.role.admin).await.map_err(|error| Error::io(args.role.admin.to_string(), error))?;
    let shutdown = serve::shutdown(printer);
    tokio::spawn(serve_admin(admin, controller.metrics(), shutdown.clone()));
    controller.run(shutdown).await.map_err(|error| Error::io("health probes", error))?;
    printer.note("stopped");
    Ok(Exit::Done)
}

fn gate(admin: Option<&str>, system: &str) -> Result<Gate, Error> {
    let service = "x402-gateway".to_owned();
    let text = admin.map_or_else(|| format!("http://{service}-admin.{system}.svc:9402"), str::to_owned);
    let admin = text.parse().map_err(|error| Error::Usage {
        code: "gateway_admin",
        message: format!("`{text}` is no URL: {error}"),
        fix: "write a base URL such as http://x402-gateway-admin.x402.svc:9402".to_owned(),
    })?;
    Ok(Gate { service, port: obol_stackdir::DEFAULT_PORT, admin, interval: Duration::from_secs(10) })
}
