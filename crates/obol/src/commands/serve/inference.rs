//! `obol serve inference`

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use obol_controller::{HOST_SERVICE, Home};
use obol_inference::{Directory, Model, ModelConfig, Secret, probe, serve};
use obol_offer::{Offer, OfferKind, Upstream};
use obol_stackdir::{OfferFile, parse_offer};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    args::{LogFormat, ServeInferenceArgs},
    commands::stack_up::{log, until_signal},
    error::Error,
    exit::Exit,
    printer::Printer,
};

const GATE_SECRET: &str = "OBOL_GATE_SECRET";
const CREDENTIAL: &str = "OBOL_CREDENTIAL";

/// Serves one offer's model until it is told to stop.
pub async fn run(args: ServeInferenceArgs, verbose: bool, printer: &Printer) -> Result<Exit, Error> {
    let _log = log(args.log.unwrap_or(LogFormat::Json), verbose, false);
    let offer = offer(&args)?;
    let gate = gate(&args)?;
    let credential = credential(&offer)?;
    let config = ModelConfig::of(&offer, credential).ok_or_else(|| {
        let fix = "write `model:` with the `name` of the model";
        Error::failed("model_missing", format!("{}: the offer sells no model", args.offer.display()), fix)
    })?;
    let model = Model::new(config).map_err(|error| Error::failed("model_client", error.to_string(), "check the model server's key"))?;
    let model = Arc::new(model);
    let (public, admin) = (listen(args.listen).await?, listen(args.admin).await?);
    let told = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let (at, admin_at) = (told(&public), told(&admin));
    printer.data(&serde_json::json!({ "listen": at, "admin": admin_at }), || {
        format!("x402 gateway           http://{at}/{}\nhealth, metrics, model http://{admin_at}", offer.name)
    });
    let models: Directory = Arc::default();
    models.store(Arc::new(HashMap::from([(offer.name.to_string(), model.clone())])));
    let shutdown = CancellationToken::new();
    tokio::spawn(until_signal(shutdown.clone(), *printer));
    let watching = AbortOnDropHandle::new(tokio::spawn(probe::watch(model.clone())));
    // Operators watch the drain, so their listener ends last.
    let operators = CancellationToken::new();
    let admin = tokio::spawn(serve::serve_admin(admin, model, shutdown.clone(), operators.clone()));
    serve::serve(public, models, gate, shutdown).await;
    drop(watching);
    operators.cancel();
    let _ = admin.await;
    printer.note("stopped");
    Ok(Exit::Done)
}

/// The offer in the file, by the name that it has there.
fn offer(args: &ServeInferenceArgs) -> Result<Offer, Error> {
    let text = fs_err::read_to_string(&args.offer).map_err(|error| Error::io(&args.offer, error))?;
    let unnamed =
        || Error::failed("offer_name", format!("{}: the file names no offer", args.offer.display()), "write `name:` with the offer's name");
    let file: OfferFile = serde_saphyr::from_str(&text).map_err(|error| {
        Error::failed("offer_malformed", format!("{}: {error}", args.offer.display()), "write it as `obol schema offer` says")
    })?;
    let name = file.name.parse().map_err(|_| unnamed())?;
    let (_, mut offer) = parse_offer(&text, &args.offer, OfferKind::Inference, &name).map_err(Error::Broken)?;
    // A Pod's loopback is its own; the machine of a local cluster is a Service.
    if let Upstream::Host { port } = offer.upstream {
        offer.upstream = Upstream::Service { name: HOST_SERVICE.to_owned(), namespace: Home::default().system, port };
    }
    Ok(offer)
}

fn gate(args: &ServeInferenceArgs) -> Result<Secret, Error> {
    let secret = match &args.gate_secret {
        Some(file) => Secret::new(&fs_err::read_to_string(file).map_err(|error| Error::io(file, error))?),
        None => Secret::new(&std::env::var(GATE_SECRET).unwrap_or_default()),
    };
    if secret.is_empty() {
        let message = "the x402 gateway's secret is missing, and without it anybody could ask";
        return Err(Error::failed("gate_secret", message, format!("pass --gate-secret FILE, or set {GATE_SECRET}")));
    }
    Ok(secret)
}

fn credential(offer: &Offer) -> Result<Option<Secret>, Error> {
    let Some(name) = offer.model.as_ref().and_then(|model| model.credential.as_ref()) else { return Ok(None) };
    let key = std::env::var(CREDENTIAL).map(|key| Secret::new(&key)).ok().filter(|key| !key.is_empty());
    key.map(Some).ok_or_else(|| {
        let message = format!("the offer names a key for the model server (`{name}`), and {CREDENTIAL} is empty");
        Error::failed("model_credential", message, format!("set {CREDENTIAL} to the key, or remove spec.model.credential"))
    })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let failed = |error| Error::failed("listen", format!("cannot listen on {address}: {error}"), "choose another with --listen or --admin");
    TcpListener::bind(address).await.map_err(failed)
}
