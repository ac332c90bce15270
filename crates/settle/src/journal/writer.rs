//! The one writer: takes what has queued up during the last commit, and commits it as one.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    Database,
    command::{Command, WriteError},
    store::Store,
};

/// Most commands in one transaction.
const MAX_BATCH: usize = 1024;
/// Wait before facts that could not be written are tried again, when nothing else comes.
const RETRY: Duration = Duration::from_secs(1);
/// How long facts that nobody waits for are kept back for company. With few payments they then
/// share the commit of the next one's reservation, which would else queue up behind theirs. A crash
/// meanwhile is as one during the commit: the row still says `settling`, and is asked about.
const LINGER: Duration = Duration::from_millis(2);

/// Runs until every sender is gone and all is written.
pub(super) fn run(store: &Store, inbox: &Receiver<Command>) {
    // Facts not yet durable. As they go first in every batch, nothing overtakes them, and while
    // the disk refuses them nothing new is accepted: the list is bounded by the work in progress.
    let mut backlog = Vec::new();
    loop {
        let (batch, gone) = next_batch(&mut backlog, inbox, LINGER);
        if batch.is_empty() && gone {
            return;
        }
        let failed;
        (backlog, failed) = commit(store, batch);
        if failed && gone {
            tracing::error!(facts = backlog.len(), "the journal closes with unwritten facts; they are asked about at the next start");
            return;
        }
    }
}

/// Commits a batch and answers it; returns what must be tried again, and whether the disk failed.
fn commit(store: &Store, mut batch: Vec<Command>) -> (Vec<Command>, bool) {
    let results = store.apply(&mut batch).map_err(|error| error.to_string());
    if results.is_err() {
        store.reopen();
    }
    conclude(batch, results)
}

/// Answers a batch that is durable or has failed.
fn conclude(batch: Vec<Command>, results: Result<Vec<Result<(), WriteError>>, String>) -> (Vec<Command>, bool) {
    match results {
        Ok(results) => {
            batch.into_iter().zip(results).for_each(|(command, result)| settle(command, result));
            (Vec::new(), false)
        }
        Err(error) => {
            tracing::error!(error, commands = batch.len(), "the journal cannot be written");
            (batch.into_iter().filter_map(postpone).collect(), true)
        }
    }
}

/// The same as a task, for a database: what queues up during one commit is the next.
pub(super) async fn run_shared(database: Arc<Database>, inbox: Receiver<Command>, bell: Arc<Notify>) {
    let mut backlog = Vec::new();
    loop {
        let mut batch: Vec<Command> = std::mem::take(&mut backlog);
        let fresh = batch.is_empty();
        let gone = fill(&mut batch, &inbox);
        if batch.is_empty() {
            if gone {
                return;
            }
            // Nobody rings when the last handle goes.
            drop(tokio::time::timeout(RETRY, bell.notified()).await);
            continue;
        }
        if fresh && !batch.iter().any(is_awaited) {
            tokio::time::sleep(LINGER).await;
            fill(&mut batch, &inbox);
        }
        let results = database.apply(&mut batch).await.map_err(|error| error.to_string());
        let failed;
        (backlog, failed) = conclude(batch, results);
        if failed && gone {
            tracing::error!(facts = backlog.len(), "the journal closes with unwritten facts; another replica asks about them");
            return;
        }
        if failed && !backlog.is_empty() {
            drop(tokio::time::timeout(RETRY, bell.notified()).await);
        }
    }
}

/// Takes what has queued up, as far as there is room; true when no more will come.
fn fill(batch: &mut Vec<Command>, inbox: &Receiver<Command>) -> bool {
    while batch.len() < MAX_BATCH {
        match inbox.try_recv() {
            Ok(command) => batch.push(command),
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => return true,
        }
    }
    false
}

/// The same as a task: what queues up during a commit's latency is committed with it. The writer
/// rests while `bell` is silent.
#[cfg(feature = "sim")]
pub(super) async fn run_simulated(store: Arc<Store>, inbox: Receiver<Command>, bell: Arc<Notify>, host: Arc<dyn crate::sim::Host>) {
    let mut backlog = Vec::new();
    loop {
        if backlog.is_empty() {
            bell.notified().await;
        } else {
            drop(tokio::time::timeout(RETRY, bell.notified()).await);
        }
        tokio::time::sleep(host.commit_latency()).await;
        let mut batch = std::mem::take(&mut backlog);
        batch.extend(inbox.try_iter());
        if !batch.is_empty() {
            backlog = commit(&store, batch).0;
        }
    }
}

/// The backlog and what has queued up; the flag says that no more will come.
fn next_batch(backlog: &mut Vec<Command>, inbox: &Receiver<Command>, linger: Duration) -> (Vec<Command>, bool) {
    let mut batch = std::mem::take(backlog);
    let fresh = batch.is_empty();
    let first = if fresh { inbox.recv().map_err(|_| RecvTimeoutError::Disconnected) } else { inbox.recv_timeout(RETRY) };
    let mut gone = matches!(first, Err(RecvTimeoutError::Disconnected));
    batch.extend(first.ok());
    let room = MAX_BATCH.saturating_sub(batch.len());
    batch.extend(inbox.try_iter().take(room));
    let end = Instant::now() + linger;
    while fresh && !gone && batch.len() < MAX_BATCH && !batch.iter().any(is_awaited) {
        match inbox.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(command) => batch.push(command),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => gone = true,
        }
    }
    (batch, gone)
}

/// Whether somebody waits until it is durable.
fn is_awaited(command: &Command) -> bool {
    match command {
        Command::Reserve { .. } | Command::Try { .. } | Command::Archive { .. } | Command::Flush { .. } => true,
        Command::Must { reply, .. } => reply.is_some(),
        Command::Undo { .. } => false,
    }
}

/// Answers a command whose transaction is durable.
fn settle(command: Command, result: Result<(), WriteError>) {
    // A reply that nobody waits for any more is dropped: a reservation then gives itself back.
    match command {
        Command::Reserve { mut reservation, reply, .. } => drop(reply.send(result.map(|()| {
            reservation.arm();
            reservation
        }))),
        Command::Try { reply, .. } | Command::Flush { reply } | Command::Archive { reply, .. } => drop(reply.send(result)),
        Command::Must { key, change, reply, hold } => {
            if let Err(error) = &result {
                tracing::error!(payment = %key, events = ?change.events, ?error, "a transition that the table does not allow was left out");
            }
            // Before the reply: who hears how it ended may come again at once, and finds nothing in the way.
            drop(hold);
            if let Some(reply) = reply {
                drop(reply.send(result));
            }
        }
        Command::Undo { .. } => {}
    }
}

/// Answers a command whose transaction failed, or keeps what must be written.
fn postpone(command: Command) -> Option<Command> {
    match command {
        Command::Reserve { key, reply, .. } => {
            drop(reply.send(Err(WriteError::Unavailable)));
            Some(Command::Undo { key })
        }
        Command::Try { reply, .. } | Command::Flush { reply } | Command::Archive { reply, .. } => {
            drop(reply.send(Err(WriteError::Unavailable)));
            None
        }
        keep @ (Command::Must { .. } | Command::Undo { .. }) => Some(keep),
    }
}

#[cfg(test)]
mod tests {
    use obol_payment::Event;
    use obol_x402::ReplayKey;
    use tokio::sync::oneshot;

    use super::*;
    use crate::journal::Change;

    fn fact() -> Command {
        let key = ReplayKey { chain_id: 1, contract: [1; 20].into(), payer: [2; 20].into(), nonce: [3; 32].into() };
        Command::Must { key, change: Change::new(&[Event::Delivered]), hold: None, reply: None }
    }

    #[test]
    fn facts_wait_for_company_and_nobody_else_waits() {
        let (sender, inbox) = std::sync::mpsc::channel();
        let long = Duration::from_secs(600);
        let latecomer = std::thread::spawn({
            let sender = sender.clone();
            move || {
                sender.send(fact()).unwrap();
                std::thread::sleep(Duration::from_millis(20));
                sender.send(Command::Flush { reply: oneshot::channel().0 }).unwrap();
            }
        });
        // Were the flush not waited for, or itself kept back, this would be one, or take for ever.
        assert_eq!(next_batch(&mut Vec::new(), &inbox, long).0.len(), 2);
        latecomer.join().unwrap();
        sender.send(fact()).unwrap();
        assert_eq!(next_batch(&mut Vec::new(), &inbox, Duration::ZERO).0.len(), 1, "facts alone are written too");
        sender.send(fact()).unwrap();
        drop(sender);
        let (batch, gone) = next_batch(&mut Vec::new(), &inbox, long);
        assert!(batch.len() == 1 && gone);
    }
}
