//! Looking payments up: in the journal, and for an export in the archives too.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Arc, Weak},
};

use obol_x402::ReplayKey;
use tokio_util::sync::CancellationToken;

use crate::{
    Archiving, Cashier, ListError, PaymentPage, PaymentQuery, PaymentRecord,
    cashier::Core,
    journal::{Storage, Store, key_bytes, key_from_hex, key_hex, now_ms},
    record::parse_key,
};

impl Cashier {
    /// Payments of the journal, the newest first. Archived ones are only in [`Cashier::export`].
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn payments(&self, query: PaymentQuery) -> Result<PaymentPage, ListError> {
        match self.current().await {
            Storage::Shared(database) => database.newest(&query).await,
            Storage::File(store) => blocking(store, move |store| newest(store, &query)).await,
        }
    }

    /// One payment by its key, of the journal or of an archive.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn payment(&self, key: &str) -> Result<Option<PaymentRecord>, ListError> {
        let Some(key) = parse_key(key) else { return Ok(None) };
        match self.current().await {
            Storage::Shared(database) => database.one(&key).await,
            Storage::File(store) => blocking(store, move |store| one(store, &key)).await,
        }
    }

    /// Payments of the journal and then of the archives, each in no order that means anything. One
    /// that is archived between two pages may be on both: its key tells.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn export(&self, query: PaymentQuery) -> Result<PaymentPage, ListError> {
        match self.current().await {
            Storage::Shared(database) => database.export(&query).await,
            Storage::File(store) => blocking(store, move |store| export(store, &query)).await,
        }
    }

    /// What is true now: facts on their way to the disk are waited for, if it takes them.
    async fn current(&self) -> Storage {
        let journal = &self.core.journal;
        let _ = journal.flush().await;
        journal.storage.clone()
    }
}

async fn blocking<T: Send + 'static>(
    store: Arc<Store>,
    work: impl FnOnce(&Store) -> Result<T, ListError> + Send + 'static,
) -> Result<T, ListError> {
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.unwrap_or_else(|error| Err(ListError::Journal(error.to_string())))
}

fn broken(error: redb::Error) -> ListError {
    ListError::Journal(error.to_string())
}

/// When it was made (complemented, so that the newest is first) and its key.
type Place = (u64, [u8; 80]);

fn newest(store: &Store, query: &PaymentQuery) -> Result<PaymentPage, ListError> {
    let after = query.cursor.as_deref().map(|cursor| {
        let (time, key) = cursor.split_once('.').ok_or(ListError::Cursor)?;
        let key = key_from_hex(key).ok_or(ListError::Cursor)?;
        Ok::<Place, ListError>((!time.parse::<u64>().map_err(|_| ListError::Cursor)?, key_bytes(&key)))
    });
    let after = after.transpose()?;
    let mut page: BTreeMap<Place, PaymentRecord> = BTreeMap::new();
    let mut more = false;
    store
        .each(|key, row| {
            let place = (!row.created, key_bytes(&key));
            let record = PaymentRecord::of(&key, &row);
            if after.is_none_or(|after| place > after) && query.takes(&record) {
                page.insert(place, record);
                if page.len() > query.page() {
                    page.pop_last();
                    more = true;
                }
            }
        })
        .map_err(broken)?;
    let next = page.last_key_value().filter(|_| more).and_then(|((time, _), record)| {
        let key = parse_key(&record.key)?;
        Some(format!("{}.{}", !time, key_hex(&key)))
    });
    Ok(PaymentPage { payments: page.into_values().collect(), next })
}

fn one(store: &Store, key: &ReplayKey) -> Result<Option<PaymentRecord>, ListError> {
    if let Some(row) = store.read(key).map_err(broken)? {
        return Ok(Some(PaymentRecord::of(key, &row)));
    }
    let wanted = key.to_string();
    let mut found = None;
    for (month, mark) in store.marks().map_err(broken)?.into_iter().rev() {
        read(store, &month, 0, mark, |record| {
            if record.key == wanted {
                found = Some(record);
            }
            ControlFlow::Continue(())
        })?;
        if found.is_some() {
            break;
        }
    }
    Ok(found)
}

/// A cursor is `j.<key>` in the store, `a.<month>.<offset>` in the archives.
fn export(store: &Store, query: &PaymentQuery) -> Result<PaymentPage, ListError> {
    let mut payments = Vec::new();
    let limit = query.page();
    let mut from = (String::new(), 0);
    match query.cursor.as_deref().map(|cursor| cursor.split('.').collect::<Vec<_>>()).as_deref() {
        None => {
            store.open_rows(|key, row| payments.extend(Some(PaymentRecord::of(&key, &row)).filter(|r| query.takes(r)))).map_err(broken)?;
            if let Some(next) = closed(store, query, None, limit, &mut payments)? {
                return Ok(PaymentPage { payments, next: Some(next) });
            }
        }
        Some(["j", key]) => {
            let key = key_from_hex(key).ok_or(ListError::Cursor)?;
            if let Some(next) = closed(store, query, Some(key), limit, &mut payments)? {
                return Ok(PaymentPage { payments, next: Some(next) });
            }
        }
        Some(["a", month, offset]) => from = ((*month).to_owned(), offset.parse().map_err(|_| ListError::Cursor)?),
        Some(_) => return Err(ListError::Cursor),
    }
    let marks = store.marks().map_err(broken)?;
    for (month, mark) in marks.range(from.0.clone()..) {
        let start = if *month == from.0 { from.1 } else { 0 };
        let at = read(store, month, start, *mark, |record| {
            if query.takes(&record) {
                payments.push(record);
            }
            if payments.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if payments.len() >= limit {
            return Ok(PaymentPage { payments, next: Some(format!("a.{month}.{at}")) });
        }
    }
    Ok(PaymentPage { payments, next: None })
}

fn closed(
    store: &Store,
    query: &PaymentQuery,
    from: Option<ReplayKey>,
    limit: usize,
    payments: &mut Vec<PaymentRecord>,
) -> Result<Option<String>, ListError> {
    let mut next = None;
    store
        .closed(from, |key, row| {
            payments.extend(Some(PaymentRecord::of(&key, &row)).filter(|record| query.takes(record)));
            if payments.len() >= limit {
                next = Some(format!("j.{}", key_hex(&key)));
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })
        .map_err(broken)?;
    Ok(next)
}

fn read(store: &Store, month: &str, from: u64, mark: u64, each: impl FnMut(PaymentRecord) -> ControlFlow<()>) -> Result<u64, ListError> {
    let archive = &store.archive;
    archive.read(month, from, mark, each).map_err(|error| ListError::Archive(archive.path(month), error))
}

/// Moves old payments into the archives, now and then, until the cashier is gone.
pub(crate) async fn keep_bounded(core: Weak<Core>, policy: Archiving, stop: CancellationToken) {
    loop {
        let Some(journal) = core.upgrade().map(|core| core.journal.clone()) else { return };
        tokio::select! {
            () = stop.cancelled() => return,
            moved = journal.archive(now_ms(), policy.after) => match moved {
                Ok(0) => {}
                Ok(payments) => tracing::info!(payments, "moved into the archives"),
                Err(error) => tracing::warn!(%error, "old payments stay in the journal for now"),
            }
        }
        drop(journal);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(policy.every) => {}
        }
    }
}
