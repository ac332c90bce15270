//! Keeps the sessions up, and takes over what a process left that is gone.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, Weak, atomic::Ordering::Relaxed},
};

use obol_payment::Event;
use obol_x402::ReplayKey;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Database, DatabaseError,
    apply::{Names, locked},
    key_of, schema,
    session::Session,
};
use crate::{
    cashier::Core,
    journal::{
        command::Change,
        now_ms,
        row::{Row, key_from_bytes},
        store::MAX_ANSWERS,
    },
};

/// How often it is looked whether all are alive.
const EVERY: Duration = Duration::from_secs(1);
/// First and longest wait before a lost database is tried again. The longest is well below the time
/// after which others take over.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Rounds between two counts of the kept answers.
const COUNT_EVERY: u32 = 30;

/// Processes that have open rows and do not hold their lock.
const GONE: &str = "
    with live as materialized (
        select (l.classid::bigint << 32) | l.objid::bigint as owner from pg_locks l
        where l.locktype = 'advisory' and l.granted and l.objsubid = 1
            and l.database = (select oid from pg_database where datname = current_database()))
    select distinct p.owner from obol.payment p
    where p.is_open and p.owner <> $1 and p.owner not in (select owner from live)";

/// A session of ours that the server still takes for alive.
const END_OLD_SESSION: &str = "
    select pg_terminate_backend(l.pid) from pg_locks l
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1 and l.pid <> pg_backend_pid()
        and l.database = (select oid from pg_database where datname = current_database())
        and ((l.classid::bigint << 32) | l.objid::bigint) = $1";

const ROWS_OF: &str = "select key, owner, detail::text from obol.payment where is_open and owner = $1 order by key limit 500 for update";

const OWN_DOUBTS: &str = "select key, detail::text from obol.payment where is_open and owner = $1 and state in ('pending', 'unknown')";

/// What is known from round to round.
#[derive(Default)]
pub(crate) struct Rounds {
    /// Since when a process is gone. Nothing is known from the time without a connection.
    gone: HashMap<i64, Instant>,
    count: u32,
    /// A commit may have taken rows over without our hearing of it.
    missed: bool,
    /// What others had left open was taken over once.
    pub is_settled: bool,
}

impl Database {
    /// Gives the writing session up, and with it the lock.
    pub(super) fn lose(&self, slot: &mut Option<Session>) {
        *slot = None;
        self.can_write.store(false, Relaxed);
        self.is_ready.store(false, Relaxed);
        self.lost.notify_one();
    }

    /// Connects what is not, looks who is gone, and takes over from those that are for long enough.
    /// Returns the payments of unknown outcome that are ours now.
    pub async fn round(&self, rounds: &mut Rounds) -> Result<Vec<(ReplayKey, Row)>, DatabaseError> {
        let done = self.try_round(rounds).await;
        match &done {
            Ok(_) => {
                rounds.is_settled |= rounds.gone.is_empty();
                self.is_ready.store(rounds.is_settled && self.can_write.load(Relaxed), Relaxed);
            }
            Err(_) => {
                self.is_ready.store(false, Relaxed);
                rounds.gone.clear();
                rounds.missed = true;
            }
        }
        done
    }

    async fn try_round(&self, rounds: &mut Rounds) -> Result<Vec<(ReplayKey, Row)>, DatabaseError> {
        self.connect().await?;
        let gone = self.ask(GONE, &[&self.owner]).await?.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
        rounds.gone.retain(|owner, _| gone.contains(owner));
        let mut unknown = Vec::new();
        for owner in gone {
            let since = *rounds.gone.entry(owner).or_insert_with(Instant::now);
            if since.elapsed() >= self.takeover {
                let rows = self.take_over(owner).await?;
                rounds.gone.remove(&owner);
                unknown.extend(rows);
            }
        }
        if std::mem::take(&mut rounds.missed) {
            for row in self.ask(OWN_DOUBTS, &[&self.owner]).await? {
                unknown.extend(key_of(row.try_get(0)?).zip(serde_json::from_str(row.try_get(1)?).ok()));
            }
        }
        if rounds.count.is_multiple_of(COUNT_EVERY) {
            let rows = self.ask("select coalesce(sum(size), 0)::bigint from obol.answer", &[]).await?;
            let bytes = rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0))?;
            self.answers.store(u64::try_from(bytes).unwrap_or(MAX_ANSWERS), Relaxed);
        }
        rounds.count = rounds.count.wrapping_add(1);
        Ok(unknown)
    }

    async fn connect(&self) -> Result<(), DatabaseError> {
        // While it is held, it works, and finds out itself what breaks.
        if let Ok(mut writer) = self.writer.try_lock() {
            if let Some(session) = &*writer
                && session.run("select 1").await.is_err()
            {
                self.lose(&mut writer);
            }
            if writer.is_none() {
                let session = self.access.connect().await?;
                schema::migrate(&session).await?;
                if !session.query_one("select pg_try_advisory_lock($1)", &[&self.owner]).await?.try_get::<_, bool>(0)? {
                    session.query(END_OLD_SESSION, &[&self.owner]).await?;
                    return Err(DatabaseError::Locked);
                }
                *writer = Some(session);
                self.can_write.store(true, Relaxed);
            }
        }
        if self.reader().is_err() {
            let session = self.access.connect().await?;
            *self.reader.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(session));
        }
        Ok(())
    }

    /// Takes over every open row of a process that is gone, unless it has come back.
    async fn take_over(&self, owner: i64) -> Result<Vec<(ReplayKey, Row)>, DatabaseError> {
        let mut unknown = Vec::new();
        let mut slot = self.writer.lock().await;
        let session = slot.as_ref().ok_or(DatabaseError::NotConnected)?;
        let taken = loop {
            match self.take_some(session, owner, &mut unknown).await {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if taken.is_err() {
            self.lose(&mut slot);
        }
        taken.map(|()| unknown)
    }

    async fn take_some(&self, session: &Session, owner: i64, unknown: &mut Vec<(ReplayKey, Row)>) -> Result<bool, DatabaseError> {
        session.run("begin").await?;
        // Held to the end of the transaction: its owner cannot come back meanwhile.
        let is_gone: bool = session.query_one("select pg_try_advisory_xact_lock($1)", &[&owner]).await?.try_get(0)?;
        if !is_gone {
            session.run("rollback").await?;
            return Ok(false);
        }
        let mut entries = session.query(ROWS_OF, &[&owner]).await?.iter().map(locked).collect::<Result<HashMap<_, _>, _>>()?;
        let (now, change) = (now_ms(), Change::new(&[Event::Restarted]));
        for (key, entry) in &mut entries {
            if entry.row.apply(&change, now).is_ok() && entry.row.state.is_open() {
                unknown.extend(key_from_bytes(key).map(|key| (key, entry.row.clone())));
            }
            (entry.owner, entry.changed) = (self.owner, true);
        }
        self.put(session, &entries, &Names::new()).await?;
        session.run("commit").await?;
        if !entries.is_empty() {
            tracing::warn!(payments = entries.len(), replica = owner, "took over the payments of a replica that is gone");
        }
        Ok(!entries.is_empty())
    }
}

/// Keeps the database connected until the cashier is gone, and hands it what it takes over.
pub(crate) async fn tend(core: Weak<Core>, database: Arc<Database>, mut rounds: Rounds, stop: CancellationToken) {
    let mut wait = EVERY;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = database.lost.notified() => {}
        }
        match database.round(&mut rounds).await {
            Ok(unknown) => {
                if wait < EVERY {
                    tracing::info!("the journal's database is connected");
                }
                wait = EVERY;
                let Some(core) = core.upgrade() else { return };
                for (key, row) in unknown {
                    core.doubt_of_another(key, &row);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the journal's database is not available; no paid work is taken");
                wait = if wait >= EVERY { FIRST_WAIT } else { (wait * 2).min(LONGEST_WAIT - FIRST_WAIT) };
            }
        }
    }
}
