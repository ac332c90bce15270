//! `obol sell http`.

use obol_offer::{OfferKind, OfferName, OfferSpec};
use obol_stackdir::OfferFile;

use crate::{
    args::SellHttpArgs,
    commands::{context::Context, outcome},
    error::{Error, Problem},
    exit::Exit,
    printer::Printer,
    sell::{Defaults, Given, merge, read_json},
};

/// Writes or changes an offer.
pub async fn run(args: SellHttpArgs, printer: &Printer) -> Result<Exit, Error> {
    write(OfferKind::Http, &args, |spec| spec, printer).await
}

/// Writes or changes an offer of a kind. `lay` lays what that kind has of its own over the rest.
pub async fn write(
    kind: OfferKind,
    args: &SellHttpArgs,
    lay: impl FnOnce(OfferSpec) -> OfferSpec,
    printer: &Printer,
) -> Result<Exit, Error> {
    let context = Context::open()?;
    let config = context.config()?;
    let given = args.from_json.as_deref().map(read_json).transpose()?;
    let lock = context.lock(args.dry_run)?;
    let mut problems = Vec::new();
    let name = name(kind, args, given.as_ref(), &mut problems);
    if given.as_ref().is_some_and(|given| given.spec.kind != kind) {
        let word = kind.as_str();
        let message = format!("`sell {word}` sells offers of type {word}");
        let or = if kind == OfferKind::default() { ", or leave it out" } else { "" };
        problems.push(Problem::new("kind_mismatch", message, format!("write `type: {word}`{or}")).at("spec.type"));
    }
    let base = match (given, &name) {
        (Some(given), name) => Some(keep_stopped(given.spec, name.as_ref().and_then(|name| existing(&context, kind, name).ok().flatten()))),
        (None, Some(name)) => existing(&context, kind, name)?,
        (None, None) => None,
    };
    let wallet = std::env::var("X402_WALLET").ok().filter(|wallet| !wallet.is_empty());
    let defaults = Defaults { pay_to: wallet.or(config.defaults.pay_to.clone()), network: config.defaults.network.clone() };
    match (merge(base, args, &defaults).map(lay), name) {
        (Ok(spec), Some(name)) if problems.is_empty() => {
            let exit = if args.dry_run {
                outcome::preview(&context, kind, &name, &spec, printer)?
            } else {
                outcome::write(&context, lock, kind, &name, &spec, printer).await?
            };
            if spec.drain_at.is_some() {
                printer.hint(&format!("the offer is stopped: type `obol sell start {name}`"));
            }
            Ok(exit)
        }
        (merged, name) => {
            // Everything that is wrong is told at once, even under a name that cannot be.
            match merged {
                Ok(spec) => {
                    if let Some(name) = name.or_else(|| "name".parse().ok()) {
                        problems.extend(outcome::check(&context, kind, &name, &spec).err().unwrap_or_default());
                    }
                }
                Err(more) => problems.extend(more),
            }
            Err(Error::Refused(problems))
        }
    }
}

fn name(kind: OfferKind, args: &SellHttpArgs, given: Option<&Given>, problems: &mut Vec<Problem>) -> Option<OfferName> {
    let in_file = given.and_then(|given| given.name.as_deref());
    let (text, place) = match (args.name.as_deref(), in_file) {
        (Some(flag), Some(file)) if flag != file => {
            let message = format!("the file calls the offer `{}`, the command line `{}`", cut(file), cut(flag));
            problems.push(Problem::new("name_conflict", message, "leave NAME out, or correct metadata.name").at("NAME"));
            return None;
        }
        (Some(flag), _) => (flag, "NAME"),
        (None, Some(file)) => (file, "metadata.name"),
        (None, None) => {
            let fix = format!("type `obol sell {} NAME --from-json …`", kind.as_str());
            problems.push(Problem::new("name_missing", "the offer has no name", fix).at("NAME"));
            return None;
        }
    };
    match text.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            let message = format!("`{}`: {error}", cut(text));
            problems.push(Problem::new("name", message, format!("write a name such as `{}`", suggestion(text))).at(place));
            None
        }
    }
}

/// What is on disk under this name, even if it breaks a rule: the flags may mend it.
pub fn existing(context: &Context, kind: OfferKind, name: &OfferName) -> Result<Option<OfferSpec>, Error> {
    let Some(slice) = context.stack.find(name).filter(|slice| slice.kind == kind) else { return Ok(None) };
    match slice.offer {
        Ok((spec, _)) => Ok(Some(spec)),
        Err(diagnostics) => match serde_saphyr::from_str::<OfferFile>(&slice.text) {
            Ok(file) if file.name == name.as_str() => Ok(Some(file.spec)),
            _ => Err(Error::Broken(diagnostics)),
        },
    }
}

/// A stopped offer stays stopped until `sell start`, whatever a file says about the rest.
fn keep_stopped(mut spec: OfferSpec, before: Option<OfferSpec>) -> OfferSpec {
    if let Some(before) = before.filter(|_| spec.drain_at.is_none()) {
        spec.drain_at = before.drain_at;
        spec.drain_grace_period = spec.drain_grace_period.or(before.drain_grace_period);
    }
    spec
}

fn suggestion(text: &str) -> String {
    if !text.is_ascii() {
        return "weather".to_owned();
    }
    let plain: String = text.to_lowercase().chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    let plain: String =
        plain.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-").chars().take(OfferName::MAX).collect();
    let plain = plain.trim_end_matches('-');
    if plain.is_empty() { "weather".to_owned() } else { plain.to_owned() }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}
