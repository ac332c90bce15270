//! The same cluster as one that obol has made on this machine: what k3d and Docker would say is recorded, all
//! else is real.

use std::os::unix::fs::PermissionsExt as _;

use obol_e2e::{buyers::Buyer, cluster::MACHINE};

use crate::shop::Shop;

/// Sells a server of the machine itself, whose address only the backend knows; then all is as before.
pub async fn machine(shop: &mut Shop) {
    let folder = shop.stack.config();
    let (file, before) = (folder.join("stack.yaml"), fs_err::read_to_string(folder.join("stack.yaml")).expect("a stack"));
    let field = |key: &str| before.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}: {before}")).trim();
    let (id, context) = (field("id:"), field("context:"));
    let text = before.replace("backend: kubernetes\n", "backend: k3d\n").replace(&format!("context: {context}\n"), "");
    fs_err::write(&file, text).expect("a file");
    let bin = folder.parent().expect("beside the data").join("data/bin");
    fs_err::create_dir_all(&bin).expect("a folder");
    let running = format!(r#"[{{"name":"{id}","serversCount":1,"serversRunning":1}}]"#);
    for (name, says) in [("k3d", running.as_str()), ("docker", MACHINE.as_str())] {
        fs_err::write(bin.join(name), format!("#!/bin/sh\necho '{says}'\n")).expect("a file");
        fs_err::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).expect("a file of ours");
    }
    let kubeconfig = bin.join("kubeconfig");
    fs_err::copy(shop.cluster.kubeconfig(), &kubeconfig).expect("a file");
    let mut rename = shop.cluster.program("kubectl");
    rename.args(["config", "rename-context", context, &format!("k3d-{id}")]).env("KUBECONFIG", &kubeconfig);
    assert!(rename.status().expect("kubectl starts").success(), "the context has k3d's name");

    let port = shop.service.url.rsplit(':').next().expect("a port");
    let upstream = format!("http://localhost:{port}");
    for args in [&["stack", "up"][..], &["sell", "http", "beside", "--upstream", &upstream, "--price", "0.001"]] {
        let output = shop.stack.command().args(args).env("KUBECONFIG", &kubeconfig).output().expect("obol starts");
        assert!(output.status.success(), "obol {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    let slice = fs_err::read_to_string(shop.stack.slice("beside").join("values-offer.yaml")).expect("it is sold");
    assert!(!slice.contains(MACHINE.as_str()), "the address is the backend's to find: {slice}");
    shop.buys(Buyer::FetchV2, "beside", "a server of the machine: bought").await;

    fs_err::write(file, before).expect("a file");
    fs_err::remove_dir_all(bin).expect("a folder");
    fs_err::remove_dir_all(shop.stack.slice("beside")).expect("a folder");
    shop.stack.ok(&["stack", "up"]);
}
