//! Closed rows move out of the journal into a file per month, one JSON line per payment.
//!
//! The journal says how much of each file counts. Lines are appended and made durable first; then
//! one transaction removes the rows and moves that mark. A crash in between leaves lines behind
//! the mark whose rows are still in the journal: the next run finds them and removes the rows
//! without writing them again. A line that was cut short is cut off.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use obol_x402::ReplayKey;
use tokio::sync::oneshot;

use super::{DatabaseError, Journal, Storage, WriteError, command::Command, row::Row, store::Store};
use crate::record::{PaymentRecord, moment, parse_key};

/// Most rows moved in one step.
const STEP: usize = 500;
/// Longest line that is read.
const MAX_LINE: u64 = 64 * 1024;
/// A payment is kept this long behind its `validBefore`, for clocks that differ.
const CLOCK_MARGIN: u64 = 24 * 3600 * 1000;

/// The files.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    folder: PathBuf,
}

/// Why nothing was moved; it is tried again later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("the journal: {0}")]
    Journal(#[from] redb::Error),
    #[error("the journal's database: {0}")]
    Database(#[from] DatabaseError),
    #[error("the journal cannot be written")]
    Write,
    #[error("the archive's files: {0}")]
    File(#[from] io::Error),
}

/// Rows that may leave the journal now, by month.
type Due = BTreeMap<String, Vec<(ReplayKey, Row)>>;

/// Whether a row may leave: closed for `after`, nothing is owed for it, and nobody can use its
/// authorization again.
pub(super) fn is_due(row: &Row, now: u64, after: Duration) -> bool {
    let old = row.updated.saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)) <= now;
    let void = row.valid_before.saturating_mul(1000).saturating_add(CLOCK_MARGIN) <= now;
    let closed = !row.state.is_open() && !row.state.is_owed();
    closed && old && void
}

/// The month in which it was closed.
pub(super) fn month(row: &Row) -> String {
    let date = moment(row.updated);
    format!("{:04}-{:02}", date.year(), u8::from(date.month()))
}

impl Archive {
    /// Beside the journal: `journal.archive/`.
    pub fn beside(journal: &Path) -> Self {
        Self { folder: journal.with_extension("archive") }
    }

    pub fn path(&self, month: &str) -> PathBuf {
        self.folder.join(format!("{month}.jsonl"))
    }

    fn open(&self, month: &str) -> io::Result<File> {
        let (path, mut options) = (self.path(month), OpenOptions::new());
        if !path.try_exists()? {
            std::fs::create_dir_all(&self.folder)?;
        }
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)
    }

    /// Keys of lines behind the mark: a crash came between writing them and removing their rows.
    fn leftovers(&self, month: &str, mark: u64) -> io::Result<HashSet<String>> {
        let mut file = self.open(month)?;
        let length = file.metadata()?.len();
        if length < mark {
            tracing::error!(file = %self.path(month).display(), length, mark, "an archive was shortened by somebody");
            return Ok(HashSet::new());
        }
        let mut tail = Vec::new();
        file.seek(SeekFrom::Start(mark))?;
        file.read_to_end(&mut tail)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        if whole < tail.len() {
            file.set_len(mark + whole as u64)?;
        }
        let lines = tail.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let records = lines.map(serde_json::from_slice::<PaymentRecord>);
        Ok(records.filter_map(|record| record.ok()).map(|record| record.key).collect())
    }

    /// Appends durably; returns the file's length. A file that its owner shortened or moved away
    /// simply goes on.
    fn append(&self, month: &str, records: &[PaymentRecord]) -> io::Result<u64> {
        let fresh = !self.path(month).try_exists()?;
        let mut file = self.open(month)?;
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
        }
        file.write_all(&lines)?;
        file.sync_all()?;
        if fresh || records.is_empty() {
            sync_folder(&self.folder)?;
        }
        Ok(file.metadata()?.len())
    }

    /// Lines from one offset up to the mark, until told to stop; returns the offset reached. Lines
    /// that cannot be read are passed over, and said.
    pub fn read(&self, month: &str, from: u64, mark: u64, mut each: impl FnMut(PaymentRecord) -> ControlFlow<()>) -> io::Result<u64> {
        let mut file = match File::open(self.path(month)) {
            Ok(file) => file,
            // Its owner moved it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(mark),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(from))?;
        let mut at = from;
        let mut lines = BufReader::new(file.take(mark.saturating_sub(from)));
        loop {
            let mut line = Vec::new();
            let read = lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(mark);
            }
            at += read as u64;
            match serde_json::from_slice(&line) {
                Ok(record) => {
                    if each(record).is_break() {
                        return Ok(at);
                    }
                }
                Err(error) => tracing::error!(month, at, %error, "a line of the archive cannot be read"),
            }
        }
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

impl Journal {
    /// Moves every row that may leave into the archive; returns how many did.
    pub async fn archive(&self, now: u64, after: Duration) -> Result<usize, ArchiveError> {
        let store = match &self.storage {
            Storage::File(store) => store,
            Storage::Shared(database) => return Ok(database.archive(now, after).await?),
        };
        let (mut moved, mut from) = (0, None);
        loop {
            let reader = Arc::clone(store);
            let step = tokio::task::spawn_blocking(move || reader.due(from, now, after)).await;
            let (due, next) = step.map_err(io::Error::other)??;
            for (month, rows) in due {
                moved += self.move_out(store, month, rows, now, after).await?;
            }
            match next {
                Some(next) => from = Some(next),
                None => return Ok(moved),
            }
        }
    }

    async fn move_out(
        &self,
        store: &Arc<Store>,
        month: String,
        rows: Vec<(ReplayKey, Row)>,
        now: u64,
        after: Duration,
    ) -> Result<usize, ArchiveError> {
        let store = Arc::clone(store);
        let written = tokio::task::spawn_blocking(move || store.write_out(&month, rows, now, after).map(|out| (month, out))).await;
        let (month, (rows, mark)) = written.map_err(io::Error::other)??;
        let count = rows.len();
        let (reply, answer) = oneshot::channel();
        self.send(Command::Archive { rows, month, mark, reply });
        match answer.await.unwrap_or(Err(WriteError::Unavailable)) {
            Ok(()) => Ok(count),
            Err(_) => Err(ArchiveError::Write),
        }
    }
}

impl Store {
    /// Some of what may leave, and where to go on. Reads are short: a long one would keep the
    /// file from using its free pages again.
    fn due(&self, from: Option<ReplayKey>, now: u64, after: Duration) -> Result<(Due, Option<ReplayKey>), redb::Error> {
        let (mut due, mut found, mut seen, mut next) = (Due::new(), 0, 0, None);
        self.closed(from, |key, row| {
            seen += 1;
            if is_due(&row, now, after) {
                found += 1;
                due.entry(month(&row)).or_default().push((key, row));
            }
            if found == STEP || seen == 50 * STEP {
                next = Some(key);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        Ok((due, next))
    }

    /// Appends the rows durably, and returns those that may be removed now with the new mark.
    fn write_out(
        &self,
        month: &str,
        mut rows: Vec<(ReplayKey, Row)>,
        now: u64,
        after: Duration,
    ) -> Result<(Vec<(ReplayKey, Row)>, u64), ArchiveError> {
        let mark = self.marks()?.get(month).copied().unwrap_or(0);
        let mut left = self.archive.leftovers(month, mark)?;
        let is_left = |key: &ReplayKey, left: &mut HashSet<String>| left.remove(&key.to_string());
        let records: Vec<_> =
            rows.iter().filter(|(key, _)| !is_left(key, &mut left)).map(|(key, row)| PaymentRecord::of(key, row)).collect();
        for key in left.iter().filter_map(|key| parse_key(key)) {
            if let Some(row) = self.read(&key)?.filter(|row| is_due(row, now, after)) {
                rows.push((key, row));
            }
        }
        let mark = self.archive.append(month, &records)?;
        Ok((rows, mark))
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
