//! The file: redb tables, opened, applied to and read.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use obol_offer::B256;
use obol_payment::Event;
use obol_x402::ReplayKey;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::{
    archive::Archive,
    command::{Change, Command, WriteError},
    row::{KEY_LEN, Row, key_bytes, key_from_bytes, name_of},
};
use crate::OpenError;

type Rows = TableDefinition<'static, &'static [u8; KEY_LEN], &'static [u8]>;
type RowTable<'txn> = Table<'txn, &'static [u8; KEY_LEN], &'static [u8]>;

/// Rows that work goes on for; a restart reads these and no others.
const OPEN: Rows = TableDefinition::new("open");
/// Rows that are done.
const CLOSED: Rows = TableDefinition::new("closed");
/// How much of each month's archive counts, in bytes.
const ARCHIVES: TableDefinition<'static, &'static str, u64> = TableDefinition::new("archives");
/// Answers that are kept for buyers who did not get them; the sum of their sizes is in `meta`.
const ANSWERS: Rows = TableDefinition::new("answers");
const ANSWERS_SIZE: &str = "answers_size";
/// Bound on that sum; an answer above it is not kept.
pub(super) const MAX_ANSWERS: u64 = if cfg!(test) { 4096 } else { 256 << 20 };
/// Payments by what their payers call them: [`name_of`] to the key of a row.
const NAMES: TableDefinition<'static, &'static [u8; 32], &'static [u8; KEY_LEN]> = TableDefinition::new("names");
const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");
/// 2 added the archives and the answers. 3 added payments whose nonce Permit2 keeps, which an older
/// program would take for others, the payers' names, and the states of a second run and a refund. A file of
/// an older format is brought up when it is opened.
const FORMAT: u64 = 3;
/// Formats that can be brought up.
const OLDER: [u64; 2] = [1, 2];

/// How long an open waits for a process that is just going.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// Opens the database file; a seam for tests that let the disk fail.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The journal's file. `None` inside while it cannot be opened again after a failure.
pub(crate) struct Store {
    database: RwLock<Option<Database>>,
    opener: Opener,
    /// Where its closed rows go.
    pub archive: Archive,
}

/// How the file is opened.
pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(16 << 20).set_check_integrity_on_open(true);
    builder
}

pub(super) fn opener(path: &Path) -> Opener {
    let path = path.to_owned();
    Box::new(move || builder().create(&path))
}

/// Creates the file for its owner only, and its folder, durably. It is made whole under another name
/// first: redb takes a file whose making was cut short for a damaged one.
pub(super) fn prepare(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    if path.try_exists()? {
        return Ok(());
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&fresh)?;
    drop(Database::create(&fresh).map_err(std::io::Error::other)?);
    file.sync_all()?;
    // A link never replaces a journal that another process has made meanwhile.
    match std::fs::hard_link(&fresh, path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => std::fs::remove_file(&fresh)?,
    }
    std::fs::File::open(folder)?.sync_all()
}

impl Store {
    pub fn open(path: &Path, opener: Opener) -> Result<Self, OpenError> {
        let started = Instant::now();
        let database = loop {
            match opener() {
                Ok(database) => break database,
                Err(DatabaseError::DatabaseAlreadyOpen) if started.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(open_error(path, error)),
            }
        };
        check_format(path, &database)?;
        Ok(Self { database: RwLock::new(Some(database)), opener, archive: Archive::beside(path) })
    }

    /// Opens the file anew: redb takes no more writes after one failed.
    pub fn reopen(&self) {
        let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The old one goes first, it holds the lock on the file.
        *slot = None;
        match (self.opener)() {
            Ok(database) => *slot = Some(database),
            Err(error) => tracing::error!(%error, "the journal cannot be opened again"),
        }
    }

    pub fn read(&self, key: &ReplayKey) -> Result<Option<Row>, redb::Error> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let txn = slot.as_ref().ok_or(redb::Error::DatabaseClosed)?.begin_read()?;
        let key = key_bytes(key);
        for table in [OPEN, CLOSED] {
            if let Some(value) = txn.open_table(table)?.get(&key)? {
                return parse(value.value()).map(Some);
            }
        }
        Ok(None)
    }

    /// Rows that work goes on for.
    pub fn open_rows(&self, mut visit: impl FnMut(ReplayKey, Row)) -> Result<(), redb::Error> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let txn = slot.as_ref().ok_or(redb::Error::DatabaseClosed)?.begin_read()?;
        for entry in txn.open_table(OPEN)?.iter()? {
            let (key, value) = entry?;
            if let Some(key) = key_from_bytes(key.value()) {
                visit(key, parse(value.value())?);
            }
        }
        Ok(())
    }

    /// Closed rows behind a key, in the order of keys, until told to stop.
    pub fn closed(&self, behind: Option<ReplayKey>, mut visit: impl FnMut(ReplayKey, Row) -> ControlFlow<()>) -> Result<(), redb::Error> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let txn = slot.as_ref().ok_or(redb::Error::DatabaseClosed)?.begin_read()?;
        // The file may be opened anew meanwhile: this read keeps its own view of the old one.
        drop(slot);
        let behind = behind.as_ref().map(key_bytes);
        let start = behind.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        for entry in txn.open_table(CLOSED)?.range::<&[u8; KEY_LEN]>((start, Bound::Unbounded))? {
            let (key, value) = entry?;
            if let Some(key) = key_from_bytes(key.value())
                && visit(key, parse(value.value())?).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// Every row, in no order that means anything.
    pub fn each(&self, mut visit: impl FnMut(ReplayKey, Row)) -> Result<(), redb::Error> {
        self.open_rows(&mut visit)?;
        self.closed(None, |key, row| {
            visit(key, row);
            ControlFlow::Continue(())
        })
    }

    pub fn named(&self, name: &B256) -> Result<Option<(ReplayKey, Row)>, redb::Error> {
        let found = {
            let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let txn = slot.as_ref().ok_or(redb::Error::DatabaseClosed)?.begin_read()?;
            txn.open_table(NAMES)?.get(&name.0)?.and_then(|key| key_from_bytes(key.value()))
        };
        let Some(key) = found else { return Ok(None) };
        Ok(self.read(&key)?.map(|row| (key, row)))
    }

    /// The answer that is kept with a payment.
    pub fn answer(&self, key: &ReplayKey) -> Result<Option<Vec<u8>>, redb::Error> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let txn = slot.as_ref().ok_or(redb::Error::DatabaseClosed)?.begin_read()?;
        Ok(txn.open_table(ANSWERS)?.get(&key_bytes(key))?.map(|answer| answer.value().to_vec()))
    }

    /// How much of each month's archive counts, in bytes.
    pub fn marks(&self) -> Result<BTreeMap<String, u64>, redb::Error> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let txn = slot.as_ref().ok_or(redb::Error::DatabaseClosed)?.begin_read()?;
        let table = txn.open_table(ARCHIVES)?;
        let marks = table.iter()?.map(|entry| entry.map(|(month, mark)| (month.value().to_owned(), mark.value())));
        Ok(marks.collect::<Result<_, _>>()?)
    }

    /// Applies commands in order, in one durable transaction. The outer error means that nothing
    /// of it counts (though some may have reached the disk).
    pub fn apply(&self, commands: &mut [Command]) -> Result<Vec<Result<(), WriteError>>, redb::Error> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let txn = slot.as_ref().ok_or(redb::Error::DatabaseClosed)?.begin_write()?;
        let now = now_ms();
        let mut results = Vec::with_capacity(commands.len());
        {
            let mut tables = Tables { txn: &txn, open: txn.open_table(OPEN)?, closed: txn.open_table(CLOSED)? };
            for command in commands {
                results.push(match command {
                    Command::Archive { rows, month, mark, .. } => {
                        tables.remove(rows)?;
                        txn.open_table(ARCHIVES)?.insert(month.as_str(), *mark)?;
                        Ok(())
                    }
                    command => tables.apply(command, now)?,
                });
            }
        }
        txn.commit()?;
        Ok(results)
    }

    /// Applies [`Event::Restarted`] to every open row, and returns those still open: the unknown.
    pub fn restart(&self) -> Result<Vec<(ReplayKey, Row)>, redb::Error> {
        let slot = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let txn = slot.as_ref().ok_or(redb::Error::DatabaseClosed)?.begin_write()?;
        let mut unknown = Vec::new();
        {
            let mut tables = Tables { txn: &txn, open: txn.open_table(OPEN)?, closed: txn.open_table(CLOSED)? };
            let mut keys = Vec::new();
            for entry in tables.open.iter()? {
                keys.extend(key_from_bytes(entry?.0.value()));
            }
            for key in keys {
                let change = Change::new(&[Event::Restarted]);
                if let Ok(row) = tables.change(&key, &change, now_ms())?
                    && row.state.is_open()
                {
                    unknown.push((key, row));
                }
            }
        }
        txn.commit()?;
        Ok(unknown)
    }
}

struct Tables<'txn> {
    /// For the tables that most writes do not touch.
    txn: &'txn WriteTransaction,
    open: RowTable<'txn>,
    closed: RowTable<'txn>,
}

impl Tables<'_> {
    fn apply(&mut self, command: &mut Command, now: u64) -> Result<Result<(), WriteError>, redb::Error> {
        Ok(match command {
            Command::Reserve { key, row, .. } => self.reserve(key, row, now)?,
            Command::Try { key, change, .. } | Command::Must { key, change, .. } => self.change(key, change, now)?.map(drop),
            Command::Undo { key } => self.change(key, &Change::new(&[Event::GivenBack]), now)?.map(drop),
            Command::Flush { .. } | Command::Archive { .. } => Ok(()),
        })
    }

    /// Removes closed rows that are still as they were.
    fn remove(&mut self, rows: &[(ReplayKey, Row)]) -> Result<(), redb::Error> {
        for (key, row) in rows {
            let key = key_bytes(key);
            let same = match self.closed.get(&key)? {
                Some(value) => parse(value.value())? == *row,
                None => false,
            };
            if same {
                self.closed.remove(&key)?;
                self.forget(&key, row.answer)?;
                self.unname(&key, row)?;
            }
        }
        Ok(())
    }

    /// Lets go of the payer's name for a row, unless another row has it by now.
    fn unname(&self, key: &[u8; KEY_LEN], row: &Row) -> Result<(), redb::Error> {
        let Some(name) = key_from_bytes(key).zip(row.id.as_deref()).map(|(key, id)| name_of(key.payer, id)) else { return Ok(()) };
        let mut names = self.txn.open_table(NAMES)?;
        if names.get(&name.0)?.is_some_and(|named| named.value() == key) {
            names.remove(&name.0)?;
        }
        Ok(())
    }

    /// Keeps an answer where there is room; its size, if it was kept.
    fn keep(&self, key: &[u8; KEY_LEN], answer: &[u8]) -> Result<Option<u64>, redb::Error> {
        let mut meta = self.txn.open_table(META)?;
        let total = meta.get(ANSWERS_SIZE)?.map_or(0, |total| total.value());
        let size = answer.len() as u64;
        if total.saturating_add(size) > MAX_ANSWERS {
            tracing::warn!(total, "there is no more room for answers; this one is not kept");
            return Ok(None);
        }
        meta.insert(ANSWERS_SIZE, total + size)?;
        self.txn.open_table(ANSWERS)?.insert(key, answer)?;
        Ok(Some(size))
    }

    fn forget(&self, key: &[u8; KEY_LEN], size: Option<u64>) -> Result<(), redb::Error> {
        let Some(size) = size else { return Ok(()) };
        self.txn.open_table(ANSWERS)?.remove(key)?;
        let mut meta = self.txn.open_table(META)?;
        let total = meta.get(ANSWERS_SIZE)?.map_or(0, |total| total.value());
        meta.insert(ANSWERS_SIZE, total.saturating_sub(size))?;
        Ok(())
    }

    fn get(&self, key: &[u8; KEY_LEN]) -> Result<Option<Row>, redb::Error> {
        for table in [&self.open, &self.closed] {
            if let Some(value) = table.get(key)? {
                return parse(value.value()).map(Some);
            }
        }
        Ok(None)
    }

    fn reserve(&mut self, key: &ReplayKey, row: &mut Row, now: u64) -> Result<Result<(), WriteError>, redb::Error> {
        let name = row.id.as_deref().map(|id| name_of(key.payer, id));
        let key = key_bytes(key);
        let existing = self.get(&key)?;
        if let Err(refused) = row.admit(existing.as_ref(), now) {
            return Ok(Err(refused));
        }
        if let Some(existing) = &existing {
            self.closed.remove(&key)?;
            self.unname(&key, existing)?;
        }
        if let Some(name) = name {
            self.txn.open_table(NAMES)?.insert(&name.0, &key)?;
        }
        self.open.insert(&key, &*render(row)?)?;
        Ok(Ok(()))
    }

    fn change(&mut self, key: &ReplayKey, change: &Change, now: u64) -> Result<Result<Row, WriteError>, redb::Error> {
        let bytes = key_bytes(key);
        let Some(mut row) = self.get(&bytes)? else { return Ok(Err(WriteError::Illegal)) };
        let was_open = row.state.is_open();
        if let Err(refused) = row.apply(change, now) {
            return Ok(Err(refused));
        }
        if let Some(answer) = &change.answer {
            self.forget(&bytes, row.answer.take())?;
            row.answer = self.keep(&bytes, answer)?;
        } else if row.keeps_in_vain() {
            self.forget(&bytes, row.answer.take())?;
        }
        let value = render(&row)?;
        if row.state.is_open() {
            if !was_open {
                // A lost answer is made again.
                self.closed.remove(&bytes)?;
            }
            self.open.insert(&bytes, &*value)?;
        } else {
            if was_open {
                self.open.remove(&bytes)?;
            }
            self.closed.insert(&bytes, &*value)?;
        }
        Ok(Ok(row))
    }
}

fn render(row: &Row) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(row).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

fn parse(value: &[u8]) -> Result<Row, redb::Error> {
    serde_json::from_slice(value).map_err(|error| redb::Error::Corrupted(format!("a row cannot be read: {error}")))
}

pub(crate) fn now_ms() -> u64 {
    #[cfg(feature = "sim")]
    if let Some(now) = crate::sim::now_ms() {
        return now;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn check_format(path: &Path, database: &Database) -> Result<(), OpenError> {
    let found = format_of(database).map_err(|error| storage_error(path, error))?;
    if found == FORMAT { Ok(()) } else { Err(OpenError::Format { path: path.to_owned(), found, known: FORMAT }) }
}

/// The file's format; a new file gets ours and its tables, an older one is brought up to it.
fn format_of(database: &Database) -> Result<u64, redb::Error> {
    let txn = database.begin_write()?;
    let found = {
        let mut meta = txn.open_table(META)?;
        let found = meta.get("format")?.map(|value| value.value());
        if found.is_none_or(|found| OLDER.contains(&found)) {
            meta.insert("format", FORMAT)?;
        }
        found.filter(|found| !OLDER.contains(found)).unwrap_or(FORMAT)
    };
    if found != FORMAT {
        txn.abort()?;
        return Ok(found);
    }
    // What the formats added to format 1 are tables; the rows are the same but for fields that may be
    // absent.
    txn.open_table(NAMES)?;
    txn.open_table(ARCHIVES)?;
    txn.open_table(ANSWERS)?;
    txn.open_table(OPEN)?;
    txn.open_table(CLOSED)?;
    txn.commit()?;
    Ok(FORMAT)
}

fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(path.to_owned()),
        DatabaseError::UpgradeRequired(version) => corrupt(path, format!("it is a redb file of version {version}")),
        DatabaseError::Storage(error) => storage_error(path, error.into()),
        error => OpenError::Journal { path: path.to_owned(), cause: error.to_string() },
    }
}

pub(super) fn storage_error(path: &Path, error: redb::Error) -> OpenError {
    match error {
        redb::Error::Corrupted(cause) => corrupt(path, cause),
        // "Not a redb file": some other file has this name.
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => corrupt(path, error.to_string()),
        error => OpenError::Journal { path: path.to_owned(), cause: error.to_string() },
    }
}

fn corrupt(path: &Path, cause: String) -> OpenError {
    OpenError::Corrupt { path: PathBuf::from(path), cause }
}
