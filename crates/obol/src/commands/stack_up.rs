//! `obol stack up`: the node in the foreground.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    time::{Duration, Instant},
};

use obol_backend::{Node, NodeConfig, control::Client};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::{
    args::{LogFormat, UpArgs},
    commands::{cluster, context::Context, view},
    error::Error,
    exit::Exit,
    printer::Printer,
};

/// With more offers than this only their number is told.
const MANY: usize = 50;

/// Runs the node until it is told to stop.
pub async fn run(args: UpArgs, verbose: bool, printer: &Printer) -> Result<Exit, Error> {
    let context = Context::open()?;
    context.need_stack()?;
    if context.config()?.backend.is_cluster() {
        return cluster::up(&context, &args, verbose, printer).await;
    }
    let human = printer.is_human() && std::io::stderr().is_terminal();
    let _log = log(args.log.unwrap_or(if human { LogFormat::Text } else { LogFormat::Json }), verbose, human);
    let config = NodeConfig { listen: args.listen, admin: args.admin, ..NodeConfig::new(context.dirs.clone()) };
    let node = Node::start(config).await?;
    let addresses = node.addresses();
    printer.data(&serde_json::json!({ "listen": addresses.public.to_string(), "admin": addresses.admin.to_string() }), || {
        format!("buyers          http://{}\nhealth, metrics http://{}", addresses.public, addresses.admin)
    });
    let shutdown = CancellationToken::new();
    tokio::spawn(until_signal(shutdown.clone(), *printer));
    if human {
        tokio::spawn(follow(context, *printer));
    }
    node.run(shutdown).await?;
    printer.note("stopped");
    Ok(Exit::Done)
}

/// The first signal ends in order, the second at once.
pub(super) async fn until_signal(shutdown: CancellationToken, printer: Printer) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else { return };
    for first in [true, false] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if !first {
            std::process::exit(i32::from(Exit::Failed as u8));
        }
        printer.note("stopping: requests in progress may end; again to stop at once");
        shutdown.cancel();
    }
}

/// Tells of offers as they come, change and go.
async fn follow(context: Context, printer: Printer) {
    let mut told: Option<BTreeMap<String, String>> = None;
    let mut pause = Duration::from_millis(200);
    loop {
        tokio::time::sleep(pause).await;
        let begun = Instant::now();
        let Ok(node) = Client::connect(&context.dirs).await else { continue };
        let Ok(status) = node.status().await else { continue };
        // A status of ten thousand offers has its price; never spend more than a twentieth on it.
        pause = (begun.elapsed() * 20).max(Duration::from_secs(1));
        if !status.ready {
            continue;
        }
        let rows = view::rows(&Default::default(), Some(&status), &Default::default());
        let now: BTreeMap<_, _> = rows.iter().map(|row| (format!("{} {}", row.name, row.kind), row.state.to_owned())).collect();
        if told.as_ref() == Some(&now) {
            continue;
        }
        let before = told.replace(now).unwrap_or_default();
        let changed = |row: &&view::Row| before.get(&format!("{} {}", row.name, row.kind)).is_none_or(|state| *state != row.state);
        let news: Vec<_> = rows.iter().filter(changed).cloned().collect();
        if rows.is_empty() && before.is_empty() || !news.is_empty() && news.len() <= MANY {
            printer.note(&view::offers_table(&news));
        } else {
            let ready = rows.iter().filter(|row| row.state == "ready").count();
            printer.note(&format!("{} offers, {ready} ready: `obol sell list` shows them", rows.len()));
        }
        for problem in news.iter().flat_map(|row| &row.problems) {
            printer.problem(problem);
        }
    }
}

/// `OBOL_LOG` (as in `RUST_LOG`) wins over `--verbose`. What is still to be written is written when
/// the guard goes.
pub(super) fn log(format: LogFormat, verbose: bool, human: bool) -> WorkerGuard {
    // A person sees the table of offers; the log adds what went wrong.
    let level = match (verbose, human) {
        (true, _) => "debug,hyper=info,reqwest=info,h2=info,rustls=info",
        (false, true) => "warn",
        (false, false) => "info",
    };
    let filter = std::env::var("OBOL_LOG").ok().and_then(|text| EnvFilter::try_new(text).ok()).unwrap_or_else(|| EnvFilter::new(level));
    // Lines are written by a thread of their own, as many at once as there are. A reader of the log
    // that falls behind loses lines; it never holds up a sale.
    let (writer, guard) = NonBlocking::new(std::io::BufWriter::new(std::io::stderr()));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(human && std::env::var_os("NO_COLOR").is_none()).try_init(),
    };
    guard
}
