//! The journal: one durable row per payment, written by one thread that commits many at once.
//!
//! A row is inserted or changed only as the table of `obol-payment` allows, inside the writer, so
//! no two requests can both believe that a payment is theirs. Facts (money moved, an answer was
//! delivered) are kept in memory and written again until they are durable.

mod archive;
mod command;
mod row;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::Path,
    sync::{Arc, mpsc},
};

use obol_payment::Event;
use obol_x402::ReplayKey;
use tokio::sync::oneshot;

pub(crate) use command::{Change, Hold, WriteError};
#[cfg(fuzzing)]
pub(crate) use row::key_from_bytes;
pub(crate) use row::{Ask, Row, key_bytes, key_from_hex, key_hex};
pub(crate) use store::now_ms;

use self::{
    archive::Archive,
    command::Command,
    store::{Opener, Store},
};
use crate::{OpenError, StoredAnswer, claims::Claim};

/// A handle on the journal. The writer ends, and the file is unlocked, when the last one is gone.
#[derive(Clone)]
pub(crate) struct Journal {
    store: Arc<Store>,
    archive: Archive,
    commands: mpsc::Sender<Command>,
    /// Wakes a simulated writer.
    #[cfg(feature = "sim")]
    bell: Option<Arc<tokio::sync::Notify>>,
}

impl Journal {
    /// Opens the file, resolves what a crash left open, and returns the payments of unknown outcome.
    pub fn open(path: &Path) -> Result<(Self, Vec<(ReplayKey, Row)>), OpenError> {
        store::prepare(path).map_err(|error| OpenError::Journal { path: path.to_owned(), cause: error.to_string() })?;
        Self::open_with(path, store::opener(path))
    }

    fn open_with(path: &Path, opener: Opener) -> Result<(Self, Vec<(ReplayKey, Row)>), OpenError> {
        let store = Arc::new(Store::open(path, opener)?);
        let unknown = store.restart().map_err(|error| store::storage_error(path, error))?;
        let (commands, inbox) = mpsc::channel();
        let writer_store = Arc::clone(&store);
        std::thread::Builder::new()
            .name("obol-journal".to_owned())
            .spawn(move || writer::run(&writer_store, &inbox))
            .map_err(|error| OpenError::Journal { path: path.to_owned(), cause: error.to_string() })?;
        let journal = Self {
            store,
            archive: Archive::beside(path),
            commands,
            #[cfg(feature = "sim")]
            bell: None,
        };
        Ok((journal, unknown))
    }

    /// Opens what a simulated host has, with a writer that is a task of this runtime.
    #[cfg(feature = "sim")]
    pub fn open_simulated(path: &Path, host: &Arc<dyn crate::sim::Host>) -> Result<(Self, Vec<(ReplayKey, Row)>), OpenError> {
        let disk = Arc::clone(host);
        let store = Arc::new(Store::open(path, Box::new(move || disk.open(&store::builder())))?);
        let unknown = store.restart().map_err(|error| store::storage_error(path, error))?;
        let (commands, inbox) = mpsc::channel();
        let bell = Arc::new(tokio::sync::Notify::new());
        tokio::spawn(writer::run_simulated(Arc::clone(&store), inbox, Arc::clone(&bell), Arc::clone(host)));
        Ok((Self { store, archive: Archive::beside(path), commands, bell: Some(bell) }, unknown))
    }

    /// The row of a payment, as last committed. Reads a few cached pages; never waits for a write.
    pub fn read(&self, key: &ReplayKey) -> Result<Option<Row>, WriteError> {
        self.store.read(key).map_err(|error| {
            tracing::error!(%error, payment = %key, "the journal cannot be read");
            WriteError::Unavailable
        })
    }

    /// Every row, in no order that means anything.
    pub fn each(&self, mut visit: impl FnMut(ReplayKey, Row)) -> Result<(), redb::Error> {
        self.store.open_rows(&mut visit)?;
        self.store.closed(None, |key, row| {
            visit(key, row);
            ControlFlow::Continue(())
        })
    }

    /// Rows that work goes on for.
    pub fn open_rows(&self, mut visit: impl FnMut(ReplayKey, Row)) -> Result<(), redb::Error> {
        self.store.open_rows(&mut visit)
    }

    /// Closed rows behind a key, in the order of keys, until told to stop.
    pub fn closed_rows(&self, from: Option<ReplayKey>, visit: impl FnMut(ReplayKey, Row) -> ControlFlow<()>) -> Result<(), redb::Error> {
        self.store.closed(from, visit)
    }

    /// How much of each month's archive counts, in bytes.
    pub fn marks(&self) -> Result<BTreeMap<String, u64>, redb::Error> {
        self.store.marks()
    }

    /// The archives.
    pub fn archive_files(&self) -> &Archive {
        &self.archive
    }

    /// The answer that is kept with a payment.
    pub fn answer(&self, key: &ReplayKey) -> Option<StoredAnswer> {
        let bytes = self.store.answer(key).inspect_err(|error| tracing::error!(%error, "an answer that was kept cannot be read"));
        bytes.ok().flatten().and_then(|bytes| StoredAnswer::decode(&bytes))
    }

    /// Reserves a payment durably, for as long as the reservation is held.
    pub async fn reserve(&self, key: ReplayKey, row: Row, claim: Claim) -> Result<Reservation, WriteError> {
        let reservation = Reservation { journal: self.clone(), key, claim: Some(claim), undo: None };
        let (reply, answer) = oneshot::channel();
        self.send(Command::Reserve { key, row: Box::new(row), reservation, reply });
        answer.await.unwrap_or(Err(WriteError::Unavailable))
    }

    /// Writes that the facilitator is about to be asked; it must not be asked if this fails.
    async fn begin(&self, key: ReplayKey, ask: Ask, kept: Option<Vec<u8>>) -> Result<(), WriteError> {
        let (reply, answer) = oneshot::channel();
        let change = Change { ask: Some(Box::new(ask)), answer: kept, ..Change::new(&[Event::CaptureBegun]) };
        self.send(Command::Try { key, change, reply });
        answer.await.unwrap_or(Err(WriteError::Unavailable))
    }

    /// Has a fact written, in the order of the calls, and does not wait for it.
    pub fn post(&self, key: ReplayKey, change: Change, hold: Option<Hold>) {
        self.send(Command::Must { key, change, hold, reply: None });
    }

    /// As [`post`](Self::post), and waits until it is durable, however long that takes.
    pub async fn record(&self, key: ReplayKey, change: Change) -> Result<(), WriteError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Must { key, change, hold: None, reply: Some(reply) });
        answer.await.unwrap_or(Err(WriteError::Unavailable))
    }

    /// Waits until everything that was said so far is durable; an error when it cannot be now.
    pub async fn flush(&self) -> Result<(), WriteError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Flush { reply });
        answer.await.unwrap_or(Err(WriteError::Unavailable))
    }

    fn send(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("the journal's writer is gone; the state on disk is resolved at the next start");
        }
        #[cfg(feature = "sim")]
        if let Some(bell) = &self.bell {
            bell.notify_one();
        }
    }
}

/// A payment reserved in the journal. Dropped, it writes what is true at that moment, and only then
/// lets go of the claim.
pub(crate) struct Reservation {
    journal: Journal,
    key: ReplayKey,
    claim: Option<Claim>,
    /// What happened if this is dropped; `None` when nothing is to be written.
    undo: Option<&'static [Event]>,
}

impl Reservation {
    /// The write was durable: from now on it is to be given back.
    fn arm(&mut self) {
        self.undo = Some(&[Event::GivenBack]);
    }

    /// The claim that goes with it.
    pub fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    /// Writes that the facilitator is about to be asked, and the answer that is kept if it pays.
    pub async fn begin(&mut self, ask: Ask, answer: Option<Vec<u8>>) -> Result<(), WriteError> {
        // Whether the write reached the disk is not known before it is answered.
        self.undo = Some(&[Event::SettleNotAsked]);
        self.journal.begin(self.key, ask, answer).await?;
        self.undo = Some(&[Event::SettleUnknown]);
        Ok(())
    }

    /// Has it written how it ended. The claim is let go when that is durable.
    pub fn finish(mut self, change: Change) {
        self.undo = None;
        let claim = self.claim.take();
        self.journal.post(self.key, change, Some(Box::new(claim)));
    }

    /// As [`finish`](Self::finish), and waits until that is durable, however long that takes.
    pub async fn finish_durably(mut self, change: Change) -> Result<(), WriteError> {
        self.undo = None;
        let hold: Hold = Box::new(self.claim.take());
        let (reply, answer) = oneshot::channel();
        self.journal.send(Command::Must { key: self.key, change, hold: Some(hold), reply: Some(reply) });
        answer.await.unwrap_or(Err(WriteError::Unavailable))
    }

    /// Gives the payment back, and waits until that is durable.
    pub async fn release(mut self) {
        self.undo = None;
        // The claim goes with `self`, when the row says so. If the writer is gone, the row is
        // released at the next start.
        let _ = self.journal.record(self.key, Change::new(&[Event::GivenBack])).await;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(events) = self.undo.take() {
            let claim = self.claim.take();
            self.journal.post(self.key, Change::new(events), Some(Box::new(claim)));
        }
    }
}
