//! A database that is reached by TLS, whose certificate is checked.

use obol_e2e::postgres::Postgres;
use obol_settle::{Captured, Cashier, OpenError};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn payments_are_written_over_tls_to_a_server_whose_certificate_fits() {
    let shop = Shop::with(Postgres::encrypted());
    let a = shop.open("a").await;
    let Captured::Settled(_, delivery) = admit(&a, 1, REQUEST).await.expect("a permit").capture().await else { panic!("it settles") };
    delivery.complete();
    shop.until("it is written", "delivered").await;
    let sessions = "select count(*) filter (where ssl), count(*) from pg_stat_ssl join pg_stat_activity using (pid) \
                    where application_name = 'obol'";
    assert_eq!(shop.database.query(sessions), "2|2", "both sessions are encrypted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_prove_who_it_is_gets_neither_password_nor_payment() {
    let shop = Shop::with(Postgres::encrypted());
    let url = shop.database.url();
    let unknown = url.split("&sslrootcert").next().expect("a part").to_owned();
    for (url, word) in [(unknown, "UnknownIssuer"), (url.replace("127.0.0.1", "localhost"), "not valid for name")] {
        let refused = Cashier::open(shop.config(&url, "a")).await.err().expect("it is refused");
        let OpenError::Database { cause } = &refused else { panic!("{refused}") };
        assert!(cause.contains(word), "{cause}");
    }
    // A session would have made the tables first.
    assert_eq!(shop.database.query("select to_regnamespace('obol') is null"), "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_not_taken_where_tls_is_wanted() {
    let shop = Shop::new();
    let a =
        Cashier::open(shop.config(&format!("{}?sslmode=verify-full", shop.database.url()), "a")).await.expect("it waits for a better one");
    // It has tried by now, once.
    assert!(!a.is_recovered());
    assert_eq!(shop.database.query("select to_regnamespace('obol') is null"), "t");
}
