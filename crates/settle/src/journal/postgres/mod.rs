//! The journal in a PostgreSQL database, which several processes share.
//!
//! Every process has a number of its own, holds the advisory lock of that number on the one session
//! it writes with, and puts the number into the rows it works on. A lock that is gone tells that its
//! process is, or cannot write any more; another process then takes the rows over. A write is durable
//! only on a session that holds the lock, so nobody writes who was taken for dead.

mod apply;
mod archive;
mod ledger;
mod schema;
mod session;
mod tend;

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use obol_offer::B256;
use obol_payment::State;
use obol_x402::ReplayKey;
use tokio::{
    sync::{Mutex, Notify},
    time::{Duration, Instant},
};

use self::session::{Access, Session};
pub(crate) use self::{
    session::DatabaseError,
    tend::{Rounds, tend},
};
use super::row::{KEY_LEN, Row, key_bytes, key_from_bytes};

/// How often a payment that another process works on is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// The database, with the sessions of this process.
pub(crate) struct Database {
    access: Access,
    /// Number of this process.
    owner: i64,
    /// How long a process may be gone before its rows are taken over.
    takeover: Duration,
    /// Holds the lock; its transactions are the only ones that change payments.
    writer: Mutex<Option<Session>>,
    /// Single statements of everybody else, side by side.
    reader: RwLock<Option<Arc<Session>>>,
    /// Whether the writing session is there.
    can_write: AtomicBool,
    /// A session is lost.
    lost: Notify,
    is_ready: AtomicBool,
    /// Bytes of all answers, as last counted, and of those kept since.
    answers: AtomicU64,
}

impl Database {
    /// A database that is not connected yet.
    pub fn new(url: &str, takeover: Duration) -> Result<Self, String> {
        // Positive, so that it reads well in `pg_locks`.
        let owner = i64::from_be_bytes(rand::random()) & i64::MAX;
        Ok(Self {
            access: Access::parse(url)?,
            owner,
            takeover,
            writer: Mutex::default(),
            reader: RwLock::default(),
            can_write: AtomicBool::new(false),
            lost: Notify::new(),
            is_ready: AtomicBool::new(false),
            answers: AtomicU64::new(0),
        })
    }

    /// Connected, and what other processes left open was taken over once.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Relaxed)
    }

    fn reader(&self) -> Result<Arc<Session>, DatabaseError> {
        self.reader.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(DatabaseError::NotConnected)
    }

    /// The result of a question to the reading session, which is given up if it is broken.
    fn heard<T>(&self, session: &Session, result: Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        if let Err(error) = &result
            && (session.client.is_closed() || matches!(error, DatabaseError::TimedOut))
        {
            // Many may hear of it; there may be a new one by then.
            self.reader.write().unwrap_or_else(PoisonError::into_inner).take_if(|current| std::ptr::eq(&raw const **current, session));
            self.is_ready.store(false, Relaxed);
            self.lost.notify_one();
        }
        result
    }

    async fn ask(&self, sql: &'static str, parameters: session::Parameters<'_>) -> Result<Vec<tokio_postgres::Row>, DatabaseError> {
        let session = self.reader()?;
        let rows = session.query(sql, parameters).await;
        self.heard(&session, rows)
    }

    /// The row of a payment, and whose it is.
    async fn find(&self, key: &ReplayKey) -> Result<Option<(i64, Row)>, DatabaseError> {
        let rows = self.ask("select owner, detail::text from obol.payment where key = $1", &[&key_bytes(key).as_slice()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some((row.try_get(0)?, serde_json::from_str(row.try_get(1)?)?)))
    }

    /// The row of a payment.
    pub async fn read(&self, key: &ReplayKey) -> Result<Option<Row>, DatabaseError> {
        Ok(self.find(key).await?.map(|(_, row)| row))
    }

    /// The payment that bought what a payer calls by a name.
    pub async fn named(&self, name: &B256) -> Result<Option<(ReplayKey, Row)>, DatabaseError> {
        const NAMED: &str = "select p.key, p.detail::text from obol.name n join obol.payment p on p.key = n.key where n.name = $1";
        let rows = self.ask(NAMED, &[&name.as_slice()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let named: Row = serde_json::from_str(row.try_get(1)?)?;
        Ok(key_of(row.try_get(0)?).map(|key| (key, named)))
    }

    /// The answer that is kept with a payment.
    pub async fn answer(&self, key: &ReplayKey) -> Result<Option<Vec<u8>>, DatabaseError> {
        let rows = self.ask("select body from obol.answer where key = $1", &[&key_bytes(key).as_slice()]).await?;
        Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
    }

    /// The row of a payment; while another process works on it for this request, that is waited for.
    pub async fn read_when_done(
        &self,
        key: &ReplayKey,
        is_same: impl Fn(&Row) -> bool,
        until: Instant,
    ) -> Result<Option<Row>, DatabaseError> {
        loop {
            let Some((owner, row)) = self.find(key).await? else { return Ok(None) };
            let is_elsewhere = owner != self.owner && matches!(row.state, State::Reserved | State::Settling) && is_same(&row);
            if !is_elsewhere || Instant::now() >= until {
                return Ok(Some(row));
            }
            tokio::time::sleep(GLANCE).await;
        }
    }
}

/// A key as a column of it.
fn key_of(bytes: &[u8]) -> Option<ReplayKey> {
    key_from_bytes(<&[u8; KEY_LEN]>::try_from(bytes).ok()?)
}

/// Moments and counts as the database has them.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
