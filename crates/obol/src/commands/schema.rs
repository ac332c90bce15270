//! `obol schema`: what may be written, for editors and programs.

use clap::CommandFactory;
use obol_offer::OfferSpec;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    args::{Cli, SchemaArgs, SchemaWhat},
    error::Error,
    exit::Exit,
    printer::Printer,
};

/// `values-offer.yaml`: one offer.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code)]
struct ValuesOffer {
    /// The offer's name, like its folder.
    #[schemars(regex(pattern = "^[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?$"))]
    name: String,
    /// The offer, as `spec` of a ServiceOffer.
    spec: OfferSpec,
}

/// A command with its flags.
#[derive(Serialize)]
struct Tree {
    name: String,
    about: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    arguments: Vec<Argument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    commands: Vec<Tree>,
}

/// A flag or positional argument.
#[derive(Serialize)]
struct Argument {
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    required: bool,
    help: String,
}

/// Prints a schema; JSON unless YAML is asked for.
pub fn run(args: &SchemaArgs, printer: &Printer) -> Result<Exit, Error> {
    match args.what {
        SchemaWhat::Offer => print(&schemars::schema_for!(ValuesOffer), printer),
        SchemaWhat::Cli => print(&tree(&Cli::command()), printer),
    }
    Ok(Exit::Done)
}

fn print<T: Serialize>(data: &T, printer: &Printer) {
    printer.data(data, || serde_json::to_string_pretty(data).unwrap_or_default());
}

fn tree(command: &clap::Command) -> Tree {
    Tree {
        name: command.get_name().to_owned(),
        about: command.get_about().map(ToString::to_string).unwrap_or_default(),
        arguments: command.get_arguments().map(argument).collect(),
        commands: command.get_subcommands().map(tree).collect(),
    }
}

fn argument(arg: &clap::Arg) -> Argument {
    let long = arg.get_long().map(|long| format!("--{long}"));
    let shorts = arg.get_short().map(|short| format!("-{short}"));
    let aliases = arg.get_visible_aliases().unwrap_or_default().into_iter().map(|alias| format!("--{alias}"));
    let takes_value = arg.get_action().takes_values();
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string).filter(|_| takes_value);
    Argument {
        aliases: shorts.into_iter().chain(aliases).collect(),
        name: long.unwrap_or_else(|| arg.get_id().as_str().to_uppercase()),
        value,
        required: arg.is_required_set(),
        help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
    }
}
