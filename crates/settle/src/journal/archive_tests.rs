use std::{collections::BTreeSet, fs, io::Write as _, sync::Arc, time::Duration};

use obol_offer::B256;
use obol_payment::{Event, State};
use obol_x402::ReplayKey;

use super::{super::command::Command, *};
use crate::{
    Receipt,
    claims::{ClaimKey, Claims},
    journal::{Ask, Change, now_ms},
    test_payment::payment,
};

const DAY: u64 = 24 * 3600 * 1000;
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

fn key(n: u8) -> ReplayKey {
    payment(n).replay_key()
}

/// A payment that was delivered; `valid_before` in Unix seconds.
async fn delivered(journal: &Journal, n: u8, valid_before: u64, last: Event) {
    let row = Row { valid_before, ..Row::new(&"weather".parse().unwrap(), "https://x402.example", B256::repeat_byte(n), &payment(n)) };
    let claim = Arc::new(Claims::default()).claim(ClaimKey::Replay(key(n)), B256::ZERO).unwrap();
    let mut reservation = journal.reserve(key(n), row, claim, None).await.unwrap();
    reservation.begin(Ask::of(&payment(n)).unwrap(), None).await.unwrap();
    let receipt = Receipt { transaction: format!("0x{n:02x}"), payer: key(n).payer, amount: payment(n).terms.amount };
    reservation.finish(Change::new(&[Event::SettleSettled]).receipt(receipt));
    let events: &'static [Event] = if last == Event::Delivered { &[Event::Delivered] } else { &[Event::DeliveryFailed] };
    journal.record(key(n), Change::new(events)).await.unwrap();
}

/// What an archive's reader sees: the lines before the mark.
fn archived(journal: &Journal) -> Vec<String> {
    let mut keys = Vec::new();
    for (month, mark) in journal.store().marks().unwrap() {
        let each = |record: PaymentRecord| {
            keys.push(record.key);
            ControlFlow::Continue(())
        };
        journal.store().archive.read(&month, 0, mark, each).unwrap();
    }
    keys.sort();
    keys
}

fn keys(of: impl IntoIterator<Item = u8>) -> Vec<String> {
    of.into_iter().map(|n| key(n).to_string()).collect::<BTreeSet<_>>().into_iter().collect()
}

fn in_journal(journal: &Journal, n: u8) -> bool {
    journal.store().read(&key(n)).unwrap().is_some()
}

#[tokio::test]
async fn only_what_is_closed_old_and_void_leaves_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(&dir.path().join("journal.redb")).unwrap();
    let now = now_ms();
    delivered(&journal, 1, 1, Event::Delivered).await;
    // Its authorization could still be used.
    delivered(&journal, 2, (now + 9 * DAY) / 1000, Event::Delivered).await;
    // Its owner has to see to it.
    delivered(&journal, 3, 1, Event::DeliveryFailed).await;
    assert_eq!(journal.archive(now + DAY, WEEK).await.unwrap(), 0, "not old");
    assert_eq!(journal.archive(now + 8 * DAY, WEEK).await.unwrap(), 1);
    assert_eq!(archived(&journal), keys([1]));
    assert_eq!([1, 2, 3].map(|n| in_journal(&journal, n)), [false, true, true]);
    assert_eq!(journal.archive(now + 9 * DAY, WEEK).await.unwrap(), 0, "a clock that differs by less than a day is no use");
    assert_eq!(journal.archive(now + 11 * DAY, WEEK).await.unwrap(), 1);
    assert_eq!(archived(&journal), keys([1, 2]));
    let line = fs::read_to_string(journal.store().archive.path(&journal.store().marks().unwrap().into_keys().next().unwrap())).unwrap();
    assert!(line.contains(r#""transaction":"0x01""#) && line.contains(r#""amountDecimal":"0.001""#), "{line}");
    assert!(!line.contains(&"01".repeat(65)) && !line.contains("x402Version"), "no signature, no payload: {line}");
}

/// Stops at each point where a process can die, and goes on with the files as they are then.
#[tokio::test]
async fn a_crash_at_any_step_neither_loses_nor_doubles_a_payment() {
    for crash in ["before the lines", "after half of a line", "after the lines", "after the removal"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        let later = now_ms() + 30 * DAY;
        {
            let (journal, _) = Journal::open(&path).unwrap();
            for n in 1..=20 {
                delivered(&journal, n, 1, Event::Delivered).await;
            }
            // An earlier run that was whole.
            let rows = journal.store().due(None, later, WEEK).unwrap().0.into_iter().next().unwrap();
            let (month, rows) = (rows.0, rows.1[..5].to_vec());
            assert_eq!(journal.move_out(journal.store(), month.clone(), rows, later, WEEK).await.unwrap(), 5);
            let rows = journal.store().due(None, later, WEEK).unwrap().0.remove(&month).unwrap()[..10].to_vec();
            match crash {
                "before the lines" => {}
                "after half of a line" => {
                    let mut file = journal.store().archive.open(&month).unwrap();
                    let line = serde_json::to_vec(&PaymentRecord::of(&rows[0].0, &rows[0].1)).unwrap();
                    file.write_all(&line[..line.len() / 2]).unwrap();
                }
                "after the lines" => {
                    journal.store().write_out(&month, rows, later, WEEK).unwrap();
                }
                _ => {
                    let (rows, mark) = journal.store().write_out(&month, rows, later, WEEK).unwrap();
                    let (reply, answer) = oneshot::channel();
                    journal.send(Command::Archive { rows, month, mark, reply });
                    answer.await.unwrap().unwrap();
                }
            }
            let left = (1..=20).filter(|n| in_journal(&journal, *n)).count();
            assert_eq!(archived(&journal).len() + left, 20, "{crash}: every payment is in one place at any moment");
        }
        let (journal, _) = Journal::open(&path).unwrap();
        journal.archive(later, WEEK).await.unwrap();
        assert_eq!(archived(&journal), keys(1..=20), "{crash}");
        assert!((1..=20).all(|n| !in_journal(&journal, n)), "{crash}");
        let (month, mark) = journal.store().marks().unwrap().into_iter().next().unwrap();
        let text = fs::read_to_string(journal.store().archive.path(&month)).unwrap();
        assert_eq!((text.lines().count(), text.len() as u64), (20, mark), "{crash}: no line twice, none behind the mark");
    }
}

#[tokio::test]
async fn a_journal_opens_without_its_archives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    let later = now_ms() + 30 * DAY;
    {
        let (journal, _) = Journal::open(&path).unwrap();
        delivered(&journal, 1, 1, Event::Delivered).await;
        assert_eq!(journal.archive(later, WEEK).await.unwrap(), 1);
    }
    // Moved to another disk by its owner.
    fs::remove_dir_all(dir.path().join("journal.archive")).unwrap();
    let (journal, _) = Journal::open(&path).unwrap();
    assert_eq!(archived(&journal), Vec::<String>::new());
    delivered(&journal, 2, 1, Event::Delivered).await;
    assert_eq!(journal.archive(later, WEEK).await.unwrap(), 1, "and a new file is begun");
    assert!(!in_journal(&journal, 2));
    assert_eq!(archived(&journal), keys([2]));
}

/// A journal that version 0.1.0 left after `kill -9`: delivered, owed, refused, unknown, released, and one in progress.
#[tokio::test]
async fn a_journal_of_format_1_is_brought_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    fs::write(&path, include_bytes!("testdata/v1.redb")).unwrap();
    let states = [State::Delivered, State::Owed, State::Refused, State::Unknown, State::Released, State::Released];
    for again in [false, true] {
        let (journal, unknown) = Journal::open(&path).unwrap();
        assert_eq!([1, 2, 3, 4, 5, 6].map(|n| journal.store().read(&key(n)).unwrap().unwrap().state), states, "{again}");
        assert_eq!(unknown.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key(4)]);
        assert!(unknown[0].1.payment(&key(4)).is_some(), "it can be asked about");
        let row = journal.store().read(&key(1)).unwrap().unwrap();
        let record = PaymentRecord::of(&key(1), &row);
        assert_eq!((record.amount_decimal.as_deref(), record.symbol.as_deref()), (Some("0.001"), Some("USDC")));
        assert_eq!(journal.archive(now_ms(), Duration::ZERO).await.unwrap(), 0);
    }
}
