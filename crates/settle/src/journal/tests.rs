use std::{
    fs::File,
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use obol_offer::{Address, B256, Scheme};
use obol_payment::{Event, State};
use obol_x402::{AuthorizationKind, ReplayKey};
use redb::{Builder, Database, ReadableDatabase as _, StorageBackend, TableDefinition};

use super::{Ask, Change, Journal, Row, WriteError, row};
use crate::{
    OpenError, PaymentRecord, Receipt,
    claims::{ClaimKey, Claims},
    test_payment::payment,
};

fn key(n: u8) -> ReplayKey {
    payment(n).replay_key()
}

fn fresh(n: u8) -> Row {
    Row::new(&"weather".parse().unwrap(), "https://x402.example", B256::repeat_byte(9), &payment(n))
}

async fn reserve(journal: &Journal, n: u8) -> Result<super::Reservation, WriteError> {
    let claim = Arc::new(Claims::default()).claim(ClaimKey::Replay(key(n)), B256::ZERO).unwrap();
    journal.reserve(key(n), fresh(n), claim, None).await
}

fn state(journal: &Journal, n: u8) -> Option<State> {
    journal.store().read(&key(n)).unwrap().map(|row| row.state)
}

fn receipt() -> Receipt {
    let payment = payment(1);
    Receipt { transaction: "0xabc".into(), payer: payment.authorization.from, amount: payment.terms.amount }
}

#[test]
fn keys_and_rows_survive_their_bytes() {
    let key = key(7);
    assert_eq!(row::key_from_bytes(&row::key_bytes(&key)), Some(key));
    let mut row = fresh(7);
    row.ask = Ask::of(&payment(7)).map(Box::new);
    let read: Row = serde_json::from_slice(&serde_json::to_vec(&row).unwrap()).unwrap();
    assert_eq!(read, row);
    let (again, before) = (read.payment(&key).unwrap(), payment(7));
    assert_eq!(again.facilitator_body, before.facilitator_body);
    assert_eq!((again.terms, again.authorization), (before.terms, before.authorization));
}

/// A payment that Permit2 keeps the nonce of, to be settled for less than was authorised.
#[test]
fn a_metered_payment_can_be_asked_about_again() {
    let mut metered = payment(8);
    metered.terms.scheme = Scheme::Upto;
    metered.authorization.kind = AuthorizationKind::Upto { facilitator: Address::repeat_byte(7) };
    metered.charge = 7.into();
    let key = metered.replay_key();
    assert_ne!(key.contract, metered.terms.asset.address);
    let mut row = Row::new(&"weather".parse().unwrap(), "f", B256::ZERO, &metered);
    row.ask = Ask::of(&metered).map(Box::new);
    let row: Row = serde_json::from_slice(&serde_json::to_vec(&row).unwrap()).unwrap();
    let again = row.payment(&key).unwrap();
    assert_eq!((again.replay_key(), again.charge, again.terms, again.authorization), (key, 7.into(), metered.terms, metered.authorization));
    assert_eq!(PaymentRecord::of(&key, &row).symbol.as_deref(), Some("USDC"));
}

/// A file written by this format must be readable for ever: a change here needs a migration.
#[test]
fn rows_of_format_1_are_still_read() {
    let text = include_str!("row_v1.json");
    let row: Row = serde_json::from_str(text).unwrap();
    assert_eq!((row.v, row.state), (1, State::Unknown));
    assert_eq!(serde_json::to_string(&row).unwrap(), text.trim());
}

#[tokio::test]
async fn a_crash_is_resolved_on_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    let copy = dir.path().join("crashed.redb");
    {
        let (journal, unknown) = Journal::open(&path).unwrap();
        assert!(unknown.is_empty());
        let reserved = reserve(&journal, 1).await.unwrap();
        let mut settling = reserve(&journal, 2).await.unwrap();
        settling.begin(Ask::of(&payment(2)).unwrap(), None).await.unwrap();
        let mut settled = reserve(&journal, 3).await.unwrap();
        settled.begin(Ask::of(&payment(3)).unwrap(), None).await.unwrap();
        settled.finish(Change::new(&[Event::SettleSettled]).receipt(receipt()));
        let mut pending = reserve(&journal, 4).await.unwrap();
        pending.begin(Ask::of(&payment(4)).unwrap(), None).await.unwrap();
        pending.finish(Change::new(&[Event::SettlePending]).transaction(Some("0xdef".into())));
        journal.flush().await.unwrap();
        std::fs::copy(&path, &copy).unwrap();
        drop((reserved, settling));
    }
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let (journal, mut unknown) = Journal::open(&copy).unwrap();
    assert_eq!([1, 2, 3, 4].map(|n| state(&journal, n).unwrap()), [State::Released, State::Unknown, State::Owed, State::Unknown]);
    unknown.sort_by_key(|(key, _)| key.nonce);
    assert_eq!(unknown.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key(2), key(4)]);
    assert_eq!(unknown[1].1.transaction.as_deref(), Some("0xdef"));
    assert_eq!(unknown[0].1.payment(&key(2)).unwrap().facilitator_body, payment(2).facilitator_body);
    assert_eq!(journal.store().read(&key(3)).unwrap().unwrap().receipt, Some(receipt()));
    assert_eq!(journal.store().read(&key(3)).unwrap().unwrap().ask, None, "what is not needed any more is not kept");
}

#[tokio::test]
async fn the_table_of_transitions_is_enforced_in_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(&dir.path().join("j")).unwrap();
    let first = reserve(&journal, 1).await.unwrap();
    assert!(matches!(reserve(&journal, 1).await, Err(WriteError::Conflict(row)) if row.state == State::Reserved));
    assert!(matches!(journal.record(key(1), Change::new(&[Event::Delivered])).await, Err(WriteError::Conflict(_))));
    assert!(matches!(journal.record(key(2), Change::new(&[Event::GivenBack])).await, Err(WriteError::Illegal)));
    assert_eq!(state(&journal, 1), Some(State::Reserved));
    first.release().await;
    assert_eq!(state(&journal, 1), Some(State::Released));
    drop(reserve(&journal, 1).await.unwrap());
    journal.flush().await.unwrap();
    assert_eq!(state(&journal, 1), Some(State::Released), "a dropped reservation is given back");
}

#[tokio::test]
async fn a_reservation_nobody_waits_for_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(&dir.path().join("j")).unwrap();
    for n in 0..50 {
        let waiting = reserve(&journal, n);
        // Polled once, so that the command is on its way; then the buyer leaves.
        let _ = tokio::time::timeout(std::time::Duration::ZERO, waiting).await;
    }
    // One flush for the reservations, one for what they posted when dropped.
    journal.flush().await.unwrap();
    journal.flush().await.unwrap();
    for n in 0..50 {
        assert_eq!(state(&journal, n), Some(State::Released), "{n}");
    }
}

#[tokio::test]
async fn a_second_open_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let (_journal, _) = Journal::open(&path).unwrap();
    assert!(matches!(Journal::open(&path), Err(OpenError::InUse(used)) if used == path));
}

const CHILD: &str = "OBOL_TEST_JOURNAL";

/// Run as a process of its own by the next test; alone it has nothing to open.
#[test]
fn child_process() {
    if let Some(path) = std::env::var_os(CHILD) {
        let in_use = matches!(Journal::open(Path::new(&path)), Err(OpenError::InUse(_)));
        std::process::exit(if in_use { 42 } else { 7 });
    }
}

#[tokio::test]
async fn another_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let child = |path: &Path| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "journal::tests::child_process"]).env(CHILD, path);
        command.output().unwrap().status.code()
    };
    let (journal, _) = Journal::open(&path).unwrap();
    assert_eq!(child(&path), Some(42));
    drop(journal);
    assert_eq!(child(&path), Some(7), "free again when the first is gone");
}

#[test]
fn hostile_files_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    drop(Journal::open(&good).unwrap());
    let bytes = loop {
        // The writer thread closes the file a moment after the last handle is gone.
        if let Ok(database) = Database::open(&good) {
            drop(database);
            break std::fs::read(&good).unwrap();
        }
        std::thread::yield_now();
    };
    let mut cases = vec![("text", b"hello, this is not a journal ".repeat(400)), ("cut", bytes[..bytes.len() / 2].to_vec())];
    let mut flipped = bytes.clone();
    flipped[4096..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    cases.push(("flipped", flipped));
    for (name, content) in cases {
        let path = dir.path().join(name);
        std::fs::write(&path, &content).unwrap();
        let error = std::thread::spawn({
            let path = path.clone();
            move || Journal::open(&path).err()
        })
        .join();
        let error = error.unwrap_or_else(|_| panic!("{name}: panicked")).unwrap_or_else(|| panic!("{name}: opened"));
        assert_eq!(error.code(), "journal_corrupt", "{name}: {error}");
        assert!(error.to_string().contains("restore a backup"), "{name}: {error}");
        assert!(path.exists());
    }
    assert!(matches!(Journal::open(dir.path()), Err(OpenError::Journal { .. })), "a folder");
}

/// Format 2 differs in its number only: its rows are of payments that the token keeps the nonce of.
#[tokio::test]
async fn a_journal_of_format_2_is_brought_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    {
        let (journal, _) = Journal::open(&path).unwrap();
        reserve(&journal, 1).await.unwrap().release().await;
        journal.flush().await.unwrap();
    }
    // The writer lets go a moment later.
    let open =
        || (0..400).find_map(|_| Database::create(&path).ok().or_else(|| (thread::sleep(Duration::from_millis(5)), None).1)).unwrap();
    let format = || TableDefinition::<&str, u64>::new("meta");
    {
        let database = open();
        let txn = database.begin_write().unwrap();
        txn.open_table(format()).unwrap().insert("format", 2).unwrap();
        txn.commit().unwrap();
    }
    let (journal, _) = Journal::open(&path).unwrap();
    assert_eq!(state(&journal, 1), Some(State::Released));
    drop(journal);
    let found = open().begin_read().unwrap().open_table(format()).unwrap().get("format").unwrap().unwrap().value();
    assert_eq!(found, 3);
}

#[test]
fn another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let database = Database::create(&path).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 99).unwrap();
    txn.commit().unwrap();
    drop(database);
    assert!(matches!(Journal::open(&path), Err(OpenError::Format { found: 99, known: 3, .. })));
}

/// A disk that can be full.
#[derive(Debug)]
struct Disk {
    file: File,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> std::io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(out, offset)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.room()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.room()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.room()?;
        self.file.write_all_at(data, offset)
    }
}

fn opener(path: &Path, full: &Arc<AtomicBool>) -> super::store::Opener {
    let (path, full) = (path.to_owned(), Arc::clone(full));
    Box::new(move || {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        Builder::new().create_with_backend(Disk { file, full: Arc::clone(&full) })
    })
}

/// A crash before that would have the payment asked about again, when its buyer has signed another.
#[tokio::test]
async fn a_refusal_is_told_when_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (path, full) = (dir.path().join("j"), Arc::new(AtomicBool::new(false)));
    let (journal, _) = Journal::open_with(&path, opener(&path, &full)).unwrap();
    let mut settling = reserve(&journal, 1).await.unwrap();
    settling.begin(Ask::of(&payment(1)).unwrap(), None).await.unwrap();
    full.store(true, Ordering::SeqCst);
    let mut told = Box::pin(settling.finish_durably(Change::new(&[Event::SettleRefused])));
    tokio::select! {
        biased;
        _ = &mut told => panic!("told too early"),
        flushed = journal.flush() => assert!(flushed.is_err()),
    }
    full.store(false, Ordering::SeqCst);
    told.await.unwrap();
    assert_eq!(state(&journal, 1), Some(State::Refused));
}

/// For an answer that has left: it was said that the write had failed, and it had reached the disk all the same.
#[tokio::test]
async fn a_capture_that_was_begun_in_secret_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(&dir.path().join("j")).unwrap();
    let mut reservation = reserve(&journal, 1).await.unwrap();
    reservation.begin(Ask::of(&payment(1)).unwrap(), None).await.unwrap();
    let Err(WriteError::Conflict(row)) = reservation.begin(Ask::of(&payment(1)).unwrap(), None).await else { panic!("begun twice") };
    reservation.begin_anew(row.state, Ask::of(&payment(1)).unwrap()).await.unwrap();
    assert_eq!(state(&journal, 1), Some(State::Settling));
    reservation.finish_durably(Change::new(&[Event::SettleSettled]).receipt(receipt())).await.unwrap();
    assert_eq!(state(&journal, 1), Some(State::Settled));
}

#[tokio::test]
async fn a_full_disk_takes_no_new_work_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let full = Arc::new(AtomicBool::new(false));
    let (journal, _) = Journal::open_with(&path, opener(&path, &full)).unwrap();
    let mut settling = reserve(&journal, 1).await.unwrap();
    settling.begin(Ask::of(&payment(1)).unwrap(), None).await.unwrap();
    let mut early = reserve(&journal, 2).await.unwrap();

    full.store(true, Ordering::SeqCst);
    assert!(matches!(reserve(&journal, 3).await, Err(WriteError::Unavailable)));
    assert!(matches!(early.begin(Ask::of(&payment(2)).unwrap(), None).await, Err(WriteError::Unavailable)));
    drop(early);
    // Money moved, and the answer was delivered, while nothing can be written.
    settling.finish(Change::new(&[Event::SettleSettled]).receipt(receipt()));
    let (held, mut let_go) = tokio::sync::oneshot::channel::<()>();
    journal.post(key(1), Change::new(&[Event::Delivered]), Some(Box::new(held)));
    assert!(matches!(journal.flush().await, Err(WriteError::Unavailable)));
    assert!(matches!(let_go.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty)), "held until durable");

    full.store(false, Ordering::SeqCst);
    assert!(let_go.await.is_err(), "written without being asked again");
    journal.flush().await.unwrap();
    assert_eq!([1, 2].map(|n| state(&journal, n)), [Some(State::Delivered), Some(State::Released)]);
    assert!(!matches!(state(&journal, 3), Some(State::Reserved)), "no orphan");
    reserve(&journal, 3).await.unwrap().release().await;
}

#[test]
fn a_making_that_was_cut_short_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    std::fs::write(dir.path().join("j.new"), vec![0; 8192]).unwrap();
    drop(Journal::open(&path).unwrap());
    assert!(path.exists() && !dir.path().join("j.new").exists());
}

#[tokio::test]
async fn answers_are_kept_within_a_bound_and_go_with_what_they_belong_to() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(&dir.path().join("j")).unwrap();
    let kept = |n: u8| journal.store().answer(&key(n)).unwrap().map(|bytes| bytes.len());
    let begin = async |n: u8| {
        let mut reservation = reserve(&journal, n).await.unwrap();
        reservation.begin(Ask::of(&payment(n)).unwrap(), Some(vec![n; 1500])).await.unwrap();
        reservation
    };
    let (first, second, third) = (begin(1).await, begin(2).await, begin(3).await);
    assert_eq!([1, 2, 3].map(kept), [Some(1500), Some(1500), None], "the third is above the bound, and is paid all the same");
    first.finish(Change::new(&[Event::SettleRefused]));
    journal.flush().await.unwrap();
    assert_eq!(kept(1), None, "not paid for after all");
    let fourth = begin(4).await;
    assert_eq!(kept(4), Some(1500), "there is room again");
    second.finish(Change::new(&[Event::SettleSettled, Event::Delivered]).receipt(receipt()));
    third.finish(Change::new(&[Event::SettleUnknown]));
    drop(fourth);
    journal.flush().await.unwrap();
    assert_eq!([2, 4].map(kept), [Some(1500), Some(1500)]);
    let row = journal.store().read(&key(2)).unwrap().unwrap();
    let (reply, answer) = tokio::sync::oneshot::channel();
    journal.send(super::command::Command::Archive { rows: vec![(key(2), row)], month: "2026-01".into(), mark: 0, reply });
    answer.await.unwrap().unwrap();
    assert_eq!((kept(2), kept(4)), (None, Some(1500)), "gone with its row");
}
