//! The tables, and how those of an older obol become ours. Everything is in the schema `obol`.

use super::session::{DatabaseError, Session};

/// Every step ever taken, in order; the format of a database is how many of them it has. A step that
/// was released is never changed: what follows is another one.
const STEPS: &[&str] = &[
    "
    create table obol.payment (
        -- Chain id (8 bytes, big endian), contract (20), payer (20), nonce (32).
        key bytea primary key,
        payer bytea not null,
        fingerprint bytea not null,
        state text not null,
        -- Whether work on it goes on.
        is_open boolean not null,
        -- The process that works on it: the number of the advisory lock that it holds while it lives.
        owner bigint not null,
        created bigint not null,
        updated bigint not null,
        -- The whole row, as a file would hold it.
        detail json not null
    );
    create index payment_created on obol.payment (created desc, key);
    create index payment_updated on obol.payment (updated, key) where not is_open;
    create index payment_doubts on obol.payment (payer, fingerprint) where is_open;
    create index payment_owner on obol.payment (owner) where is_open;
    create table obol.answer (
        key bytea primary key,
        size bigint not null,
        body bytea not null
    );
    create table obol.archive (
        key bytea primary key,
        -- In which it was closed: `2026-01`.
        month text not null,
        created bigint not null,
        record json not null
    );
    create index archive_month on obol.archive (month, key)",
    "
    create table obol.name (
        -- SHA-256 of a payer and of what the payer calls a purchase.
        name bytea primary key,
        -- The payment that bought it, or is to.
        key bytea not null
    );
    create index name_key on obol.name (key)",
    "
    -- Who owes in what, and how much, for answers that leave before they are paid: chain id (8), token (20), payer (20).
    alter table obol.payment add column debtor bytea, add column owes numeric;
    create index payment_debtor on obol.payment (debtor) where debtor is not null",
];

/// Only one process at a time changes the tables: \"obol\" in ASCII.
const LOCK: i64 = 0x6f62_6f6c;

/// Brings the tables up to this program's format.
pub(super) async fn migrate(session: &Session) -> Result<(), DatabaseError> {
    session.run("begin").await?;
    session.execute("select pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    // Somebody else may have made the schema for a user who may not.
    let schema = session.query_one("select to_regnamespace('obol') is not null, to_regclass('obol.meta') is not null", &[]).await?;
    if !schema.try_get::<_, bool>(0)? {
        session.run("create schema obol").await?;
    }
    if !schema.try_get::<_, bool>(1)? {
        session.run("create table obol.meta (format bigint not null); insert into obol.meta values (0)").await?;
    }
    let format: i64 = session.query_one("select format from obol.meta", &[]).await?.try_get(0)?;
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let steps = usize::try_from(format).ok().and_then(|done| STEPS.get(done..));
    let Some(steps) = steps else { return Err(DatabaseError::Format { found: format, known }) };
    for step in steps {
        session.run(step).await?;
    }
    session.execute("update obol.meta set format = $1", &[&known]).await?;
    session.run("commit").await
}
