//! `obol stack init`: a stack directory, or new defaults for the one that is there.

use obol_stackdir::{BackendKind, Change, StackConfig, StackDir, StackError};
use serde_json::json;
use url::Url;

use crate::{
    args::InitArgs,
    commands::context::Context,
    error::{Error, Problem},
    exit::Exit,
    printer::Printer,
};

/// Makes the directory, or changes what the flags name in the one there is.
pub fn run(args: InitArgs, printer: &Printer) -> Result<Exit, Error> {
    let context = Context::open()?;
    let existed = context.stack.exists();
    let mut config = context.config()?;
    apply(&args, existed, &mut config)?;
    if !existed && !args.dry_run {
        ask(&mut config, printer);
    }
    if args.dry_run {
        return dry_run(&context, &config, printer);
    }
    let change = if existed {
        let lock = context.stack.lock()?;
        let change = context.stack.put_stack(&lock, &config).map_err(refused)?;
        drop(lock);
        if change == Change::Unchanged { "unchanged" } else { "updated" }
    } else {
        let outcome = context.stack.init(&config).map_err(refused)?;
        for warning in &outcome.warnings {
            printer.problem(&Problem::from(warning));
        }
        config = outcome.config;
        "created"
    };
    if existed {
        // Complete what a newer version of obol adds, and what was deleted by hand.
        context.stack.init(&config)?;
    }
    let root = context.dirs.config.display();
    printer
        .data(&json!({ "change": change, "directory": context.dirs.config, "config": config }), || format!("{change} {root}/stack.yaml"));
    if !existed {
        printer.hint("next: obol sell http NAME --upstream http://localhost:9000 --price 0.001");
    }
    Ok(Exit::Done)
}

fn apply(args: &InitArgs, existed: bool, config: &mut StackConfig) -> Result<(), Error> {
    if let Some(backend) = args.backend {
        config.backend = backend;
        config.context = None;
    }
    if args.context.is_some() {
        config.context.clone_from(&args.context);
    } else if config.backend == BackendKind::Kubernetes && config.context.is_none() {
        // Written down, so that a later `kubectl config use-context` does not move the shop.
        config.context = obol_backend::cluster::current_context();
    }
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    let wallet = || std::env::var("X402_WALLET").ok().filter(|wallet| !wallet.is_empty() && !existed);
    if let Some(pay_to) = args.pay_to.clone().or_else(wallet) {
        config.defaults.pay_to = Some(pay_to);
    }
    if args.network.is_some() {
        config.defaults.network.clone_from(&args.network);
    }
    if !args.facilitator.is_empty() {
        config.defaults.facilitators.clone_from(&args.facilitator);
    }
    if let Some(text) = &args.public_url {
        let url = Url::parse(text).map_err(|error| {
            let shown: String = text.chars().take(80).collect();
            let fix = "write the base URL that buyers see, such as https://shop.example";
            Error::Refused(vec![Problem::new("public_url", format!("`{shown}` is no URL: {error}"), fix).at("--public-url")])
        })?;
        config.public_url = Some(url);
    }
    Ok(())
}

/// Asked once, of a person, and kept; never in a pipe.
fn ask(config: &mut StackConfig, printer: &Printer) {
    if !printer.is_interactive() {
        return;
    }
    if config.defaults.network.is_none() {
        config.defaults.network = printer.ask("Network for offers that name none, e.g. base-sepolia (empty: none)");
    }
    if config.defaults.pay_to.is_none() {
        config.defaults.pay_to = printer.ask("Address that is paid when an offer names none (empty: none)");
    }
}

/// A bad value is refused by the flag that carried it; nothing was written.
fn refused(error: StackError) -> Error {
    let StackError::Invalid { diagnostics, .. } = &error else { return error.into() };
    let problems = diagnostics.iter().map(|diagnostic| {
        let problem = Problem::from(diagnostic);
        let flags = [
            ("defaults.network", "--network"),
            ("defaults.payTo", "--pay-to"),
            ("defaults.facilitators", "--facilitator"),
            ("publicUrl", "--public-url"),
            ("backend", "--context"),
            ("context", "--context"),
            ("admin", "--listen"),
        ];
        match flags.iter().find(|(field, _)| problem.message.starts_with(&format!("`{field}"))) {
            Some((field, flag)) => problem.at(format!("{flag} ({field})")),
            None => problem,
        }
    });
    Error::Refused(problems.collect())
}

/// Does it to a copy, and shows the difference.
fn dry_run(context: &Context, config: &StackConfig, printer: &Printer) -> Result<Exit, Error> {
    let temp = tempfile::tempdir().map_err(|source| Error::io(std::env::temp_dir(), source))?;
    let copy = StackDir::at(temp.path());
    let file = "stack.yaml";
    if context.stack.exists() {
        let from = context.stack.root().join(file);
        fs_err::copy(&from, temp.path().join(file)).map_err(|source| Error::io(from, source))?;
    }
    let lock = copy.lock()?;
    let mut config = config.clone();
    if config.id.is_empty() {
        "made-up".clone_into(&mut config.id);
    }
    let (change, text) = match copy.put_stack(&lock, &config).map_err(refused)? {
        Change::Created { text } => ("created", text),
        Change::Updated { diff, .. } => ("updated", diff),
        Change::Unchanged => ("unchanged", String::new()),
    };
    printer.data(&json!({ "change": change, "dryRun": true, "diff": text }), || text.clone());
    printer.hint(&format!("dry run: stack.yaml would be {change}; nothing was written"));
    Ok(Exit::Done)
}
