use obol_offer::Gate;
use obol_x402::UptoDirectory;
use proptest::prelude::*;

use super::*;
use crate::fixtures::{route, with};

fn offer(name: &str, path: &str, host: Option<&str>, routes: &[(&str, Gate)]) -> Arc<Offer> {
    let spec = with(path, |s| {
        s.hostname = host.map(Into::into);
        s.routes = routes.iter().map(|(path, gate)| route(path, *gate)).collect();
    });
    crate::fixtures::offer(name, &spec)
}

fn table(offers: &[Arc<Offer>]) -> RouteTable {
    let mut builder = RouteTable::builder();
    for offer in offers {
        builder.offer(offer);
    }
    builder.build()
}

fn found(table: &RouteTable, host: Option<&str>, path: &str) -> Option<(String, String, bool)> {
    let entry = table.find(host, &CanonicalPath::parse(path).unwrap())?;
    Some((entry.offer.name.to_string(), entry.path.to_string(), entry.quote.is_some()))
}

fn hit(name: &str, path: &str, paid: bool) -> Option<(String, String, bool)> {
    Some((name.into(), path.into(), paid))
}

#[test]
fn the_longest_prefix_of_whole_segments_answers() {
    let table = table(&[
        offer("a", "/services/a", None, &[("/health", Gate::Free), ("/docs/*", Gate::Free), ("/docs/private/*", Gate::Paid)]),
        offer("ab", "/services/a/b", None, &[]),
    ]);
    assert_eq!(table.len(), 5);
    for (path, expected) in [
        ("/services/a", hit("a", "/services/a", true)),
        ("/services/a/", hit("a", "/services/a", true)),
        ("/services/a/x/y/z/w", hit("a", "/services/a", true)),
        ("/services/a/health", hit("a", "/services/a/health", false)),
        ("/services/a/health/", hit("a", "/services/a", true)),
        ("/services/a/health/x", hit("a", "/services/a", true)),
        ("/services/a/healthy", hit("a", "/services/a", true)),
        ("/services/a/docs", hit("a", "/services/a/docs", false)),
        ("/services/a/docs/", hit("a", "/services/a/docs", false)),
        ("/services/a/docs/x", hit("a", "/services/a/docs", false)),
        ("/services/a/docs/private/x/y", hit("a", "/services/a/docs/private", true)),
        ("/services/a/b", hit("ab", "/services/a/b", true)),
        ("/services/a/bb", hit("a", "/services/a", true)),
        ("/services/ab", None),
        ("/services", None),
        ("/", None),
    ] {
        assert_eq!(found(&table, None, path), expected, "{path}");
        assert_eq!(found(&table, Some("any.example"), path), expected, "{path}");
    }
}

#[test]
fn its_own_host_goes_before_any_host() {
    let table = table(&[
        offer("own", "/", Some("shop.example"), &[("/free/*", Gate::Free)]),
        offer("any", "/services/any", None, &[]),
        offer("deep", "/services/any/deep", Some("other.example"), &[]),
    ]);
    assert_eq!(found(&table, Some("shop.example"), "/"), hit("own", "/", true));
    assert_eq!(found(&table, Some("shop.example"), "/services/any"), hit("own", "/", true));
    assert_eq!(found(&table, Some("shop.example"), "/free/x"), hit("own", "/free", false));
    assert_eq!(found(&table, Some("other.example"), "/services/any/deep/x"), hit("deep", "/services/any/deep", true));
    assert_eq!(found(&table, Some("other.example"), "/services/any/x"), hit("any", "/services/any", true));
    assert_eq!(found(&table, None, "/services/any/deep/x"), hit("any", "/services/any", true));
    assert_eq!(found(&table, None, "/"), None);
}

#[test]
fn a_route_over_everything_takes_the_bases_place() {
    let table = table(&[offer("a", "/a", None, &[("/*", Gate::Free), ("/paid", Gate::Paid), ("", Gate::Paid)])]);
    assert_eq!(found(&table, None, "/a/x"), hit("a", "/a", false));
    assert_eq!(found(&table, None, "/a"), hit("a", "/a", true));
    assert_eq!(found(&table, None, "/a/"), hit("a", "/a", false));
    assert_eq!(found(&table, None, "/a/paid"), hit("a", "/a/paid", true));
}

#[test]
fn a_place_is_kept_by_who_came_first() {
    let mut builder = RouteTable::builder();
    let (first, second) = (offer("a", "/x", None, &[]), offer("b", "/x", None, &[]));
    assert!(builder.insert(Entry::of_offer(&first, &UptoDirectory::default()).remove(0)));
    assert!(!builder.insert(Entry::of_offer(&second, &UptoDirectory::default()).remove(0)));
    let table = builder.build();
    assert_eq!((table.len(), found(&table, None, "/x/y")), (1, hit("a", "/x", true)));
}

#[test]
fn a_very_deep_path_costs_no_more_than_what_is_sold() {
    let table = table(&[offer("a", "/a/b", None, &[])]);
    let deep = format!("/a/b{}", "/x".repeat(30_000));
    // Without the bound this is 30,000 hashes of up to 60 kB: seconds per look-up, not microseconds.
    let path = CanonicalPath::parse(&deep).unwrap();
    for _ in 0..10_000 {
        assert!(table.find(None, &path).is_some());
    }
}

/// The rule as a sentence: of all entries that match, own host first, then longest, then exact.
fn naive<'a>(entries: &'a [Arc<Entry>], host: Option<&str>, path: &CanonicalPath) -> Option<&'a Arc<Entry>> {
    entries
        .iter()
        .filter(|e| e.host().is_none() || e.host() == host)
        .filter(|e| if e.subtree { path.is_within(e.path.as_str()) } else { e.path == *path })
        .max_by_key(|e| (e.host().is_some(), e.path.as_str().trim_end_matches('/').len(), !e.subtree))
}

proptest! {
    #[test]
    fn finding_agrees_with_the_naive_rule(
        places in proptest::collection::btree_set(("(/[ab]{1,2}){1,3}", 0..3_usize), 1..8),
        routes in proptest::collection::btree_set(("(/[ab]{1,2}){1,2}", any::<bool>()), 0..4),
        asked in proptest::collection::vec(("(/[ab]{1,2}){0,6}/?", 0..3_usize), 1..20),
    ) {
        let hosts = [None, Some("a.example"), Some("b.example")];
        let routes: Vec<(String, bool)> = routes.into_iter().collect();
        let routes: Vec<(String, Gate)> =
            routes.into_iter().map(|(path, tree)| (if tree { format!("{path}/*") } else { path }, Gate::Free)).collect();
        let routes: Vec<(&str, Gate)> = routes.iter().map(|(path, gate)| (path.as_str(), *gate)).collect();
        let mut builder = RouteTable::builder();
        let mut entries = Vec::new();
        for (index, (path, host)) in places.iter().enumerate() {
            for entry in Entry::of_offer(&offer(&format!("o{index}"), path, hosts[*host], &routes), &UptoDirectory::default()) {
                if builder.insert(entry.clone()) {
                    entries.push(entry);
                }
            }
        }
        let table = builder.build();
        for (path, host) in &asked {
            let path = CanonicalPath::parse(if path.is_empty() { "/" } else { path }).unwrap();
            let ours = table.find(hosts[*host], &path);
            let expected = naive(&entries, hosts[*host], &path);
            prop_assert_eq!(ours.map(Arc::as_ptr), expected.map(Arc::as_ptr), "{} on {:?}", path, hosts[*host]);
        }
    }
}

#[test]
fn buyers_are_told_how_a_metered_price_is_charged() {
    let mut spec = crate::fixtures::spec("/services/ocr");
    spec.payment.as_mut().unwrap().price =
        obol_offer::PriceSpec { per_unit: Some("0.002".into()), unit: Some("page".into()), max_units: Some(50), ..Default::default() };
    let offer = Arc::new(Offer::validate(&"ocr".parse().unwrap(), &spec).unwrap());
    let entry = Entry::of_offer(&offer, &UptoDirectory::default()).remove(0);
    let told = &entry.quote.as_ref().unwrap().info().description;
    assert!(told.contains("0.002 USDC per page. With `upto` what was used is charged"), "{told}");
    let listing: serde_json::Value =
        serde_json::from_str(&crate::discovery::listing(&offer, crate::state::Phase::Active, &crate::Site::default()).unwrap()).unwrap();
    assert_eq!(listing["metered"]["perUnit"], serde_json::json!({"unit": "page", "amount": "2000", "maxUnits": 50}));
    assert_eq!((&listing["amount"], &listing["metered"]["scheme"]), (&"100000".into(), &"upto".into()));
    assert_eq!(listing["payments"][1]["metered"]["scheme"], "exact");
}
