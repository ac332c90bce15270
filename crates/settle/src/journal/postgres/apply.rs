//! Many commands in one transaction.

use std::collections::{HashMap, hash_map::Entry as Slot};

use obol_offer::{Address, Amount, B256, U256};
use obol_payment::{Answer, Event, State};
use obol_x402::ReplayKey;
use tokio::time::{Duration, Instant, timeout};

use super::{
    Database, DatabaseError,
    session::{PATIENCE, Session},
    signed,
};
use crate::{
    exposure::may_owe,
    journal::{
        command::{Change, Command, WriteError},
        now_ms,
        row::{KEY_LEN, Row, key_bytes, key_from_bytes, name_of},
        store::MAX_ANSWERS,
    },
};

type Key = [u8; KEY_LEN];
type Results = Vec<Result<(), WriteError>>;

/// How often a batch is begun anew because another process inserted a payment of it meanwhile.
const MAX_RACES: u32 = 8;

/// In the order of the keys, so that two processes never wait for each other.
const LOCK_ROWS: &str = "select key, owner, detail::text from obol.payment where key = any($1) order by key for update";

/// Payments whose payer has another one for the same request that nobody knows the outcome of: a
/// settlement of a process that is gone is as unknown as one that is marked so.
const DOUBTS: &str = "
    select a.key, p.detail::text
    from unnest($1::bytea[], $2::bytea[], $3::bytea[]) a(key, payer, fingerprint)
    join obol.payment p on p.is_open and p.payer = a.payer and p.key <> a.key
        and p.fingerprint = coalesce(a.fingerprint, (select mine.fingerprint from obol.payment mine where mine.key = a.key))
    where p.state in ('pending', 'unknown')
        or (p.state = 'settling' and p.owner <> $4 and not exists (
            select 1 from pg_locks l
            where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                and l.database = (select oid from pg_database where datname = current_database())
                and ((l.classid::bigint << 32) | l.objid::bigint) = p.owner))";

/// Held to the end of the transaction by who lets a payer owe more; in order, and before any row. The first number
/// tells these locks from those of processes: \"owes\" in ASCII.
const LOCK_DEBTORS: &str =
    "select pg_advisory_xact_lock(x'6f776573'::int4, n) from (select n from unnest($1::int4[]) n order by n) debtors";

/// What is under way, and what was not paid for since some moment.
const DEBTS: &str = "
    select debtor, sum(owes)::text from obol.payment where debtor = any($1) and (is_open or updated > $2) group by debtor";

/// How long an answer that has left and was not paid for counts against its payer.
const UNFORGIVEN: Duration = Duration::from_secs(24 * 3600);

/// Rows that were not there when the others were locked, and are now, are left alone: they are not
/// counted, and the batch begins anew.
const PUT_ROWS: &str = "
    insert into obol.payment as p (key, payer, fingerprint, state, is_open, owner, created, updated, detail, debtor, owes)
    select u.key, u.payer, u.fingerprint, u.state, u.is_open, u.owner, u.created, u.updated, u.detail::json, u.debtor, u.owes::numeric
    from unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::text[], $5::bool[], $6::int8[], $7::int8[], $8::int8[], $9::text[],
        $10::bytea[], $11::text[]) u(key, payer, fingerprint, state, is_open, owner, created, updated, detail, debtor, owes)
    on conflict (key) do update set fingerprint = excluded.fingerprint, state = excluded.state, is_open = excluded.is_open,
        owner = excluded.owner, created = excluded.created, updated = excluded.updated, detail = excluded.detail,
        debtor = excluded.debtor, owes = excluded.owes
    where p.key = any($12)";

const PUT_ANSWERS: &str = "
    insert into obol.answer (key, size, body) select * from unnest($1::bytea[], $2::int8[], $3::bytea[])
    on conflict (key) do update set size = excluded.size, body = excluded.body";

/// Names that payers give to purchases, with the payments that have them.
const LOCK_NAMES: &str = "
    select n.name, n.key, p.detail::text from obol.name n left join obol.payment p on p.key = n.key
    where n.name = any($1) order by n.name for update of n";

/// As with rows: one that another process has inserted meanwhile is left alone, and not counted.
const PUT_NAMES: &str = "
    insert into obol.name as n (name, key) select * from unnest($1::bytea[], $2::bytea[])
    on conflict (name) do update set key = excluded.key where n.name = any($3)";

/// The payment behind each name of a batch; no row when that has left the table.
pub(super) type Names = HashMap<B256, (Vec<u8>, Option<Row>)>;

/// A row of the batch, locked.
pub(super) struct Entry {
    pub row: Row,
    pub owner: i64,
    /// It is in the table already.
    pub known: bool,
    pub changed: bool,
    /// What becomes of its answer: bytes to be kept, or nothing.
    answer: Option<Option<Vec<u8>>>,
}

impl Database {
    /// Applies commands in order, in one durable transaction. An error means that nothing of it
    /// counts, as far as anybody can tell.
    pub async fn apply(&self, commands: &mut [Command]) -> Result<Results, DatabaseError> {
        let mut slot = self.writer.lock().await;
        for _ in 0..MAX_RACES {
            let session = slot.as_ref().ok_or(DatabaseError::NotConnected)?;
            let prepared = timeout(PATIENCE, self.prepare(session, commands)).await.unwrap_or(Err(DatabaseError::TimedOut));
            let (transaction, results) = match prepared {
                Ok(Some(prepared)) => prepared,
                undone => {
                    if session.client.is_closed()
                        || matches!(undone, Err(DatabaseError::TimedOut))
                        || session.run("rollback").await.is_err()
                    {
                        self.lose(&mut slot);
                    }
                    undone?;
                    continue;
                }
            };
            let Err(error) = session.run("commit").await else { return Ok(results) };
            self.lose(&mut slot);
            // The word may have got lost on its way back.
            tracing::warn!(%error, "a commit was not answered; the database is asked what became of it");
            let committed = self.was_committed(&transaction).await;
            // Nobody could connect anew while this held the slot.
            self.lost.notify_one();
            return if committed { Ok(results) } else { Err(error) };
        }
        Err(DatabaseError::Contended)
    }

    /// All but the commit: the transaction's number and what it says to each command. `None` when it
    /// must be undone and begun anew.
    async fn prepare(&self, session: &Session, commands: &mut [Command]) -> Result<Option<(String, Results)>, DatabaseError> {
        let keys = keys_of(commands);
        if keys.is_empty() {
            session.run("begin").await?;
            return Ok(Some((String::new(), commands.iter().map(|_| Ok(())).collect())));
        }
        session.run("begin").await?;
        let key_list: Vec<&[u8]> = keys.iter().map(<[u8; KEY_LEN]>::as_slice).collect();
        let (asks, names, debtors) = (Asks::of(commands), names_of(commands), debtors_of(commands));
        // First of all, so that the sums below are those after everybody else's.
        lock_debtors(session, &debtors).await?;
        // Sent at once, answered one after the other.
        let (transaction, mut entries, names, doubts, mut debts) = futures_util::try_join!(
            async { Ok::<String, DatabaseError>(session.query_one("select pg_current_xact_id()::text", &[]).await?.try_get(0)?) },
            lock(session, &key_list),
            lock_names(session, names),
            self.doubts(session, &asks),
            debts(session, &debtors),
        )?;
        let now = now_ms();
        let results = commands.iter_mut().map(|command| self.decide(command, &mut entries, &names, &doubts, &mut debts, now)).collect();
        let whole = self.put(session, &entries, &names).await?;
        Ok(whole.then_some((transaction, results)))
    }

    async fn doubts(&self, session: &Session, asks: &Asks) -> Result<HashMap<Key, Option<String>>, DatabaseError> {
        let mut doubts = HashMap::new();
        if asks.keys.is_empty() {
            return Ok(doubts);
        }
        let keys: Vec<&[u8]> = asks.keys.iter().map(<[u8; KEY_LEN]>::as_slice).collect();
        let payers: Vec<&[u8]> = asks.payers.iter().map(Vec::as_slice).collect();
        let fingerprints: Vec<Option<&[u8]>> = asks.fingerprints.iter().map(|f| f.as_ref().map(Vec::as_slice)).collect();
        for row in session.query(DOUBTS, &[&keys, &payers, &fingerprints, &self.owner]).await? {
            let (key, doubted): (&[u8], Row) = (row.try_get(0)?, serde_json::from_str(row.try_get(1)?)?);
            if let Ok(key) = Key::try_from(key) {
                let known = doubts.entry(key).or_insert(None);
                *known = doubted.transaction.or(known.take());
            }
        }
        Ok(doubts)
    }

    fn decide(
        &self,
        command: &mut Command,
        entries: &mut HashMap<Key, Entry>,
        names: &Names,
        doubts: &HashMap<Key, Option<String>>,
        debts: &mut HashMap<Debtor, Amount>,
        now: u64,
    ) -> Result<(), WriteError> {
        let in_doubt = |key: &Key| match doubts.get(key) {
            Some(transaction) => Err(WriteError::InDoubt { transaction: transaction.clone() }),
            None => Ok(()),
        };
        match command {
            Command::Reserve { key, row, limit, .. } => {
                let debtor = debtor(key, row);
                let key = key_bytes(key);
                let slot = entries.entry(key);
                row.admit(if let Slot::Occupied(entry) = &slot { Some(&entry.get().row) } else { None }, now)?;
                in_doubt(&key)?;
                // Another process may have sold the same purchase under another signature.
                let named = row.id.as_deref().and_then(|id| names.get(&name_of(Address::from_slice(payer_in(&key)), id)));
                if let Some((other, Some(bought))) = named
                    && other.as_slice() != key
                    && !matches!(Answer::of(bought.state), Answer::Usable | Answer::Void)
                {
                    return Err(WriteError::Conflict(Box::new(bought.clone())));
                }
                if let Some(limit) = *limit {
                    let owed = debts.entry(debtor).or_default();
                    if !may_owe(*owed, row.amount, limit) {
                        return Err(WriteError::Exposed);
                    }
                    *owed = owed.saturating_add(row.amount);
                }
                let known = matches!(&slot, Slot::Occupied(entry) if entry.get().known);
                slot.insert_entry(Entry { row: (**row).clone(), owner: self.owner, known, changed: true, answer: None });
                Ok(())
            }
            Command::Try { key, change, .. } | Command::Must { key, change, .. } => {
                let key = key_bytes(key);
                let entry = entries.get_mut(&key).ok_or(WriteError::Illegal)?;
                // An answer that has left is not the one that the payer would buy again.
                let has_left = change.ask.as_ref().is_some_and(|ask| ask.delivered);
                if change.events.contains(&Event::CaptureBegun) && entry.row.state == State::Reserved && !has_left {
                    in_doubt(&key)?;
                }
                self.change(entry, change, now)
            }
            Command::Undo { key } => {
                let entry = entries.get_mut(&key_bytes(key)).ok_or(WriteError::Illegal)?;
                self.change(entry, &Change::new(&[Event::GivenBack]), now)
            }
            // Only a file is archived by its writer.
            Command::Archive { .. } => Err(WriteError::Illegal),
            Command::Flush { .. } => Ok(()),
        }
    }

    fn change(&self, entry: &mut Entry, change: &Change, now: u64) -> Result<(), WriteError> {
        // What another process works on is its own. We were taken for dead, or never had it.
        if entry.owner != self.owner && matches!(entry.row.state, State::Reserved | State::Settling | State::Settled | State::Rerunning) {
            return Err(WriteError::Conflict(Box::new(entry.row.clone())));
        }
        entry.row.apply(change, now)?;
        entry.changed = true;
        if matches!(entry.row.state, State::Settling | State::Rerunning) {
            entry.owner = self.owner;
        }
        if let Some(answer) = &change.answer {
            let size = answer.len() as u64;
            let has_room = self.answers.load(std::sync::atomic::Ordering::Relaxed).saturating_add(size) <= MAX_ANSWERS;
            if has_room {
                self.answers.fetch_add(size, std::sync::atomic::Ordering::Relaxed);
            } else {
                tracing::warn!("there is no more room for answers; this one is not kept");
            }
            entry.row.answer = has_room.then_some(size);
            entry.answer = Some(has_room.then(|| answer.clone()));
        } else if entry.row.keeps_in_vain() {
            entry.row.answer = None;
            entry.answer = Some(None);
        }
        Ok(())
    }

    /// Writes what has changed; false when another process was quicker with one of the new rows.
    pub(super) async fn put(&self, session: &Session, entries: &HashMap<Key, Entry>, names: &Names) -> Result<bool, DatabaseError> {
        let mut changed: Vec<_> = entries.iter().filter(|(_, entry)| entry.changed).collect();
        if changed.is_empty() {
            return Ok(true);
        }
        changed.sort_by_key(|(key, _)| **key);
        let keys: Vec<&[u8]> = changed.iter().map(|(key, _)| key.as_slice()).collect();
        let known: Vec<&[u8]> = changed.iter().filter(|(_, entry)| entry.known).map(|(key, _)| key.as_slice()).collect();
        let payers: Vec<&[u8]> = keys.iter().map(|key| payer_in(key)).collect();
        let fingerprints: Vec<&[u8]> = changed.iter().map(|(_, entry)| entry.row.fingerprint.as_slice()).collect();
        let states: Vec<&str> = changed.iter().map(|(_, entry)| entry.row.state.code()).collect();
        let open: Vec<bool> = changed.iter().map(|(_, entry)| entry.row.state.is_open()).collect();
        let owners: Vec<i64> = changed.iter().map(|(_, entry)| entry.owner).collect();
        let created: Vec<i64> = changed.iter().map(|(_, entry)| signed(entry.row.created)).collect();
        let updated: Vec<i64> = changed.iter().map(|(_, entry)| signed(entry.row.updated)).collect();
        let owing: Vec<_> = changed.iter().map(|(key, entry)| owing(key, &entry.row)).collect();
        let debtors: Vec<Option<&[u8]>> = owing.iter().map(|debt| debt.as_ref().map(|(debtor, _)| debtor.as_slice())).collect();
        let owes: Vec<Option<&str>> = owing.iter().map(|debt| debt.as_ref().map(|(_, owes)| owes.as_str())).collect();
        let details = changed.iter().map(|(_, entry)| serde_json::to_string(&entry.row)).collect::<Result<Vec<_>, _>>()?;
        let put = session
            .execute(
                PUT_ROWS,
                &[&keys, &payers, &fingerprints, &states, &open, &owners, &created, &updated, &details, &debtors, &owes, &known],
            )
            .await?;
        if put != changed.len() as u64 {
            return Ok(false);
        }
        // Only a reservation ends in this state.
        let reserved = changed.iter().filter(|(_, entry)| entry.row.state == State::Reserved);
        let mut named: Vec<(B256, &[u8])> = reserved
            .filter_map(|(key, entry)| Some((name_of(Address::from_slice(payer_in(*key)), entry.row.id.as_deref()?), key.as_slice())))
            .collect();
        if !named.is_empty() {
            named.sort_unstable();
            let (given, keys): (Vec<&[u8]>, Vec<&[u8]>) = named.iter().map(|(name, key)| (name.as_slice(), *key)).unzip();
            let locked: Vec<&[u8]> = names.keys().map(|name| name.as_slice()).collect();
            if session.execute(PUT_NAMES, &[&given, &keys, &locked]).await? != named.len() as u64 {
                return Ok(false);
            }
        }
        let forgotten: Vec<&[u8]> = changed.iter().filter(|(_, e)| e.answer == Some(None)).map(|(key, _)| key.as_slice()).collect();
        if !forgotten.is_empty() {
            session.execute("delete from obol.answer where key = any($1)", &[&forgotten]).await?;
        }
        let kept: Vec<(&[u8], &[u8])> =
            changed.iter().filter_map(|(key, entry)| Some((key.as_slice(), entry.answer.as_ref()?.as_deref()?))).collect();
        if !kept.is_empty() {
            let keys: Vec<&[u8]> = kept.iter().map(|(key, _)| *key).collect();
            let sizes: Vec<i64> = kept.iter().map(|(_, body)| signed(body.len() as u64)).collect();
            let bodies: Vec<&[u8]> = kept.iter().map(|(_, body)| *body).collect();
            session.execute(PUT_ANSWERS, &[&keys, &sizes, &bodies]).await?;
        }
        Ok(true)
    }

    /// What became of a transaction whose session broke while it was committed.
    async fn was_committed(&self, transaction: &str) -> bool {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Ok(session) = self.access.connect().await
                && let Ok(row) = session.query_one("select pg_xact_status($1::text::xid8)", &[&transaction]).await
            {
                match row.try_get::<_, Option<&str>>(0) {
                    Ok(Some("committed")) => return true,
                    Ok(Some("in progress")) => {}
                    _ => return false,
                }
            }
            tokio::time::sleep(super::GLANCE).await;
        }
        false
    }
}

/// Locks rows and reads them.
async fn lock(session: &Session, keys: &[&[u8]]) -> Result<HashMap<Key, Entry>, DatabaseError> {
    let mut entries = HashMap::new();
    for row in session.query(LOCK_ROWS, &[&keys]).await? {
        let (key, entry) = locked(&row)?;
        entries.insert(key, entry);
    }
    Ok(entries)
}

/// Chain, token and payer.
type Debtor = Vec<u8>;

fn debtor(key: &ReplayKey, row: &Row) -> Debtor {
    [&key.chain_id.to_be_bytes()[..], row.asset(key).as_slice(), key.payer.as_slice()].concat()
}

/// What a row says of its payer's debts.
fn owing(key: &Key, row: &Row) -> Option<(Debtor, String)> {
    let owes = row.exposure();
    (owes != Amount::ZERO).then(|| key_from_bytes(key).map(|key| (debtor(&key, row), owes.to_string()))).flatten()
}

/// Who wants to owe more.
fn debtors_of(commands: &[Command]) -> Vec<Debtor> {
    let mut debtors: Vec<_> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Reserve { key, row, limit: Some(_), .. } => Some(debtor(key, row)),
            _ => None,
        })
        .collect();
    debtors.sort_unstable();
    debtors.dedup();
    debtors
}

async fn lock_debtors(session: &Session, debtors: &[Debtor]) -> Result<(), DatabaseError> {
    // Two who share a number wait for each other, and that is all.
    let numbers = debtors.iter().filter_map(|debtor| debtor.last_chunk().map(|end| i32::from_be_bytes(*end)));
    let numbers: Vec<i32> = numbers.collect();
    if !numbers.is_empty() {
        session.query(LOCK_DEBTORS, &[&numbers]).await?;
    }
    Ok(())
}

/// What each owes.
async fn debts(session: &Session, debtors: &[Debtor]) -> Result<HashMap<Debtor, Amount>, DatabaseError> {
    let mut debts = HashMap::new();
    if debtors.is_empty() {
        return Ok(debts);
    }
    let unforgiven = signed(now_ms().saturating_sub(u64::try_from(UNFORGIVEN.as_millis()).unwrap_or(u64::MAX)));
    for row in session.query(DEBTS, &[&debtors, &unforgiven]).await? {
        // A sum beyond 256 bits is more than anybody may owe.
        debts.insert(row.try_get(0)?, row.try_get::<_, &str>(1)?.parse().unwrap_or(Amount(U256::MAX)));
    }
    Ok(debts)
}

/// The names of a batch's reservations, once and in order.
fn names_of(commands: &[Command]) -> Vec<B256> {
    let mut names: Vec<_> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Reserve { key, row, .. } => Some(name_of(key.payer, row.id.as_deref()?)),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Locks names, and reads whose they are.
async fn lock_names(session: &Session, names: Vec<B256>) -> Result<Names, DatabaseError> {
    if names.is_empty() {
        return Ok(Names::new());
    }
    let list: Vec<&[u8]> = names.iter().map(|name| name.as_slice()).collect();
    let mut found = Names::new();
    for row in session.query(LOCK_NAMES, &[&list]).await? {
        let detail = row.try_get::<_, Option<&str>>(2)?.map(serde_json::from_str).transpose()?;
        found.insert(B256::from_slice(row.try_get(0)?), (row.try_get::<_, &[u8]>(1)?.to_vec(), detail));
    }
    Ok(found)
}

/// An entry of a row `key, owner, detail`.
pub(super) fn locked(row: &tokio_postgres::Row) -> Result<(Key, Entry), DatabaseError> {
    let key = Key::try_from(row.try_get::<_, &[u8]>(0)?)
        .map_err(|_| <serde_json::Error as serde::de::Error>::custom("its key has another length"))?;
    let detail = serde_json::from_str(row.try_get(2)?)?;
    Ok((key, Entry { row: detail, owner: row.try_get(1)?, known: true, changed: false, answer: None }))
}

/// The payer within a key.
fn payer_in(key: &[u8]) -> &[u8] {
    key.get(28..48).unwrap_or_default()
}

/// Every payment of a batch, once and in order.
fn keys_of(commands: &[Command]) -> Vec<Key> {
    let mut keys: Vec<_> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Reserve { key, .. } | Command::Try { key, .. } | Command::Must { key, .. } | Command::Undo { key } => {
                Some(key_bytes(key))
            }
            Command::Archive { .. } | Command::Flush { .. } => None,
        })
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Which payments are to be settled or reserved only when nothing else of their payer is in doubt.
#[derive(Default)]
struct Asks {
    keys: Vec<Key>,
    payers: Vec<Vec<u8>>,
    /// Absent where the row has it.
    fingerprints: Vec<Option<Vec<u8>>>,
}

impl Asks {
    fn of(commands: &[Command]) -> Self {
        let mut asks = Self::default();
        for command in commands {
            let (key, fingerprint) = match command {
                Command::Reserve { key, row, .. } => (key, Some(row.fingerprint.to_vec())),
                Command::Try { key, .. } => (key, None),
                _ => continue,
            };
            asks.keys.push(key_bytes(key));
            asks.payers.push(key.payer.to_vec());
            asks.fingerprints.push(fingerprint);
        }
        asks
    }
}
