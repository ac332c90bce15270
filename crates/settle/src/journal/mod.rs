//! The journal: one durable row per payment, written by one writer that commits many at once, into a
//! file of this process or a database that several share.
//!
//! A row is inserted or changed only as the table of `obol-payment` allows, inside the writer, so
//! no two requests can both believe that a payment is theirs. Facts (money moved, an answer was
//! delivered) are kept in memory and written again until they are durable.

mod archive;
mod command;
mod postgres;
mod row;
mod store;
#[cfg(test)]
mod tests;
mod transition;
mod writer;

use std::{
    path::Path,
    sync::{Arc, mpsc},
};

use obol_offer::{Amount, B256};
use obol_payment::{Event, State};
use obol_x402::ReplayKey;
use tokio::sync::oneshot;

pub(crate) use command::{Change, Hold, WriteError};
#[cfg(fuzzing)]
pub(crate) use row::key_from_bytes;
pub(crate) use row::{Ask, Row, key_bytes, key_from_hex, key_hex, name_of};
pub(crate) use store::now_ms;

use self::{command::Command, store::Opener};
pub(crate) use self::{
    postgres::{Database, DatabaseError, Rounds, tend},
    store::Store,
};
use crate::{OpenError, StoredAnswer, claims::Claim};

/// Where the rows are.
#[derive(Clone)]
pub(crate) enum Storage {
    /// A file of this process alone.
    File(Arc<Store>),
    /// A database that several processes share.
    Shared(Arc<Database>),
}

/// A handle on the journal. The writer ends, and the file is unlocked, when the last one is gone.
#[derive(Clone)]
pub(crate) struct Journal {
    pub(crate) storage: Storage,
    commands: mpsc::Sender<Command>,
    /// Wakes a writer that is a task.
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
        let journal = Self { storage: Storage::File(store), commands, bell: None };
        Ok((journal, unknown))
    }

    /// A journal in a database, which need not be connected yet; its writer is a task of this runtime.
    pub fn in_database(database: Arc<Database>) -> Self {
        let (commands, inbox) = mpsc::channel();
        let bell = Arc::new(tokio::sync::Notify::new());
        tokio::spawn(writer::run_shared(Arc::clone(&database), inbox, Arc::clone(&bell)));
        Self { storage: Storage::Shared(database), commands, bell: Some(bell) }
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
        Ok((Self { storage: Storage::File(store), commands, bell: Some(bell) }, unknown))
    }

    /// Whether it can be read and written, as far as is known.
    pub fn is_ready(&self) -> bool {
        match &self.storage {
            Storage::File(_) => true,
            Storage::Shared(database) => database.is_ready(),
        }
    }

    /// Whether other processes work on payments of this journal too.
    pub const fn is_shared(&self) -> bool {
        matches!(self.storage, Storage::Shared(_))
    }

    /// The row of a payment, as last committed. Never waits for a write.
    pub async fn read(&self, key: &ReplayKey) -> Result<Option<Row>, WriteError> {
        let read = match &self.storage {
            // A few cached pages.
            Storage::File(store) => store.read(key).map_err(|error| error.to_string()),
            Storage::Shared(database) => database.read(key).await.map_err(|error| error.to_string()),
        };
        readable(key, read)
    }

    /// As [`read`](Self::read), but while another process works on the payment, and the row is one that
    /// `is_same`, that is waited for, within bounds.
    pub async fn read_when_done(
        &self,
        key: &ReplayKey,
        is_same: impl Fn(&Row) -> bool,
        until: tokio::time::Instant,
    ) -> Result<Option<Row>, WriteError> {
        match &self.storage {
            Storage::File(_) => self.read(key).await,
            Storage::Shared(database) => {
                readable(key, database.read_when_done(key, is_same, until).await.map_err(|error| error.to_string()))
            }
        }
    }

    /// The payment that bought what a payer calls by a name ([`name_of`]).
    pub async fn named(&self, name: &B256) -> Result<Option<(ReplayKey, Row)>, WriteError> {
        let named = match &self.storage {
            Storage::File(store) => store.named(name).map_err(|error| error.to_string()),
            Storage::Shared(database) => database.named(name).await.map_err(|error| error.to_string()),
        };
        named.map_err(|error| {
            tracing::error!(error, "the journal cannot be read");
            WriteError::Unavailable
        })
    }

    /// The answer that is kept with a payment.
    pub async fn answer(&self, key: &ReplayKey) -> Option<StoredAnswer> {
        let bytes = match &self.storage {
            Storage::File(store) => store.answer(key).map_err(|error| error.to_string()),
            Storage::Shared(database) => database.answer(key).await.map_err(|error| error.to_string()),
        };
        let bytes = bytes.inspect_err(|error| tracing::error!(error, "an answer that was kept cannot be read"));
        bytes.ok().flatten().and_then(|bytes| StoredAnswer::decode(&bytes))
    }

    /// Reserves a payment durably, for as long as the reservation is held. What its payer may owe is counted here only
    /// where several processes share the journal.
    pub async fn reserve(&self, key: ReplayKey, row: Row, claim: Claim, limit: Option<Amount>) -> Result<Reservation, WriteError> {
        let reservation = Reservation { journal: self.clone(), key, claim: Some(claim), undo: None };
        let (reply, answer) = oneshot::channel();
        self.send(Command::Reserve { key, row: Box::new(row), limit, reservation, reply });
        answer.await.unwrap_or(Err(WriteError::Unavailable))
    }

    /// Writes a transition, or says why it is not allowed now.
    pub async fn change(&self, key: ReplayKey, change: Change) -> Result<(), WriteError> {
        let (reply, answer) = oneshot::channel();
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

    #[cfg(test)]
    fn store(&self) -> &Arc<Store> {
        let Storage::File(store) = &self.storage else { panic!("a file") };
        store
    }

    fn send(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("the journal's writer is gone; the state on disk is resolved at the next start");
        }
        if let Some(bell) = &self.bell {
            bell.notify_one();
        }
    }
}

fn readable(key: &ReplayKey, read: Result<Option<Row>, String>) -> Result<Option<Row>, WriteError> {
    read.map_err(|error| {
        tracing::error!(error, payment = %key, "the journal cannot be read");
        WriteError::Unavailable
    })
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

    /// Writes that the facilitator is about to be asked, and the answer that is kept if it pays; it must not be asked
    /// if this fails.
    pub async fn begin(&mut self, ask: Ask, answer: Option<Vec<u8>>) -> Result<(), WriteError> {
        self.write_begun(&[Event::CaptureBegun], ask, answer).await
    }

    /// As [`begin`](Self::begin), for a payment that was given back by who took this process for dead, or is in `state`
    /// because an earlier try reached the disk although it failed.
    pub async fn begin_anew(&mut self, state: State, ask: Ask) -> Result<(), WriteError> {
        let events: &[Event] = match state {
            State::Settling => &[Event::SettleNotAsked, Event::Admitted, Event::CaptureBegun],
            _ => &[Event::Admitted, Event::CaptureBegun],
        };
        self.write_begun(events, ask, None).await
    }

    async fn write_begun(&mut self, events: &'static [Event], ask: Ask, answer: Option<Vec<u8>>) -> Result<(), WriteError> {
        // Whether the write reached the disk is not known before it is answered.
        self.undo = Some(&[Event::SettleNotAsked]);
        self.journal.change(self.key, Change { ask: Some(Box::new(ask)), answer, ..Change::new(events) }).await?;
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
