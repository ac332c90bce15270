//! `obol sell inference`.

use obol_offer::{OfferKind, Runtime};

use crate::{
    args::{RuntimeArg, SellInferenceArgs},
    commands::{context::Context, sell_http},
    error::Error,
    exit::Exit,
    printer::Printer,
    sell::{Server, lay, scan},
};

/// Writes or changes an offer of a model.
pub async fn run(mut args: SellInferenceArgs, printer: &Printer) -> Result<Exit, Error> {
    // People know their server's address with the `/v1` of its calls; a port is the same on every backend without.
    if let Some(url) = &mut args.offer.upstream
        && let Some(base) = url.trim_end_matches('/').strip_suffix("/v1")
    {
        *url = base.to_owned();
    }
    let is_new = args.offer.from_json.is_none() && !exists(&args)?;
    if is_new && (args.model.is_none() || args.offer.upstream.is_none()) {
        look_around(&mut args, printer).await?;
    }
    sell_http::write(OfferKind::Inference, &args.offer, |spec| lay(spec, &args), printer).await
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

/// Finds what the command line leaves out among the models of this machine's servers.
async fn look_around(args: &mut SellInferenceArgs, printer: &Printer) -> Result<(), Error> {
    printer.hint("looking for model servers");
    let servers = scan(args.offer.upstream.as_deref()).await;
    let wanted = args.model.clone();
    let fits = |model: &&String| wanted.as_ref().is_none_or(|wanted| *model == wanted || model.strip_suffix(":latest") == Some(wanted));
    let choices: Vec<Choice<'_>> =
        servers.iter().flat_map(|server| server.models.iter().filter(fits).map(move |model| Choice { server, model })).collect();
    let chosen = match choices.as_slice() {
        // The server was named, and may know the model by a name that it does not list.
        _ if args.model.is_some() && args.offer.upstream.is_some() => return Ok(()),
        [only] if args.model.is_some() => only,
        [] => return Err(nothing(args, &servers)),
        several if printer.is_interactive() => {
            let items: Vec<String> = several.iter().map(|c| format!("{}  ({}, {})", c.model, c.server.label, c.server.url)).collect();
            printer.choose("Which model do you sell?", &items).and_then(|index| several.get(index)).ok_or(Error::Cancelled)?
        }
        several => return Err(ambiguous(several)),
    };
    args.model.get_or_insert_with(|| chosen.model.to_owned());
    args.offer.upstream.get_or_insert_with(|| chosen.server.url.clone());
    if args.runtime.is_none() && chosen.server.runtime == Some(Runtime::Ollama) {
        args.runtime = Some(RuntimeArg::Ollama);
    }
    Ok(())
}

fn nothing(args: &SellInferenceArgs, servers: &[Server]) -> Error {
    let fix = "start the model server, or pass --model and --upstream";
    match (&args.model, &args.offer.upstream) {
        (None, Some(url)) => Error::failed("model_missing", format!("{url} lists no model"), "pass --model with a name that it knows"),
        (Some(model), None) if !servers.is_empty() => {
            let has: Vec<&str> = servers.iter().flat_map(|server| &server.models).map(String::as_str).take(20).collect();
            Error::failed("model_missing", format!("no model server of this machine has `{model}`; they have {}", has.join(", ")), fix)
        }
        _ => {
            let message = "no model server answers on this machine (Ollama 11434, vLLM 8000, llama.cpp 8080, LM Studio 1234, LiteLLM 4000)";
            Error::failed("upstream_missing", message, fix)
        }
    }
}

fn ambiguous(choices: &[Choice<'_>]) -> Error {
    let found: Vec<String> = choices.iter().take(20).map(|c| format!("`{}` at {}", c.model, c.server.url)).collect();
    let example = choices.first().map(|c| format!("--model {} --upstream {}", c.model, c.server.url)).unwrap_or_default();
    Error::Usage {
        code: "model_missing",
        message: format!("no model is named; found {}", found.join(", ")),
        fix: format!("pass one, e.g. {example}"),
    }
}
