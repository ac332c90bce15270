//! Looking payments up, with the cursors of the file's ledger but for the archives' offsets.

use obol_x402::ReplayKey;

use super::{Database, DatabaseError, key_of, signed};
use crate::{
    ListError, PaymentPage, PaymentQuery, PaymentRecord,
    journal::{key_bytes, key_from_hex, key_hex, row::Row},
};

/// Rows read at once.
const STEP: i64 = 1000;

const NEWEST: &str = "
    select key, created, detail::text from obol.payment
    where (created < $1 or (created = $1 and key > $2)) and (cardinality($3::text[]) = 0 or state = any($3))
    order by created desc, key limit $4";
const BY_KEY: &str = "select key, created, detail::text from obol.payment where key > $1 order by key limit $2";
const ARCHIVED: &str = "
    select month, key, record::text from obol.archive where (month, key) > ($1, $2) order by month, key limit $3";

impl From<DatabaseError> for ListError {
    fn from(error: DatabaseError) -> Self {
        Self::Journal(error.to_string())
    }
}

impl From<tokio_postgres::Error> for ListError {
    fn from(error: tokio_postgres::Error) -> Self {
        DatabaseError::from(error).into()
    }
}

fn record(row: &tokio_postgres::Row) -> Result<Option<(ReplayKey, PaymentRecord)>, DatabaseError> {
    let detail: Row = serde_json::from_str(row.try_get(2)?)?;
    Ok(key_of(row.try_get(0)?).map(|key| (key, PaymentRecord::of(&key, &detail))))
}

impl Database {
    /// Payments of the journal, the newest first.
    pub async fn newest(&self, query: &PaymentQuery) -> Result<PaymentPage, ListError> {
        let mut place = (i64::MAX, Vec::new());
        if let Some(cursor) = &query.cursor {
            let (time, key) = cursor.split_once('.').ok_or(ListError::Cursor)?;
            let key = key_from_hex(key).ok_or(ListError::Cursor)?;
            place = (signed(time.parse().map_err(|_| ListError::Cursor)?), key_bytes(&key).to_vec());
        }
        let states: Vec<&str> = query.states.iter().map(|state| state.code()).collect();
        let mut page = PaymentPage::default();
        loop {
            let rows = self.ask(NEWEST, &[&place.0, &place.1, &states, &STEP]).await?;
            for row in &rows {
                let before = std::mem::replace(&mut place, (row.try_get(1)?, row.try_get(0)?));
                let Some((_, record)) = record(row)?.filter(|(_, record)| query.takes(record)) else { continue };
                if page.payments.len() == query.page() {
                    let key = key_of(&before.1).ok_or(ListError::Cursor)?;
                    page.next = Some(format!("{}.{}", before.0, key_hex(&key)));
                    return Ok(page);
                }
                page.payments.push(record);
            }
            if rows.len() < usize::try_from(STEP).unwrap_or(usize::MAX) {
                return Ok(page);
            }
        }
    }

    /// One payment, of the journal or of an archive.
    pub async fn one(&self, key: &ReplayKey) -> Result<Option<PaymentRecord>, ListError> {
        if let Some(row) = self.read(key).await? {
            return Ok(Some(PaymentRecord::of(key, &row)));
        }
        let rows = self.ask("select record::text from obol.archive where key = $1", &[&key_bytes(key).as_slice()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(serde_json::from_str(row.try_get(0)?).map_err(DatabaseError::from)?))
    }

    /// Payments of the journal by key and then of the archives by month. A cursor is `j.<key>` in the
    /// journal, `a.<month>.<key>` in the archives.
    pub async fn export(&self, query: &PaymentQuery) -> Result<PaymentPage, ListError> {
        let mut page = PaymentPage::default();
        let cursor: Option<Vec<&str>> = query.cursor.as_deref().map(|cursor| cursor.split('.').collect());
        let key_at = |hex: &str| key_from_hex(hex).map(|key| key_bytes(&key).to_vec()).ok_or(ListError::Cursor);
        let mut archived = (String::new(), Vec::new());
        let from = match cursor.as_deref() {
            None => Some(Vec::new()),
            Some(["j", hex]) => Some(key_at(hex)?),
            Some(["a", month, hex]) => {
                archived = ((*month).to_owned(), key_at(hex)?);
                None
            }
            Some(_) => return Err(ListError::Cursor),
        };
        if let Some(from) = from
            && let Some(next) = self.export_journal(query, from, &mut page.payments).await?
        {
            page.next = Some(next);
            return Ok(page);
        }
        loop {
            let rows = self.ask(ARCHIVED, &[&archived.0, &archived.1, &STEP]).await?;
            for row in &rows {
                archived = (row.try_get(0)?, row.try_get(1)?);
                let record: PaymentRecord = serde_json::from_str(row.try_get(2)?).map_err(DatabaseError::from)?;
                page.payments.extend(Some(record).filter(|record| query.takes(record)));
                if page.payments.len() >= query.page() {
                    let key = key_of(&archived.1).ok_or(ListError::Cursor)?;
                    page.next = Some(format!("a.{}.{}", archived.0, key_hex(&key)));
                    return Ok(page);
                }
            }
            if rows.len() < usize::try_from(STEP).unwrap_or(usize::MAX) {
                return Ok(page);
            }
        }
    }

    async fn export_journal(
        &self,
        query: &PaymentQuery,
        mut from: Vec<u8>,
        payments: &mut Vec<PaymentRecord>,
    ) -> Result<Option<String>, ListError> {
        loop {
            let rows = self.ask(BY_KEY, &[&from, &STEP]).await?;
            for row in &rows {
                from = row.try_get(0)?;
                let Some((key, record)) = record(row)? else { continue };
                payments.extend(Some(record).filter(|record| query.takes(record)));
                if payments.len() >= query.page() {
                    return Ok(Some(format!("j.{}", key_hex(&key))));
                }
            }
            if rows.len() < usize::try_from(STEP).unwrap_or(usize::MAX) {
                return Ok(None);
            }
        }
    }
}
