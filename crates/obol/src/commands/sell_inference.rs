//! `obol sell inference`.

use std::{collections::BTreeSet, time::Duration};

use obol_offer::{ConditionKind, ConditionStatus, OfferKind, OfferName, Runtime};

use crate::{
    args::{RuntimeArg, SellInferenceArgs},
    commands::{context::Context, sell_http},
    error::Error,
    exit::Exit,
    printer::Printer,
    sell::{Place, Server, base, lay, places, scan},
};

/// Writes or changes an offer of a model.
pub async fn run(mut args: SellInferenceArgs, printer: &Printer) -> Result<Exit, Error> {
    if let Some(url) = &mut args.offer.upstream {
        *url = base(url).to_owned();
    }
    let is_new = args.offer.from_json.is_none() && !exists(&args)?;
    if is_new && (args.model.is_none() || args.offer.upstream.is_none()) {
        look_around(&mut args, printer).await?;
    }
    let exit = sell_http::write(OfferKind::Inference, &args.offer, |spec| lay(spec, &args), printer).await?;
    let name = args.offer.name.as_deref().and_then(|name| name.parse().ok());
    if let Some(name) = name.filter(|_| args.pull && !args.offer.dry_run && printer.is_human()) {
        follow(&name, printer).await?;
    }
    Ok(exit)
}

/// Between two looks at how far the model is.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows how far the node's model server is with fetching the model. The node goes on when nobody looks any more.
async fn follow(name: &OfferName, printer: &Printer) -> Result<(), Error> {
    let context = Context::open()?;
    let Some(node) = (if context.is_cluster() { None } else { context.node().await? }) else { return Ok(()) };
    let mut shown = String::new();
    loop {
        let view = node.offer(name).await?;
        let condition = view.status.condition(ConditionKind::ModelReady);
        let Some(model) = condition.filter(|_| view.diagnostics.is_empty()) else { return Ok(()) };
        match model.reason.as_str() {
            "NotProbed" | "Pulling" => {
                if model.reason == "Pulling" && model.message != shown {
                    shown.clone_from(&model.message);
                    printer.progress(&shown);
                }
                tokio::time::sleep(INTERVAL).await;
            }
            _ => {
                printer.progress("");
                if model.status == ConditionStatus::True {
                    printer.done("the model server has the model");
                } else {
                    printer.warn(&format!("{} ({})", model.message, model.reason));
                }
                return Ok(());
            }
        }
    }
}

fn exists(args: &SellInferenceArgs) -> Result<bool, Error> {
    let context = Context::open()?;
    let name = args.offer.name.as_deref().and_then(|name| name.parse().ok());
    name.map_or(Ok(false), |name| sell_http::existing(&context, OfferKind::Inference, &name).map(|found| found.is_some()))
}

/// One model of one server.
struct Choice<'a> {
    server: &'a Server,
    model: &'a str,
}

/// Finds what the command line leaves out among the models of servers that are found.
async fn look_around(args: &mut SellInferenceArgs, printer: &Printer) -> Result<(), Error> {
    if args.model.is_some() && args.offer.upstream.is_some() {
        // It may know the model by a name that it does not list.
        return Ok(());
    }
    printer.hint("looking for model servers");
    let places = places(args.offer.upstream.as_deref());
    let servers = scan(&places).await;
    let wanted = args.model.clone();
    let fits = |model: &&String| wanted.as_ref().is_none_or(|wanted| *model == wanted || model.strip_suffix(":latest") == Some(wanted));
    let choices: Vec<Choice<'_>> =
        servers.iter().flat_map(|server| server.models.iter().filter(fits).map(move |model| Choice { server, model })).collect();
    let chosen = match choices.as_slice() {
        [only] if args.model.is_some() => only,
        [] => return Err(nothing(args, &places, &servers)),
        several if printer.is_interactive() => {
            let items: Vec<String> = several.iter().map(|choice| format!("{}  ({})", choice.model, choice.server.place)).collect();
            let chosen = printer.choose("Which model do you sell?", &items).and_then(|index| several.get(index));
            chosen
                .ok_or_else(|| Error::failed("cancelled", "no model was chosen, and nothing was written", "pass --model and --upstream"))?
        }
        several => return Err(ambiguous(several, wanted.is_some())),
    };
    let place = &chosen.server.place;
    args.model.get_or_insert_with(|| chosen.model.to_owned());
    args.offer.upstream.get_or_insert_with(|| place.url.clone());
    if args.runtime.is_none() && place.runtime == Some(Runtime::Ollama) {
        args.runtime = Some(RuntimeArg::Ollama);
    }
    Ok(())
}

fn nothing(args: &SellInferenceArgs, places: &[Place], servers: &[Server]) -> Error {
    let fix = "start the model server, or pass --model and --upstream";
    match (&args.model, &args.offer.upstream) {
        (None, Some(url)) => Error::failed("model_missing", format!("{url} lists no model"), "pass --model with a name that it knows"),
        (Some(model), None) if !servers.is_empty() => {
            let has: BTreeSet<&str> = servers.iter().flat_map(|server| &server.models).map(String::as_str).collect();
            let has: Vec<&str> = has.into_iter().take(20).collect();
            Error::failed("model_missing", format!("no model server that was found has `{model}`; they have {}", has.join(", ")), fix)
        }
        _ => {
            let looked: Vec<String> = places.iter().map(ToString::to_string).collect();
            Error::failed("upstream_missing", format!("no model server with a model answers ({})", looked.join("; ")), fix)
        }
    }
}

fn ambiguous(choices: &[Choice<'_>], named: bool) -> Error {
    let found: Vec<String> = choices.iter().take(20).map(|c| format!("`{}` at {}", c.model, c.server.place.url)).collect();
    let example = choices.first().map(|c| format!("--model {} --upstream {}", c.model, c.server.place.url)).unwrap_or_default();
    let (code, what) = if named { ("upstream_missing", "several servers have the model") } else { ("model_missing", "no model is named") };
    Error::Usage { code, message: format!("{what}; found {}", found.join(", ")), fix: format!("pass one, e.g. {example}") }
}
