use std::net::{Ipv4Addr, SocketAddr};

use super::*;

fn options(root: &std::path::Path) -> Options {
    let any = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    Options { root: Some(root.to_owned()), listen: any, admin: any }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_nothing_to_a_paid_request_and_again_in_the_same_folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("shop");
    let mut titles = Vec::new();
    for round in 1..=2_u64 {
        titles.clear();
        let toured = tour(&options(&root), &mut |step| titles.push(step.title)).await.unwrap();
        let facts = &toured.facts;
        assert_eq!((facts.unpaid_status, facts.paid_status, facts.upstream_requests), (402, 200, 1));
        assert_eq!(facts.answer["city"], "Lisbon");
        assert_eq!(facts.buyer.before.0 - facts.buyer.after.0, facts.price.0);
        assert_eq!(facts.seller.after.0, facts.price.0 * obol_offer::U256::from(round), "balances survive the node");
        assert!(facts.file.is_file() && facts.key_file.is_file());
        for kept in [true, false] {
            assert!(next(facts, kept).contains(&facts.directory.display().to_string()));
        }
        let json = serde_json::to_value(facts).unwrap();
        assert_eq!(json["steps"].as_array().unwrap().len(), titles.len());
        toured.node.stop().await.unwrap();
    }
    assert_eq!(titles.len(), 6);
}

#[tokio::test]
async fn what_is_in_the_way_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes.txt");
    std::fs::write(&notes, "mine").unwrap();
    let refused = tour(&options(folder.path()), &mut |_| ()).await.err().unwrap();
    assert_eq!(refused.problems()[0].code, "quickstart_in_the_way");
    assert_eq!(refused.exit(), Exit::Usage);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(notes).unwrap(), "mine");
}

#[tokio::test]
async fn somebody_elses_stack_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let stack = obol_stackdir::StackDir::at(folder.path().join("config"));
    stack.init(&obol_stackdir::StackConfig::default()).unwrap();
    let slice = stack.root().join("applications/sell-http/own");
    std::fs::create_dir_all(&slice).unwrap();
    std::fs::write(slice.join("values-offer.yaml"), "name: own\n").unwrap();
    let refused = tour(&options(folder.path()), &mut |_| ()).await.err().unwrap();
    assert_eq!(refused.problems()[0].code, "quickstart_in_the_way");
    assert!(!stack.root().join("applications/sell-http/weather").exists());
}

#[tokio::test]
async fn play_money_never_leaves_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let outside = Options { listen: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))), ..options(folder.path()) };
    let refused = tour(&outside, &mut |_| ()).await.err().unwrap();
    assert_eq!(refused.problems()[0].code, "quickstart_loopback");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn paths_are_shown_as_a_shell_reads_them() {
    assert_eq!(quoted(Path::new("/tmp/a-b.c/d_e")), "/tmp/a-b.c/d_e");
    assert_eq!(quoted(Path::new("/tmp/it's mine")), r"'/tmp/it'\''s mine'");
}
