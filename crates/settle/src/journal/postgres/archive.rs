//! Closed rows move into the archive's table, a month at a time.

use std::time::Duration;

use super::{Database, DatabaseError, key_of, signed};
use crate::{
    journal::{
        archive::{is_due, month},
        row::Row,
    },
    record::PaymentRecord,
};

/// Most rows moved in one statement.
const STEP: i64 = 500;

const OLD: &str = "
    select key, updated, detail::text from obol.payment
    where not is_open and updated <= $1 and (updated, key) > ($2, $3) order by updated, key limit $4";

/// One statement, so that a payment is in one place at any moment, whoever else does the same. A row
/// that changed meanwhile stays.
const MOVE: &str = "
    with due as (
        select * from unnest($1::bytea[], $2::int8[], $3::text[], $4::text[]) d(key, updated, month, record)),
    gone as (
        delete from obol.payment p using due where p.key = due.key and p.updated = due.updated and not p.is_open
        returning p.key, due.month, p.created, due.record),
    unnamed as (
        delete from obol.name where key in (select key from gone)),
    forgotten as (
        delete from obol.answer where key in (select key from gone))
    insert into obol.archive (key, month, created, record) select key, month, created, record::json from gone
    on conflict (key) do update set month = excluded.month, created = excluded.created, record = excluded.record";

impl Database {
    /// Moves every row that may leave; returns how many did.
    pub async fn archive(&self, now: u64, after: Duration) -> Result<usize, DatabaseError> {
        let latest = signed(now.saturating_sub(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
        let (mut moved, mut from) = (0, (0_i64, Vec::<u8>::new()));
        loop {
            let rows = self.ask(OLD, &[&latest, &from.0, &from.1, &STEP]).await?;
            let Some(last) = rows.last() else { return Ok(moved) };
            from = (last.try_get(1)?, last.try_get(0)?);
            let (mut keys, mut updated, mut months, mut records) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for row in &rows {
                let (bytes, detail): (&[u8], Row) = (row.try_get(0)?, serde_json::from_str(row.try_get(2)?)?);
                if let Some(key) = key_of(bytes).filter(|_| is_due(&detail, now, after)) {
                    keys.push(bytes);
                    updated.push(row.try_get::<_, i64>(1)?);
                    months.push(month(&detail));
                    records.push(serde_json::to_string(&PaymentRecord::of(&key, &detail))?);
                }
            }
            if !keys.is_empty() {
                let session = self.reader()?;
                let done = session.execute(MOVE, &[&keys, &updated, &months, &records]).await;
                moved += usize::try_from(self.heard(&session, done)?).unwrap_or_default();
            }
        }
    }
}
